"""Gymnasium's MuJoCo tasks stepped together: the same numbers as one by one, bit for bit.

Gymnasium's own environments are kept: their models, their data, their resets. Only what happens
between two observations is done by :mod:`zoo.mujoco_tasks`, for all environments at once. Nothing
else is between the caller and ``mj_step``, and nothing but the time limit is kept of the wrappers,
so ``infos`` carry only ``TimeLimit.truncated`` and ``terminal_observation``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from agents.errors import ConfigError
from hub.gym_env import make_gym_env
from zoo.loop_threads import LoopThreads
from zoo.mujoco_tasks import Array, MujocoTask, OneByOne, task_of

__all__ = ["MujocoVecEnv"]


class MujocoVecEnv(VecEnv):
    """Many environments of one MuJoCo task, equal to SB3's ``DummyVecEnv`` of them.

    :param env_id: a MuJoCo task of Gymnasium.
    :param n_envs: how many environments.
    :param env_kwargs: arguments of each environment.
    :param num_threads: threads that step the physics, which leaves Python meanwhile; 0 takes as
        many as pay, up to one per processor core. The numbers are the same for any.
    :raises ConfigError: the environment is not one of Gymnasium's MuJoCo tasks.
    """

    def __init__(
        self,
        env_id: str,
        n_envs: int,
        env_kwargs: Mapping[str, Any] | None = None,
        num_threads: int = 0,
    ) -> None:
        self._envs = [make_gym_env(env_id, env_kwargs) for _ in range(n_envs)]
        self._mujoco_envs: list[Any] = [env.unwrapped for env in self._envs]
        first = self._envs[0]
        if not isinstance(self._mujoco_envs[0], MujocoEnv):
            raise ConfigError(
                f"{env_id} is not one of Gymnasium's MuJoCo tasks; use --vec-env dummy."
            )
        self.spec = first.spec
        limit = first.spec.max_episode_steps if first.spec is not None else None
        self._max_episode_steps = np.iinfo(np.int64).max if limit is None else limit
        self._episode_steps = np.zeros(n_envs, dtype=np.int64)
        self._actions: Array | None = None
        self._task = task_of(self._mujoco_envs, self._for_each)
        n_threads = num_threads or _threads_that_pay(self._mujoco_envs, self._task)
        self._threads = LoopThreads(min(n_threads, n_envs))
        super().__init__(n_envs, first.observation_space, first.action_space)

    def _for_each(self, function: Callable[[int], None]) -> None:
        """Call ``function`` for every environment."""
        self._threads.for_each(len(self._envs), function)

    def reset(self) -> Array:
        """Start new episodes everywhere, from the seeds if ``seed`` was called before."""
        seeded = zip(self._mujoco_envs, self._seeds, strict=True)
        observations = [env.reset(seed=seed)[0] for env, seed in seeded]
        self._reset_seeds()
        self._reset_options()
        self._episode_steps[:] = 0
        return np.stack(observations)

    def step_async(self, actions: Array) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments and reset those whose episode ended."""
        if self._actions is None:
            raise RuntimeError("step_async was not called")
        obs, rewards, terminated = self._task.step(self._actions)
        self._episode_steps += 1
        dones = terminated | (self._episode_steps >= self._max_episode_steps)
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if dones.any():
            for i in map(int, dones.nonzero()[0]):
                infos[i]["terminal_observation"] = obs[i].copy()
                infos[i]["TimeLimit.truncated"] = not terminated[i]
                obs[i], _ = self._mujoco_envs[i].reset()
            self._episode_steps[dones] = 0
        return obs, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close all environments and end the threads."""
        self._threads.close()
        for env in self._envs:
            env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each environment."""
        return [self._envs[i].get_wrapper_attr(attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: settings were read when the environments were made."""
        raise AttributeError(
            f"'{attr_name}' cannot be set after the environments were made; "
            "pass it as an environment argument, or use --vec-env dummy."
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of each environment."""
        return [
            self._envs[i].get_wrapper_attr(method_name)(*method_args, **method_kwargs)
            for i in self._get_indices(indices)
        ]

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """Return False for each environment: its wrappers are not stepped."""
        return [False for _ in self._get_indices(indices)]


# Waking a thread takes 30 to 70 µs on the machines seen. NPG with 16 environments trains 1.24 times
# as fast in two threads as in one on HalfCheetah, whose physics takes 0.3 ms together. Where
# Gymnasium's own `step` is called, Python is left for less of the time: 0.73 times on Reacher
# (0.3 ms), 0.93 on Pusher (0.4 ms), 1.05 on InvertedDoublePendulum (0.6 ms).
_LEAST_SECONDS_PER_THREAD = 120e-6
_LEAST_SECONDS_PER_THREAD_ONE_BY_ONE = 250e-6


def _threads_that_pay(envs: list[Any], task: MujocoTask) -> int:
    """Return how many threads to share the physics of one step among."""
    least = _LEAST_SECONDS_PER_THREAD
    if isinstance(task, OneByOne):
        least = _LEAST_SECONDS_PER_THREAD_ONE_BY_ONE
    model, n_frames = envs[0].model, envs[0].frame_skip
    data = mujoco.MjData(model)
    durations = []
    for _ in range(5):
        start = time.perf_counter()
        mujoco.mj_step(model, data, n_frames)
        durations.append(time.perf_counter() - start)
    shares = int(len(envs) * min(durations) / least)
    return max(1, min(shares, _available_cores()))


def _available_cores() -> int:
    """Return how many processor cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
