"""What each number of an observation and of an action is called, in which unit, how often.

A robot that is fed the right numbers in the wrong order falls. Names of MuJoCo tasks are read from
the simulated model and checked against a step of the environment (:mod:`hub.mujoco_names`), those
of Gymnasium's classic control from a table; any other task gets ``obs_0``, ``obs_1`` … without
units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from hub.classic_control_names import ACTIONS, OBSERVATIONS
from hub.mujoco_names import name_actions, name_observation, simulation

__all__ = ["ControlNames", "Labels", "describe_control", "unnamed_control"]

# Nobody reads the names of pixels.
_MAX_NAMED = 4096

Labels = Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ControlNames:
    """Names and units in the order of the flat (row-major) observation and action.

    With a Dict observation ``observation_names`` and ``observation_units`` are mappings by key;
    images have no names. A Discrete action has one name per choice and no units. The unit of a
    number without dimension is ``"1"``, one that is not known is ``""``.
    """

    observation_names: Labels
    observation_units: Labels
    action_names: Sequence[str]
    action_units: Sequence[str]
    joint_names: Sequence[str] = field(default=())
    """The joint that each action drives."""
    control_dt: float | None = None
    """Seconds from one action to the next."""
    frame_skip: int | None = None
    """Steps of the simulation per action."""


def describe_control(env: gym.Env[Any, Any]) -> ControlNames:
    """Return the names for an environment as an agent sees it, wrappers included.

    :param env: an environment of its own: it is reset and stepped.
    """
    core = env.unwrapped
    actions = _known_actions(env)
    names, units = _known_observation(env) or _unknown_observation(env.observation_space)
    return ControlNames(
        observation_names=names,
        observation_units=units,
        action_names=actions[0],
        action_units=actions[1],
        joint_names=actions[2],
        control_dt=_seconds(core),
        frame_skip=getattr(core, "frame_skip", None),
    )


def unnamed_control(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> ControlNames:
    """Return numbers for names, for a task that is not known or not installed."""
    names, units = _unknown_observation(observation_space)
    return ControlNames(names, units, *_unknown_actions(action_space))


def _known_observation(env: gym.Env[Any, Any]) -> tuple[Labels, Labels] | None:
    space = env.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        return None
    if simulation(env) is not None:
        return name_observation(env)
    table = OBSERVATIONS.get(_class_path(env), ())
    if len(table) != space.shape[0] or space != env.unwrapped.observation_space:
        return None
    return [name for name, _ in table], [unit for _, unit in table]


def _known_actions(env: gym.Env[Any, Any]) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Return names, units and joints."""
    space = env.action_space
    if simulation(env) is not None and isinstance(space, spaces.Box):
        found = name_actions(env)
        if found is not None:
            return found
    table = ACTIONS.get(_class_path(env), ())
    if not table or space != env.unwrapped.action_space:
        return *_unknown_actions(space), ()
    is_discrete = isinstance(space, spaces.Discrete)
    return [name for name, _ in table], [] if is_discrete else [unit for _, unit in table], ()


def _unknown_actions(space: spaces.Space[Any]) -> tuple[list[str], list[str]]:
    if isinstance(space, spaces.Discrete):
        return [f"action_{index}" for index in range(int(space.n))], []
    names = [f"action_{index}" for index in range(_size(space))]
    return names, [""] * len(names)


def _unknown_observation(space: spaces.Space[Any]) -> tuple[Labels, Labels]:
    if isinstance(space, spaces.Dict):
        names = {key: _numbered(key, part) for key, part in space.spaces.items()}
        return names, {key: [""] * len(labels) for key, labels in names.items()}
    numbered = _numbered("obs", space)
    return numbered, [""] * len(numbered)


def _numbered(prefix: str, space: spaces.Space[Any]) -> list[str]:
    is_image = len(space.shape or ()) > 2 or _size(space) > _MAX_NAMED
    return [] if is_image else [f"{prefix}_{index}" for index in range(_size(space))]


def _size(space: spaces.Space[Any]) -> int:
    return prod(space.shape or ())


def _class_path(env: gym.Env[Any, Any]) -> str:
    cls = type(env.unwrapped)
    return f"{cls.__module__}.{cls.__qualname__}"


def _seconds(core: gym.Env[Any, Any]) -> float | None:
    for name in ("dt", "tau"):
        value = getattr(core, name, None)
        if isinstance(value, float):
            return float(value)
    return None
