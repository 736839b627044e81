"""The learner of several workers: what is shared, who does what, what comes back."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from agents.a3c.control import Control
from agents.a3c.exploration import worker_temperature
from agents.a3c.reports import SegmentReport, UpdateReport
from agents.a3c.shared_normalizer import SharedStatistics, merge_moments
from agents.a3c.shared_optimizer import SharedOptimizer
from agents.a3c.solo import SoloLearner
from agents.a3c.supervision import WorkerPool, worker_context
from agents.a3c.worker import Assignment, Shared
from agents.a3c.worker_env import worker_env_recipe

if TYPE_CHECKING:
    from agents.a3c.a3c import A3C

__all__ = ["CrewLearner", "assignments", "worker_seed"]

_SEEDS = 2**31 - 2**20  # room for a seed per environment above a worker's


def worker_seed(seed: int | None, num_timesteps: int, worker: int) -> int | None:
    """Return the seed of a worker that begins when ``num_timesteps`` steps have been made.

    Worker 0 of a new run has the run's own, so that it does what a single worker would.
    """
    if seed is None or (num_timesteps == 0 and worker == 0):
        return seed
    state = np.random.SeedSequence([seed, num_timesteps, worker]).generate_state(1, np.uint64)
    return int(state[0] % _SEEDS)


class CrewLearner:
    """Lets workers learn and takes in what they report.

    The workers start with the first segment, after callbacks have seen training begin.

    :param algorithm: whose policy, optimiser and statistics they begin with.
    """

    def __init__(self, algorithm: A3C) -> None:
        self._algorithm = algorithm
        self._crew: _Crew | None = None
        self._report: SegmentReport | None = None

    @property
    def n_workers(self) -> int:
        """Workers that are alive."""
        return 0 if self._crew is None else self._crew.pool.n_workers

    @property
    def n_crashed(self) -> int:
        """Workers that have died."""
        return 0 if self._crew is None else self._crew.pool.n_crashed

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are alive."""
        return () if self._crew is None else self._crew.pool.pids

    def collect(
        self, env: VecEnv, callback: BaseCallback, buffer: RolloutBuffer, n_steps: int
    ) -> bool:
        """Let callbacks see a segment that a worker has finished; False if one ended training.

        :raises WorkerCrashed: as :meth:`WorkerPool.next_report`.
        :raises ConfigError: the workers cannot make such environments, or normalise them.
        """
        algorithm = self._algorithm
        callback.on_rollout_start()
        if self._crew is None:
            self._crew = _Crew(algorithm, env)
        report = self._report = self._crew.next_report()
        seen: dict[str, Any] = {
            "self": algorithm,
            "env": env,
            "callback": callback,
            "rollout_buffer": buffer,
            "n_rollout_steps": n_steps,
            "worker": report.worker,
        }
        for step, (rewards, dones) in enumerate(zip(report.rewards, report.dones, strict=True)):
            algorithm.num_timesteps += env.num_envs
            infos = [report.infos.get((step, index), {}) for index in range(env.num_envs)]
            seen.update(n_steps=step, rewards=rewards, dones=dones, infos=infos)
            callback.update_locals(seen)
            if not callback.on_step():
                return False
            algorithm._update_info_buffer(infos, dones)
        callback.on_rollout_end()
        return True

    def update(self) -> UpdateReport:
        """Refresh this process's copy of what the workers share."""
        if self._crew is None or self._report is None:
            raise RuntimeError("no worker has reported a segment yet")
        self._crew.refresh()
        return self._report.update

    def close(self) -> None:
        """End all workers."""
        if self._crew is not None:
            self._crew.pool.close()


class _Crew:
    """The workers' processes and the memory that they share with this one."""

    def __init__(self, algorithm: A3C, env: VecEnv) -> None:
        self._optimizer = algorithm.rmsprop
        self._parameters = SoloLearner(algorithm).loss.parameters
        self._normalizer = unwrap_vec_normalize(env)
        context = worker_context()
        group = self._optimizer.param_groups[0]
        self._shared = Shared(
            SharedOptimizer(
                context,
                self._parameters,
                self._optimizer.square_avgs(self._parameters),
                algorithm.n_workers,
                alpha=group["alpha"],
                eps=group["eps"],
            ),
            Control(context, algorithm.n_workers),
            None if self._normalizer is None else SharedStatistics(context, self._normalizer),
        )
        progress = algorithm._current_progress_remaining
        self._shared.control.learning_rate = algorithm.lr_schedule(progress)
        n_left = algorithm._total_timesteps - algorithm.num_timesteps
        self.pool = WorkerPool(
            context,
            assignments(algorithm, env, self._normalizer),
            self._shared,
            n_segments=math.ceil(n_left / (algorithm.n_steps * env.num_envs)),
            on_crash=algorithm.on_worker_crash,
        )

    def next_report(self) -> SegmentReport:
        """Wait for a segment and add what it says about observations to the statistics."""
        report = self.pool.next_report()
        statistics = self._shared.statistics
        if report.moments and self._normalizer is not None and statistics is not None:
            merge_moments(self._normalizer, report.moments)
            statistics.publish(self._normalizer)
        return report

    def refresh(self) -> None:
        """Copy parameters and RMSprop's statistics to the learner, and pass the rate on."""
        self._shared.optimizer.pull(self._parameters)
        self._shared.optimizer.pull_square_avgs(self._optimizer.square_avgs(self._parameters))
        self._shared.control.learning_rate = self._optimizer.param_groups[0]["lr"]


def assignments(algorithm: A3C, env: VecEnv, normalizer: VecNormalize | None) -> list[Assignment]:
    """Return what each worker is to do.

    :param env: the learner's environments.
    :param normalizer: around them, if any.
    :raises ConfigError: the workers cannot make such environments.
    """
    recipe = worker_env_recipe(env, algorithm.worker_env)
    t_start = time.time()
    return [
        Assignment(
            worker=worker,
            algorithm=type(algorithm),
            policy=cast(type[ActorCriticPolicy], algorithm.policy_class),
            settings=_settings(algorithm, worker),
            policy_state=algorithm.policy.state_dict(),
            make_env=recipe,
            t_start=t_start,
            spaces=(algorithm.observation_space, algorithm.action_space),
            normalize=_normalize(normalizer),
            temperature=worker_temperature(algorithm.exploration_temperatures, worker),
        )
        for worker in range(algorithm.n_workers)
    ]


def _settings(algorithm: A3C, worker: int) -> dict[str, Any]:
    """Return the constructor's keywords of a worker's own, single-worker algorithm."""
    names = (
        *("n_steps", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm"),
        *("normalize_advantage", "use_sde", "sde_sample_freq", "rollout_buffer_class"),
        *("rollout_buffer_kwargs", "policy_kwargs", "device"),
    )
    seed = worker_seed(algorithm.seed, algorithm.num_timesteps, worker)
    return {name: getattr(algorithm, name) for name in names} | {"seed": seed}


def _normalize(normalizer: VecNormalize | None) -> dict[str, Any] | None:
    if normalizer is None:
        return None
    names = ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon")
    return {name: getattr(normalizer, name) for name in names}
