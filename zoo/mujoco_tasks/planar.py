"""The runners that live in a plane: HalfCheetah, Hopper and Walker2d."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.mujoco_tasks.physics import Array, ForEach, Outcome, Physics, pays_always

__all__ = ["PlanarRunner"]


class PlanarRunner:
    """HalfCheetah, Hopper and Walker2d: run along x, be paid for speed, pay for control.

    ``reward = w_forward · Δx / dt + healthy_reward − w_ctrl · Σ action²``; Hopper and Walker2d end
    when they are no longer healthy.
    """

    def __init__(self, envs: list[Any], for_each: ForEach) -> None:
        env = envs[0]
        self._physics = Physics(envs, for_each, contact_forces=False)
        self._dt = env.dt
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
            self._pays_always = pays_always(env)
            self._z_range = env._healthy_z_range
            self._angle_range = env._healthy_angle_range
            self._state_range = getattr(env, "_healthy_state_range", None)

    def step(self, actions: Array) -> Outcome:
        """Step all environments."""
        before = np.array([qpos[0] for qpos in self._qpos])
        self._physics.advance(actions)
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
        seen = np.minimum(np.maximum(qvel, -10), 10) if self._clips else qvel
        return np.concatenate([qpos[:, self._skip :], seen], axis=1), rewards, terminated

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
