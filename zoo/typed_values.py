"""Plain values as the types that a constructor is annotated with."""

from __future__ import annotations

import math
import types
from typing import Any, get_args

from agents.errors import ConfigError, UnknownName
from hub import signatures
from hub.schedules import SCHEDULE_KEYS, normalize_schedule
from zoo.plain_yaml import flow_yaml

__all__ = ["coerce"]

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    types.NoneType: "null",
}
_EXAMPLES: dict[Any, Any] = {bool: True, int: 10, float: 0.5, list: [64, 64]}


def coerce(key: str, value: Any, annotation: Any, default: Any = None) -> Any:
    """Return ``value`` as the annotated type, where that loses nothing: 1e6 as 1000000.

    :param key: its name, for messages.
    :param value: plain YAML data.
    :param annotation: what the constructor or dataclass says; unknown ones let all pass.
    :param default: the usual value, shown as the example.
    :raises ConfigError: the value is of another type.
    """
    kinds = signatures.alternatives(annotation)
    if not kinds or Any in kinds or object in kinds:
        return value
    if value is not None and key in SCHEDULE_KEYS and signatures.takes_schedule(kinds):
        return normalize_schedule(key, value)
    for kind in kinds:
        fits, converted = _convert(key, value, kind)
        if fits:
            return converted
    literals = [
        str(name) for kind in kinds for name in get_args(kind) if signatures.is_literal(kind)
    ]
    if literals and isinstance(value, str):
        raise UnknownName(key, value, literals)
    words = [_WORDS[base] for base in map(signatures.base, kinds) if base in _WORDS]
    if default is None:
        default = next(
            (_EXAMPLES[kind] for kind in map(signatures.base, kinds) if kind in _EXAMPLES), None
        )
    example = "" if default is None else f" Write for example `{key}: {flow_yaml(default)}`."
    expected = " or ".join(words or literals)
    raise ConfigError(f"{key}: {value!r} is not {expected}.{example}")


def _convert(key: str, value: Any, kind: Any) -> tuple[bool, Any]:
    """Return whether ``value`` fits one alternative of an annotation, and the value as that."""
    base = signatures.base(kind)
    if signatures.is_literal(kind):
        return value in get_args(kind), value
    if base is int:
        whole = _is_number(value) and math.isfinite(value) and value == int(value)
        return whole, int(value) if whole else value
    if base is float:
        return _is_number(value), float(value) if _is_number(value) else value
    if base in (list, tuple) and isinstance(value, list):
        inner = (*get_args(kind), Any)[0]
        return True, [coerce(key, item, inner) for item in value]
    if base is dict and isinstance(value, dict):
        inner = (*get_args(kind), Any, Any)[1]
        return True, {name: coerce(f"{key}.{name}", item, inner) for name, item in value.items()}
    if base in (bool, str, types.NoneType):
        return isinstance(value, base), value
    return False, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
