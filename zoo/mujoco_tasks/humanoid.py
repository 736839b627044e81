"""Humanoid and HumanoidStandup."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.mujoco_tasks.physics import Array, ForEach, Outcome, Physics, pays_always

__all__ = ["Humanoid", "HumanoidStandup"]


class Humanoid:
    """Humanoid: move the centre of mass along x, stay up, pay for control (v5: and contact).

    ``reward = w_forward · Δx / dt + healthy_reward − w_ctrl · Σ ctrl² − contact_cost``.
    """

    def __init__(self, envs: list[Any], for_each: ForEach) -> None:
        env = envs[0]
        self._physics = Physics(envs, for_each, contact_forces=True)
        self._observe = _Observations(envs)
        self._dt = env.dt
        masses = np.array([e.model.body_mass for e in envs])
        self._masses, self._total_mass = masses, masses.sum(axis=1, keepdims=True)
        self._positions = [e.data.xipos for e in envs]
        self._qpos = [e.data.qpos for e in envs]
        self._ctrl = [e.data.ctrl for e in envs]
        self._forward_weight = env._forward_reward_weight
        self._ctrl_weight = env._ctrl_cost_weight
        self._healthy_reward = env._healthy_reward
        self._terminate = env._terminate_when_unhealthy
        self._pays_always = pays_always(env)
        self._z_range = env._healthy_z_range
        self._contact_weight = getattr(env, "_contact_cost_weight", None)
        self._contact_range = getattr(env, "_contact_cost_range", (0.0, 0.0))
        self._contact_forces = [e.data.cfrc_ext for e in envs]

    def step(self, actions: Array) -> Outcome:
        """Step all environments."""
        n_envs = len(self._qpos)
        before = self._centres_of_mass()
        self._physics.advance(actions)
        x_velocity = (self._centres_of_mass() - before)[:, 0] / self._dt
        z = np.array([qpos[2] for qpos in self._qpos])
        healthy = (self._z_range[0] < z) & (z < self._z_range[1])
        paid = np.ones(n_envs) if self._pays_always else healthy.astype(np.float64)
        rewards = self._forward_weight * x_velocity + paid * self._healthy_reward
        costs = self._ctrl_weight * np.square(np.array(self._ctrl)).sum(axis=1)
        if self._contact_weight is not None:
            squares = np.square(np.array(self._contact_forces)).reshape(n_envs, -1).sum(axis=1)
            costs = costs + np.clip(self._contact_weight * squares, *self._contact_range)
        terminated = ~healthy if self._terminate else np.zeros(n_envs, dtype=bool)
        return self._observe(), rewards - costs, terminated

    def _centres_of_mass(self) -> Array:
        """Return the centres of mass by the sums of Gymnasium's ``mass_center``, in their order."""
        weighted = np.einsum("nb,nbj->nj", self._masses, np.array(self._positions))
        centres: Array = weighted / self._total_mass
        return centres


class HumanoidStandup:
    """HumanoidStandup: get the torso up, pay for control and impact; never ends by itself."""

    def __init__(self, envs: list[Any], for_each: ForEach) -> None:
        env = envs[0]
        self._physics = Physics(envs, for_each, contact_forces=True)
        self._observe = _Observations(envs)
        self._timestep = env.model.opt.timestep
        self._qpos = [e.data.qpos for e in envs]
        self._ctrl = [e.data.ctrl for e in envs]
        self._contact_forces = [e.data.cfrc_ext for e in envs]
        # v4 has these as constants.
        self._ctrl_weight = getattr(env, "_ctrl_cost_weight", 0.1)
        self._impact_weight = getattr(env, "_impact_cost_weight", 0.5e-6)
        self._impact_range = getattr(env, "_impact_cost_range", (-np.inf, 10.0))

    def step(self, actions: Array) -> Outcome:
        """Step all environments."""
        self._physics.advance(actions)
        n_envs = len(self._qpos)
        height = np.array([qpos[2] for qpos in self._qpos])
        ctrl_cost = self._ctrl_weight * np.square(np.array(self._ctrl)).sum(axis=1)
        squares = np.square(np.array(self._contact_forces)).reshape(n_envs, -1).sum(axis=1)
        impact_cost = np.clip(self._impact_weight * squares, *self._impact_range)
        rewards = height / self._timestep - ctrl_cost - impact_cost + 1
        return self._observe(), rewards, np.zeros(n_envs, dtype=bool)


class _Observations:
    """What both humanoids observe, gathered from MuJoCo's memory."""

    def __init__(self, envs: list[Any]) -> None:
        self._parts = [part for env in envs for part in _parts(env)]
        self._n_envs = len(envs)

    def __call__(self) -> Array:
        return np.concatenate(self._parts).reshape(self._n_envs, -1)


def _parts(env: Any) -> list[Array]:
    """Return views of what one humanoid observes; v5 leaves out the world and the root joint."""
    data = env.data
    is_v4 = type(env).__module__.endswith("_v4")
    excludes_position = getattr(env, "_exclude_current_positions_from_observation", True)
    parts = [data.qpos[2 if excludes_position else 0 :], data.qvel]
    first_body, first_dof = (0, 0) if is_v4 else (1, 6)
    optional = {
        "cinert": data.cinert[first_body:],
        "cvel": data.cvel[first_body:],
        "qfrc_actuator": data.qfrc_actuator[first_dof:],
        "cfrc_ext": data.cfrc_ext[first_body:],
    }
    for name, values in optional.items():
        if getattr(env, f"_include_{name}_in_observation", True):
            parts.append(values.reshape(-1))
    return parts
