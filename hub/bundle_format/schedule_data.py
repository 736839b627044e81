"""Schedules of an agent as plain data: ours by their names, and those that SB3 makes itself."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from agents.errors import BundleError, ConfigError
from hub.bundle_format import strict_json as read
from hub.bundle_format.plain_data import to_plain
from hub.schedules import SCHEDULE_NAMES, Constant, Exponential, Linear, Schedule, build_schedule

__all__ = ["schedule_from_json", "schedule_to_json"]

# SB3's own: linear until a fraction of training is over, constant from then on.
_LINEAR_UNTIL = "linear_until"
_LINEAR_UNTIL_FIELDS = ("start", "end", "end_fraction")


def schedule_to_json(schedule: Any, where: str) -> float | dict[str, Any]:
    """Return a number or ``{"schedule": NAME, …}``.

    :param schedule: a callable from the remaining progress to a value.
    :param where: the argument it belongs to, for messages.
    :raises BundleError: it is a function of its own, which no file can hold without code.
    """
    if isinstance(schedule, FloatSchedule):
        return schedule_to_json(schedule.value_schedule, where)
    if isinstance(schedule, ConstantSchedule):
        return _number(schedule.val, where)
    for name, kind in (("constant", Constant), ("exponential", Exponential), ("linear", Linear)):
        if type(schedule) is kind:
            fields = {key: _number(value, where) for key, value in vars(schedule).items()}
            return {"schedule": name, **fields}
    if type(schedule) is LinearSchedule:
        fields = {key: _number(getattr(schedule, key), where) for key in _LINEAR_UNTIL_FIELDS}
        return {"schedule": _LINEAR_UNTIL, **fields}
    raise BundleError(
        f"{where} is {read.shown(schedule)}, a function that no file can hold without code. Pass a "
        "named schedule, such as hub.schedules.Linear(3e-4, 0.0); in a file of hyperparameters "
        f"write `{where}: {{schedule: linear, start: 3e-4, end: 0.0}}`."
    )


def _number(value: Any, where: str) -> float:
    return read.finite(to_plain(value, where), where)


def schedule_from_json(value: dict[str, Any], where: str) -> float | Schedule:
    """Return the schedule that :func:`schedule_to_json` wrote.

    :raises BundleError: it has no such name or field, or a number is none.
    """
    name = read.one_of(value.get("schedule"), f"{where}.schedule", (*SCHEDULE_NAMES, _LINEAR_UNTIL))
    if name != _LINEAR_UNTIL:
        try:
            return build_schedule(where, value)
        except ConfigError as error:
            reason = str(error).partition(" Write for example")[0]  # which is advice for YAML
            raise BundleError(f"{where}: {reason}") from error
    fields = read.mapping(value, where, required=("schedule", *_LINEAR_UNTIL_FIELDS))
    start, end, end_fraction = (
        read.finite(fields[key], f"{where}.{key}") for key in _LINEAR_UNTIL_FIELDS
    )
    if not 0.0 < end_fraction <= 1.0:
        raise BundleError(f"{where}.end_fraction is {end_fraction}; it must be in (0, 1].")
    schedule: Schedule = LinearSchedule(start, end, end_fraction)
    return schedule
