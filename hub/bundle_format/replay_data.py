"""Which replay buffer an off-policy agent uses, as plain data. What is in it is not saved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stable_baselines3.common import buffers
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.her import HerReplayBuffer

from agents.errors import BundleError
from hub.bundle_format import strict_json as read
from hub.bundle_format.plain_data import to_plain

__all__ = ["REPLAY_ARGUMENTS", "replay_from_json", "replay_to_json"]

#: The constructor arguments that this module reads and writes.
REPLAY_ARGUMENTS = ("replay_buffer_class", "replay_buffer_kwargs")

_NAMED: dict[str, type[buffers.ReplayBuffer]] = {"her": HerReplayBuffer}
_GOAL_STRATEGIES = ("future", "final", "episode")
_SETTINGS = {
    "handle_timeout_termination": read.boolean,
    "n_sampled_goal": lambda value, where: read.whole(value, where, least=1, most=1000),
    "goal_selection_strategy": lambda value, where: read.one_of(value, where, _GOAL_STRATEGIES),
    "copy_info_dict": read.boolean,
}


def replay_to_json(model: BaseAlgorithm) -> dict[str, Any]:
    """Return the arguments that differ from what SB3 chooses itself; empty for most agents.

    :raises BundleError: the buffer is of a class of one's own, or has settings that are unknown.
    """
    chosen = getattr(model, "replay_buffer_class", None)
    kwargs = dict(getattr(model, "replay_buffer_kwargs", None) or {})
    arguments: dict[str, Any] = {}
    if chosen in _NAMED.values():
        arguments["replay_buffer_class"] = next(n for n, cls in _NAMED.items() if cls is chosen)
    elif getattr(model, "n_steps", 1) > 1:  # SB3's own choice, which it has given its settings
        kwargs = {key: kwargs[key] for key in kwargs if key not in ("n_steps", "gamma")}
    elif chosen not in (None, buffers.ReplayBuffer, buffers.DictReplayBuffer):
        raise BundleError(
            f"The agent's replay buffer is a {read.shown(chosen)}; a bundle holds agents with "
            "SB3's ReplayBuffer, DictReplayBuffer and HerReplayBuffer."
        )
    if kwargs:
        arguments["replay_buffer_kwargs"] = {
            key: to_plain(value, f"replay_buffer_kwargs.{key}") for key, value in kwargs.items()
        }
    replay_from_json(arguments, REPLAY_ARGUMENTS)
    return arguments


def replay_from_json(given: Mapping[str, Any], allowed: Collection[str]) -> dict[str, Any]:
    """Return the constructor arguments among ``given`` that concern the replay buffer.

    :param allowed: the arguments that the algorithm has.
    :raises BundleError: a class or setting has no such name, or a value is of another type.
    """
    arguments: dict[str, Any] = {}
    for name in REPLAY_ARGUMENTS:
        if name in given and name not in allowed:
            raise BundleError(f"arguments has '{name}', which the algorithm does not take.")
    chosen = given.get("replay_buffer_class")
    if chosen is not None:
        where = "arguments.replay_buffer_class"
        arguments["replay_buffer_class"] = _NAMED[read.one_of(chosen, where, _NAMED)]
    settings = given.get("replay_buffer_kwargs")
    if settings is not None:
        where = "arguments.replay_buffer_kwargs"
        read.mapping(settings, where, optional=_SETTINGS)
        arguments["replay_buffer_kwargs"] = {
            key: _SETTINGS[key](value, f"{where}.{key}") for key, value in settings.items()
        }
    return arguments
