"""What all tasks share: MuJoCo's stepping, and the interface they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import mujoco
import numpy as np

__all__ = ["Array", "ForEach", "MujocoTask", "Outcome", "Physics", "pays_always"]

Array = np.ndarray[Any, Any]
Outcome = tuple[Array, Array, Array]
"""Observations, rewards and whether the episodes really ended, one row per environment."""

ForEach = Callable[[Callable[[int], None]], None]
"""Calls a function for every environment, maybe in several threads."""


class MujocoTask(Protocol):
    """A task in many environments."""

    def step(self, actions: Array) -> Outcome:
        """Step all environments."""


class Physics:
    """``mj_step`` in many environments, and nothing else.

    :param contact_forces: compute them afterwards, as Gymnasium always does; they cost a
        twentieth of a step and change no state.
    """

    def __init__(self, envs: list[Any], for_each: ForEach, *, contact_forces: bool) -> None:
        self._for_each = for_each
        self._contact_forces = contact_forces
        self._n_frames = envs[0].frame_skip
        self._models = [env.model for env in envs]
        self._data = [env.data for env in envs]
        # A view of MuJoCo's own memory, which stays valid as long as the data lives.
        self._ctrl = [env.data.ctrl for env in envs]

    def advance(self, actions: Array) -> None:
        """Take one control step in every environment."""
        for ctrl, action in zip(self._ctrl, actions, strict=True):
            ctrl[:] = action
        self._for_each(self._advance_one)

    def _advance_one(self, i: int) -> None:
        model, data = self._models[i], self._data[i]
        mujoco.mj_step(model, data, self._n_frames)
        if self._contact_forces:
            mujoco.mj_rnePostConstraint(model, data)


def pays_always(env: Any) -> bool:
    """Tell whether the last step of an episode is paid for being healthy, too, as in v4."""
    terminates: bool = env._terminate_when_unhealthy
    return terminates and type(env).__module__.endswith("_v4")
