"""Ant."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.mujoco_tasks.physics import Array, ForEach, Outcome, Physics, pays_always

__all__ = ["Ant"]


class Ant:
    """Ant: move the torso along x, stay up, pay for control (and contact, if it is counted).

    ``reward = w_forward · Δx / dt + healthy_reward − w_ctrl · Σ action² − contact_cost``.
    """

    def __init__(self, envs: list[Any], for_each: ForEach) -> None:
        env = envs[0]
        is_v4 = type(env).__module__.endswith("_v4")
        self._counts_contact = env._use_contact_forces if is_v4 else True
        self._sees_contact = (
            env._use_contact_forces if is_v4 else env._include_cfrc_ext_in_observation
        )
        self._first_body = 0 if is_v4 else 1
        self._physics = Physics(envs, for_each, contact_forces=self._counts_contact)
        torso = env.data.body("torso" if is_v4 else env._main_body).id
        self._dt = env.dt
        self._torso = [e.data.xpos[torso] for e in envs]
        self._qpos = [e.data.qpos for e in envs]
        self._qvel = [e.data.qvel for e in envs]
        self._contact_forces = [e.data.cfrc_ext for e in envs]
        self._skip = 2 * int(env._exclude_current_positions_from_observation)
        self._forward_weight = getattr(env, "_forward_reward_weight", 1.0)
        self._ctrl_weight = env._ctrl_cost_weight
        self._contact_weight = env._contact_cost_weight
        self._contact_range = env._contact_force_range
        self._healthy_reward = env._healthy_reward
        self._terminate = env._terminate_when_unhealthy
        self._pays_always = pays_always(env)
        self._z_range = env._healthy_z_range

    def step(self, actions: Array) -> Outcome:
        """Step all environments."""
        before = np.array([torso[0] for torso in self._torso])
        self._physics.advance(actions)
        after = np.array([torso[0] for torso in self._torso])
        qpos, qvel = np.array(self._qpos), np.array(self._qvel)
        n_envs = len(qpos)
        state = np.concatenate([qpos, qvel], axis=1)
        healthy = np.isfinite(state).all(axis=1)
        healthy &= (self._z_range[0] <= state[:, 2]) & (state[:, 2] <= self._z_range[1])
        paid = np.ones(n_envs) if self._pays_always else healthy.astype(np.float64)
        rewards = (after - before) / self._dt * self._forward_weight + paid * self._healthy_reward
        costs = self._ctrl_weight * np.square(actions).sum(axis=1)
        obs = state[:, self._skip :]
        if self._counts_contact:
            forces = np.clip(np.array(self._contact_forces), *self._contact_range)
            squares = np.square(forces).reshape(n_envs, -1).sum(axis=1)
            costs = costs + self._contact_weight * squares
            if self._sees_contact:
                seen = forces[:, self._first_body :].reshape(n_envs, -1)
                obs = np.concatenate([obs, seen], axis=1)
        terminated = ~healthy if self._terminate else np.zeros(n_envs, dtype=bool)
        return obs, rewards - costs, terminated
