"""The values that a bundle may hold for an argument: numbers, names, and lists and objects of them.

Names are words: no path, no URL, no dotted name of a class, nothing that a program could mistake
for code. An infinity is the text ``"inf"`` or ``"-inf"``, as JSON has no number for it.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from agents.errors import BundleError
from hub.bundle_format import strict_json as read

__all__ = ["INFINITIES", "check_env_kwargs", "check_plain", "to_plain"]

INFINITIES = {"inf": math.inf, "-inf": -math.inf}

_MAX_DEPTH = 6
_MAX_ITEMS = 4096
_LARGEST = 2**63 - 1
# A word, and at most one number after a point: auto_0.1
_NAME = re.compile(r"-?[A-Za-z][A-Za-z0-9_-]*(\.[0-9]+)?")
# Keywords of environments name files of their own, such as ant.xml.
_ENV_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_ +-]*(\.[A-Za-z0-9_+-]+)*")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def check_plain(value: object, where: str) -> Any:
    """Return ``value`` if it is plain data of an argument.

    :param value: parsed JSON.
    :raises BundleError: with the place and what is allowed there.
    """
    return _checked(value, where, _NAME, 0)


def check_env_kwargs(value: object, where: str) -> dict[str, Any]:
    """Return the keywords of an environment if they are plain data."""
    checked: dict[str, Any] = _checked(
        read.mapping(value, where, optional=None), where, _ENV_NAME, 0
    )
    return checked


def _checked(value: object, where: str, name: re.Pattern[str], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise BundleError(f"{where} is nested deeper than {_MAX_DEPTH} levels.")
    if isinstance(value, list):
        items = read.sequence(value, where, most=_MAX_ITEMS)
        return [_checked(item, where, name, depth + 1) for item in items]
    if isinstance(value, dict):
        _check_keys(value, where)
        return {
            key: _checked(item, f"{where}.{key}", name, depth + 1) for key, item in value.items()
        }
    if isinstance(value, str):
        if not name.fullmatch(read.text(value, where, longest=128)) or "__" in value:
            raise BundleError(
                f"{where} is the text {read.shown(value)}; a bundle holds names only, no paths and "
                "no code."
            )
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return read.whole(value, where, least=-_LARGEST)
    return read.finite(value, where)


def _check_keys(value: dict[str, Any], where: str) -> None:
    if len(value) > _MAX_ITEMS:
        raise BundleError(f"{where} has {len(value)} keys; at most {_MAX_ITEMS} are allowed.")
    for key in value:
        if not isinstance(key, str) or len(key) > 128 or not _KEY.fullmatch(key) or "__" in key:
            raise BundleError(f"{where} has the key {read.shown(key)}, which is not a name.")


def to_plain(value: Any, where: str) -> Any:
    """Return what :func:`check_plain` lets pass, from what Python programs hold.

    Tuples and vectors become lists, NumPy's numbers Python's, members of an ``Enum`` their names.

    :raises BundleError: ``value`` is something else, or NaN.
    """
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, float) and math.isnan(value):
        raise BundleError(f"{where} is NaN, which a bundle does not hold.")
    if isinstance(value, list | tuple):
        return [to_plain(item, where) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item, f"{where}.{key}") for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise BundleError(
        f"{where} is {read.shown(value)}, a {type(value).__name__}; a bundle holds numbers, names, "
        "lists and mappings of them."
    )
