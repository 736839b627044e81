"""Observations, rewards and ends of Gymnasium's MuJoCo tasks, for many environments at once.

Each class does what the ``step`` of Gymnasium's environment does, with the same arithmetic in the
same types and order, so that the numbers are equal bit for bit. What is left out is the ``info``.
Both versions of a task differ in details only, which are read off the environment itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.mujoco_tasks.ant import Ant
from zoo.mujoco_tasks.humanoid import Humanoid, HumanoidStandup
from zoo.mujoco_tasks.physics import Array, ForEach, MujocoTask, Outcome
from zoo.mujoco_tasks.planar import PlanarRunner

__all__ = ["Array", "MujocoTask", "OneByOne", "task_of"]

_TASKS: dict[str, Callable[[list[Any], ForEach], MujocoTask]] = {
    "AntEnv": Ant,
    "HalfCheetahEnv": PlanarRunner,
    "HopperEnv": PlanarRunner,
    "HumanoidEnv": Humanoid,
    "HumanoidStandupEnv": HumanoidStandup,
    "Walker2dEnv": PlanarRunner,
}


def task_of(envs: list[Any], for_each: ForEach) -> MujocoTask:
    """Return what steps ``envs`` fastest.

    :param envs: Gymnasium's environments of one task, unwrapped.
    :param for_each: calls a function for every environment.
    """
    kind = type(envs[0])
    # A class of somebody else's may have the same name, and steps in a way of its own.
    if not kind.__module__.startswith("gymnasium.envs.mujoco."):
        return OneByOne(envs, for_each)
    return _TASKS.get(kind.__name__, OneByOne)(envs, for_each)


class OneByOne:
    """Any task: its own ``step``, without the wrappers around it."""

    def __init__(self, envs: list[Any], for_each: ForEach) -> None:
        self._envs = envs
        self._for_each = for_each

    def step(self, actions: Array) -> Outcome:
        """Step all environments."""
        n_envs = len(self._envs)
        obs: list[Array] = [np.empty(0)] * n_envs
        rewards, terminated = np.empty(n_envs), np.empty(n_envs, dtype=bool)

        def step(i: int) -> None:
            obs[i], rewards[i], terminated[i], _, _ = self._envs[i].step(actions[i])

        self._for_each(step)
        return np.stack(obs), rewards, terminated
