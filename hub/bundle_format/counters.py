"""The numbers that training goes on with: steps, updates, and what an algorithm declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.errors import BundleError, UnknownName
from hub.bundle_format import strict_json as read
from hub.bundle_format.plain_data import check_plain, to_plain

__all__ = ["counters_to_json", "load_counters"]

# SB3's attributes by the names that a bundle gives them. Not every algorithm has all.
_OF_SB3 = {
    "num_timesteps": "num_timesteps",
    "total_timesteps": "_total_timesteps",
    "num_timesteps_at_start": "_num_timesteps_at_start",
    "progress_remaining": "_current_progress_remaining",
    "n_updates": "_n_updates",
    "n_episodes": "_episode_num",
    "n_calls": "_n_calls",
    "exploration_rate": "exploration_rate",
}


def _attributes(model: BaseAlgorithm) -> dict[str, str]:
    own: tuple[str, ...] = getattr(model, "resumable_attributes", ())
    known = _OF_SB3 | {name: name for name in own}
    return {name: attribute for name, attribute in known.items() if hasattr(model, attribute)}


def counters_to_json(model: BaseAlgorithm) -> dict[str, Any]:
    """Return the counters of SB3 and those of the class's ``resumable_attributes``.

    :raises BundleError: one of the latter is no plain data.
    """
    return {
        name: check_plain(to_plain(getattr(model, attribute), name), f"counters.{name}")
        for name, attribute in _attributes(model).items()
    }


def load_counters(model: BaseAlgorithm, counters: Mapping[str, Any]) -> None:
    """Write what :func:`counters_to_json` returned.

    :raises BundleError: the algorithm has no such counter, or the value is of another type.
    """
    attributes = _attributes(model)
    for name, value in counters.items():
        where = f"counters.{name}"
        if name not in attributes:
            raise BundleError(f"counters: {UnknownName('counter', name, attributes)}")
        current = getattr(model, attributes[name])
        if isinstance(current, bool):
            read.boolean(value, where)
        elif isinstance(current, int):
            read.whole(value, where)
        elif isinstance(current, float):
            value = read.finite(value, where)
        setattr(model, attributes[name], value)
