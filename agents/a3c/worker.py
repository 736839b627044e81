"""What runs in a worker's process: pull, collect a segment, differentiate, push, report."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING, Any

import cloudpickle
import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from agents.a3c.control import Control
from agents.a3c.exploration import tempered
from agents.a3c.gradient import SegmentGradient
from agents.a3c.reports import SegmentReport, UpdateReport, WorkerFailure
from agents.a3c.shared_normalizer import SharedStatistics, WorkerNormalize
from agents.a3c.shared_optimizer import SharedOptimizer
from agents.a3c.solo import SoloLearner
from agents.a3c.worker_env import make_worker_env
from agents.errors import ConfigError

if TYPE_CHECKING:
    from agents.a3c.a3c import A3C

__all__ = ["Assignment", "Shared", "Worker", "run_worker"]

_WAIT_SECONDS = 0.0005
# What callbacks and logs use of the last step of an episode.
_EPISODE_KEYS = ("episode", "is_success", "TimeLimit.truncated")


@dataclass(frozen=True)
class Assignment:
    """What one worker is to do; travels to its process as bytes."""

    worker: int
    algorithm: type[A3C]
    policy: type[ActorCriticPolicy]
    settings: dict[str, Any]
    """Keywords of the algorithm's constructor."""
    policy_state: dict[str, torch.Tensor]
    """Also what no gradient changes: frozen parameters and buffers."""
    make_env: Callable[[], VecEnv]
    t_start: float
    spaces: tuple[gym.Space[Any], gym.Space[Any]]
    """Of observations and actions, as the learner has them."""
    normalize: dict[str, Any] | None
    """Keywords of VecNormalize; None for no normalisation."""
    temperature: float

    def to_bytes(self) -> bytes:
        """Return a pickle that also holds functions and classes of a script or a notebook."""
        content: bytes = cloudpickle.dumps(self)
        return content


@dataclass(frozen=True)
class Shared:
    """What all processes have in common."""

    optimizer: SharedOptimizer
    control: Control
    statistics: SharedStatistics | None


class _Recorder(BaseCallback):
    """Keeps what callbacks in the learner's process are to see of a segment."""

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control
        self.rewards: list[np.ndarray[Any, Any]] = []
        self.dones: list[np.ndarray[Any, Any]] = []
        self.infos: dict[tuple[int, int], dict[str, Any]] = {}

    def _on_rollout_start(self) -> None:
        self.rewards, self.dones, self.infos = [], [], {}

    def _on_step(self) -> bool:
        # Copies: time limits are bootstrapped in the very array.
        self.rewards.append(self.locals["rewards"].copy())
        dones = self.locals["dones"]
        self.dones.append(dones)
        for env in np.flatnonzero(dones):
            info = self.locals["infos"][env]
            known = {key: info[key] for key in _EPISODE_KEYS if key in info}
            self.infos[len(self.dones) - 1, int(env)] = known
        return not self._control.is_stopping


class Worker:
    """One actor-learner: environments, networks and random streams of its own.

    :param assignment: what to do.
    :param shared: with whom.
    :raises ConfigError: the environments are not like the learner's.
    """

    def __init__(self, assignment: Assignment, shared: Shared) -> None:
        self.index = assignment.worker
        self._shared = shared
        self._temperature = assignment.temperature
        env = make_worker_env(assignment.make_env, assignment.t_start)
        self._normalizer: WorkerNormalize | None = None
        if assignment.normalize is not None:
            n_steps = assignment.settings["n_steps"]
            env = self._normalizer = WorkerNormalize(env, n_steps, **assignment.normalize)
        self._agent = assignment.algorithm(assignment.policy, env, **assignment.settings)
        self._env = self._agent.env or env  # SB3 may have put wrappers of its own around it
        self._check_spaces(assignment.spaces)
        self._agent.policy.load_state_dict(assignment.policy_state)
        self._learner = SoloLearner(self._agent, correct_exploration=assignment.temperature != 1.0)
        self._recorder = _Recorder(shared.control)
        self._agent._setup_learn(2**62, self._recorder)
        self._recorder.init_callback(self._agent)

    def _check_spaces(self, expected: tuple[gym.Space[Any], gym.Space[Any]]) -> None:
        own = (self._agent.observation_space, self._agent.action_space)
        for name, space, wanted in zip(("observation", "action"), own, expected, strict=True):
            if space != wanted:
                raise ConfigError(
                    f"A worker's environment has the {name} space {space}, the algorithm's has "
                    f"{wanted}; correct worker_env."
                )

    def run_segment(self) -> SegmentReport | None:
        """Pull, collect, differentiate and push once; None if asked to stop meanwhile."""
        agent = self._agent
        pulled_at = self._pull()
        with tempered(agent.policy, self._temperature):
            if not self._learner.collect(
                self._env, self._recorder, agent.rollout_buffer, agent.n_steps
            ):
                return None
        segment, variance = self._learner.gradient()
        staleness = self._push(segment, pulled_at)
        return self._report(UpdateReport.of(segment, variance, staleness))

    def _pull(self) -> int:
        if self._normalizer is not None and self._shared.statistics is not None:
            self._shared.statistics.pull(self._normalizer)
        return self._shared.optimizer.pull(self._learner.loss.parameters)

    def _push(self, segment: SegmentGradient, pulled_at: int) -> int:
        if not segment.is_finite:
            return self._shared.optimizer.n_updates - pulled_at
        return self._shared.optimizer.push(
            segment.gradient,
            learning_rate=self._shared.control.learning_rate,
            worker=self.index,
            pulled_at=pulled_at,
        )

    def _report(self, update: UpdateReport) -> SegmentReport:
        return SegmentReport(
            worker=self.index,
            rewards=np.stack(self._recorder.rewards),
            dones=np.stack(self._recorder.dones),
            infos=self._recorder.infos,
            update=update,
            moments=None if self._normalizer is None else self._normalizer.moments,
        )

    def close(self) -> None:
        """Close the environments."""
        self._env.close()


def run_worker(content: bytes, shared: Shared, reports: connection.Connection) -> None:
    """Work until the learner says stop, or is gone.

    :param content: a pickled :class:`Assignment`.
    :param reports: to the learner.
    """
    # Ctrl-C reaches every process of a terminal; what happens then is for the learner to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    torch.set_num_threads(1)
    try:
        _work(cloudpickle.loads(content), shared, reports)
    except (BrokenPipeError, ConnectionResetError):
        return  # the learner has stopped listening
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        reports.send(WorkerFailure(message, traceback.format_exc()))
        raise SystemExit(1) from None


def _work(assignment: Assignment, shared: Shared, reports: connection.Connection) -> None:
    worker = Worker(assignment, shared)
    n_done = 0
    while not shared.control.is_stopping:
        if n_done >= shared.control.granted[worker.index]:
            time.sleep(_WAIT_SECONDS)
            continue
        report = worker.run_segment()
        if report is None:
            break
        reports.send(report)
        n_done += 1
    worker.close()


def _end_with_parent() -> None:
    """End this process when the learner's has ended, however that happened."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
