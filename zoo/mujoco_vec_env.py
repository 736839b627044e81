"""Gymnasium's MuJoCo tasks stepped together: the same numbers as one by one, bit for bit.

Gymnasium's own environments are kept: their models, their data, their resets. Only what happens
between two observations is done here. The tasks that run in a plane (:class:`_PlanarRunner`) have
observation, reward and end computed for all environments at once; every other task is stepped by
its own ``step``, without the wrappers around it. Nothing else is between the caller and
``mj_step``, and nothing but the time limit is kept of the wrappers, so ``infos`` carry only
``TimeLimit.truncated`` and ``terminal_observation``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from agents.errors import ConfigError
from zoo.envs import make_gym_env

__all__ = ["MujocoVecEnv"]

Array = np.ndarray[Any, Any]
Outcome = tuple[Array, Array, Array]
"""Observations, rewards and whether the episodes really ended, one row per environment."""


class MujocoVecEnv(VecEnv):
    """Many environments of one MuJoCo task, equal to SB3's ``DummyVecEnv`` of them.

    :param env_id: a MuJoCo task of Gymnasium.
    :param n_envs: how many environments.
    :param env_kwargs: arguments of each environment.
    :param num_threads: threads that step the physics, which leaves Python meanwhile.
    :raises ConfigError: the environment is not one of Gymnasium's MuJoCo tasks.
    """

    def __init__(
        self,
        env_id: str,
        n_envs: int,
        env_kwargs: Mapping[str, Any] | None = None,
        num_threads: int = 1,
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
        self._threads = ThreadPoolExecutor(num_threads) if num_threads > 1 else None
        self._n_threads = num_threads
        self._step = self._stepper()
        super().__init__(n_envs, first.observation_space, first.action_space)

    def _stepper(self) -> Callable[[Array], Outcome]:
        name = type(self._mujoco_envs[0]).__name__
        if name in _PLANAR_RUNNERS:
            return _PlanarRunner(self._mujoco_envs, self._each).step
        return self._step_one_by_one

    def _each(self, function: Callable[[int], None]) -> None:
        """Call ``function`` for every environment, in as many threads as there are."""
        n_envs = len(self._envs)
        if self._threads is None:
            for i in range(n_envs):
                function(i)
            return

        def part(start: int) -> None:
            for i in range(start, n_envs, self._n_threads):
                function(i)

        for future in [self._threads.submit(part, start) for start in range(self._n_threads)]:
            future.result()

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
        obs, rewards, terminated = self._step(self._actions)
        self._episode_steps += 1
        dones = terminated | (self._episode_steps >= self._max_episode_steps)
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if dones.any():
            for i in dones.nonzero()[0]:
                infos[i]["terminal_observation"] = obs[i].copy()
                infos[i]["TimeLimit.truncated"] = not terminated[i]
                obs[i], _ = self._mujoco_envs[i].reset()
            self._episode_steps[dones] = 0
        return obs, rewards.astype(np.float32), dones, infos

    def _step_one_by_one(self, actions: Array) -> Outcome:
        n_envs = len(self._envs)
        obs: list[Array] = [np.empty(0)] * n_envs
        rewards, terminated = np.empty(n_envs), np.empty(n_envs, dtype=bool)

        def step(i: int) -> None:
            obs[i], rewards[i], terminated[i], _, _ = self._mujoco_envs[i].step(actions[i])

        self._each(step)
        return np.stack(obs), rewards, terminated

    def close(self) -> None:
        """Close all environments and end the threads."""
        if self._threads is not None:
            self._threads.shutdown()
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


_PLANAR_RUNNERS = (
    "HalfCheetahEnv",
    "HopperEnv",
    "Walker2dEnv",
)


class _PlanarRunner:
    """HalfCheetah, Hopper and Walker2d: run along x, be paid for speed, pay for control.

    ``reward = w_forward · Δx / dt + healthy_reward − w_ctrl · Σ action²``; Hopper and Walker2d end
    when they are no longer healthy. Arithmetic and types are those of Gymnasium's ``step``.

    :param envs: Gymnasium's environments, unwrapped.
    :param each: calls a function for every environment.
    """

    def __init__(self, envs: list[Any], each: Callable[[Callable[[int], None]], None]) -> None:
        env = envs[0]
        self._each = each
        self._n_frames = env.frame_skip
        self._dt = env.dt
        self._models = [e.model for e in envs]
        self._data = [e.data for e in envs]
        # Views of MuJoCo's own memory, which stay valid as long as the data lives.
        self._ctrl = [e.data.ctrl for e in envs]
        self._qpos = [e.data.qpos for e in envs]
        self._qvel = [e.data.qvel for e in envs]
        self._skip = int(env._exclude_current_positions_from_observation)
        self._forward_weight = env._forward_reward_weight
        self._ctrl_weight = env._ctrl_cost_weight
        self._ends = type(env).__name__ != "HalfCheetahEnv"
        self._clips = self._ends  # the two that can fall clip the velocities they observe
        if self._ends:
            self._terminate = env._terminate_when_unhealthy
            self._healthy_reward = env._healthy_reward
            # v4 pays for being healthy in the last step, too.
            self._pays_always = type(env).__module__.endswith("_v4") and self._terminate
            self._z_range = env._healthy_z_range
            self._angle_range = env._healthy_angle_range
            self._state_range = getattr(env, "_healthy_state_range", None)

    def step(self, actions: Array) -> Outcome:
        """Step all environments and look at them together."""
        before = np.array([qpos[0] for qpos in self._qpos])
        for ctrl, action in zip(self._ctrl, actions, strict=True):
            ctrl[:] = action
        self._each(self._simulate)
        qpos, qvel = np.array(self._qpos), np.array(self._qvel)
        rewards = self._forward_weight * ((qpos[:, 0] - before) / self._dt)
        terminated = np.zeros(len(qpos), dtype=bool)
        if self._ends:
            healthy = self._is_healthy(qpos, qvel)
            paid = np.ones(len(qpos)) if self._pays_always else healthy.astype(np.float64)
            rewards = rewards + paid * self._healthy_reward
            if self._terminate:
                terminated = ~healthy
        rewards = rewards - self._ctrl_weight * np.square(actions).sum(axis=1)
        seen = np.clip(qvel, -10, 10) if self._clips else qvel
        return np.concatenate([qpos[:, self._skip :], seen], axis=1), rewards, terminated

    def _simulate(self, i: int) -> None:
        mujoco.mj_step(self._models[i], self._data[i], self._n_frames)

    def _is_healthy(self, qpos: Array, qvel: Array) -> Array:
        z, angle = qpos[:, 1], qpos[:, 2]
        healthy = (self._z_range[0] < z) & (z < self._z_range[1])
        healthy &= (self._angle_range[0] < angle) & (angle < self._angle_range[1])
        if self._state_range is not None:
            low, high = self._state_range
            state = np.concatenate([qpos, qvel], axis=1)[:, 2:]
            healthy &= ((low < state) & (state < high)).all(axis=1)
        result: Array = healthy
        return result
