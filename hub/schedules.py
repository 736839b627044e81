"""Values that change while training, written as data.

A schedule is a mapping, or RL Zoo's short form for "linear to zero"::

    learning_rate: {schedule: linear, start: 3e-4, end: 0.0}
    clip_range: {schedule: constant, value: 0.2}
    target_kl: {schedule: exponential, start: 0.02, end: 0.001}
    learning_rate: lin_3e-4

Each becomes a callable from the progress that remains (1 at the start, 0 at the end) to the
value. SB3 has such classes too, but its ``LinearSchedule`` misses the end value by rounding and
extrapolates outside of 0 … 1; ours meet both ends exactly and stay between them, also when the
last rollout overshoots the number of timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.errors import ConfigError, UnknownName

__all__ = [
    "SCHEDULE_KEYS",
    "SCHEDULE_NAMES",
    "Constant",
    "Exponential",
    "Linear",
    "Schedule",
    "build_schedule",
    "normalize_schedule",
]

Schedule = Callable[[float], float]

#: Constructor keywords that may be a schedule.
SCHEDULE_KEYS = frozenset(
    {
        "clip_range",
        "clip_range_vf",
        "critic_learning_rate",
        "learning_rate",
        "max_step_size",
        "secondary_learning_rate",
        "step_size",
        "target_kl",
    }
)


@dataclass(frozen=True)
class Constant:
    """The same value all along."""

    value: float

    def __call__(self, progress_remaining: float) -> float:
        """Return the value at this progress."""
        return self.value


@dataclass(frozen=True)
class Linear:
    """A straight line from ``start`` to ``end``."""

    start: float
    end: float = 0.0

    def __call__(self, progress_remaining: float) -> float:
        """Return the value at this progress."""
        remaining = _clamp(progress_remaining)
        return remaining * self.start + (1.0 - remaining) * self.end


@dataclass(frozen=True)
class Exponential:
    """A constant ratio per step from ``start`` to ``end``, both greater than 0."""

    start: float
    end: float

    def __post_init__(self) -> None:
        if self.start <= 0.0 or self.end <= 0.0:
            raise ConfigError(
                f"An exponential schedule from {self.start:g} to {self.end:g} is not possible: "
                "both must be greater than 0. Use 'linear' to reach 0."
            )

    def __call__(self, progress_remaining: float) -> float:
        """Return the value at this progress."""
        remaining = _clamp(progress_remaining)
        return float(self.start**remaining * self.end ** (1.0 - remaining))


_CLASSES: dict[str, type[Constant] | type[Linear] | type[Exponential]] = {
    "constant": Constant,
    "exponential": Exponential,
    "linear": Linear,
}
_FIELDS = {"constant": ("value",), "exponential": ("start", "end"), "linear": ("start", "end")}
SCHEDULE_NAMES = tuple(_CLASSES)


def normalize_schedule(key: str, value: object) -> float | dict[str, Any]:
    """Return a number as a float, and any schedule as a complete mapping of plain values.

    :param key: the keyword it is for, named in messages.
    :param value: a number, a mapping with ``schedule``, or ``lin_<number>``.
    :raises UnknownName: the schedule or one of its fields has no such name.
    :raises ConfigError: it is neither a number nor a schedule, or a field is missing.
    """
    if isinstance(value, str):
        return {"schedule": "linear", "start": _short_form(key, value), "end": 0.0}
    if not isinstance(value, Mapping):
        return _number(key, value)
    name = value.get("schedule")
    if not isinstance(name, str) or name not in _CLASSES:
        raise UnknownName("schedule", str(name), _CLASSES, advice=_example(key))
    given = {field: number for field, number in value.items() if field != "schedule"}
    fields = _FIELDS[name]
    for field in given:
        if field not in fields:
            raise UnknownName(f"field of a {name} schedule", str(field), fields, _example(key))
    if name == "linear":
        given.setdefault("end", 0.0)
    missing = [field for field in fields if field not in given]
    if missing:
        raise ConfigError(f"{key}: a {name} schedule needs '{missing[0]}'. {_example(key)}")
    numbers = {field: _number(f"{key}.{field}", given[field]) for field in fields}
    _CLASSES[name](**numbers)  # its own check of the values
    return {"schedule": name, **numbers}


def build_schedule(key: str, value: object) -> float | Schedule:
    """Return what the algorithm's constructor takes: a float, or a picklable callable.

    :param key: the keyword it is for, named in messages.
    :param value: as for :func:`normalize_schedule`.
    """
    plain = normalize_schedule(key, value)
    if isinstance(plain, float):
        return plain
    return _CLASSES[plain.pop("schedule")](**plain)


def _clamp(progress_remaining: float) -> float:
    return min(max(progress_remaining, 0.0), 1.0)


def _short_form(key: str, text: str) -> float:
    prefix, _, number = text.partition("_")
    if prefix == "lin":
        try:
            return _number(key, float(number))
        except ValueError:
            pass
    raise ConfigError(f"{key}: '{text}' is neither a number nor a schedule. {_example(key)}")


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{key}: {value!r} is not a finite number. {_example(key)}")
    return float(value)


def _example(key: str) -> str:
    name = key.split(".")[0]
    return (
        f"Write for example `{name}: 3e-4`, `{name}: lin_3e-4` or "
        f"`{name}: {{schedule: linear, start: 3e-4, end: 0.0}}`."
    )
