"""Reading JSON that a stranger wrote: no surprise gets past, no error but ours comes out.

Python's ``json`` takes NaN, Infinity, a key twice (the last wins), numbers beyond float64 (as
``inf``) and any depth. None of that is JSON that another language reads the same way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any, NoReturn

from agents.errors import BundleError, UnknownName, nearest_match

__all__ = [
    "MAX_DEPTH",
    "boolean",
    "canonical",
    "finite",
    "mapping",
    "one_of",
    "parse",
    "sequence",
    "shown",
    "text",
    "whole",
]

#: How deeply objects and lists may be nested.
MAX_DEPTH = 32
_LARGEST = 2**63 - 1
_MAX_TEXT = 100_000


# --- Whole documents ----------------------------------------------------------------------------


def parse(content: bytes, where: str) -> Any:
    """Return the value of a UTF-8 document: finite numbers, unique keys, at most 32 levels.

    :param where: what it is, such as a file's name: the start of every message.
    :raises BundleError: it is not such a document.
    """
    try:
        text = content.decode("utf-8")
        _check_depth(text, where)
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, where),
            parse_constant=lambda name: _refuse_constant(name, where),
            parse_float=lambda digits: _finite_literal(digits, where),
        )
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON: {' '.join(str(error).split())}.") from error
    _check_texts(value, where)
    return value


def canonical(value: Any) -> bytes:
    """Return ``value`` as the document that bundles hold: indented, keys in the order given.

    :raises ValueError: it holds NaN or an infinity.
    """
    document = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    return (document + "\n").encode()


def _check_depth(text: str, where: str) -> None:
    """Count brackets outside of texts, before a parser has to keep them in mind."""
    depth, in_text, escaped = 0, False, False
    for character in text:
        if in_text:
            in_text = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_text = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BundleError(f"{where} is nested deeper than {MAX_DEPTH} levels.")
        elif character in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise BundleError(f"{where} gives the key {shown(key)} twice.")
        value[key] = item
    return value


def _refuse_constant(name: str, where: str) -> NoReturn:
    raise BundleError(f"{where} holds {name}, which is not JSON.")


def _finite_literal(digits: str, where: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise BundleError(f"{where} holds the number {digits[:40]}, which no float64 can hold.")
    return number


def _check_texts(value: Any, where: str) -> None:
    """Refuse what UTF-8 cannot say: half of a surrogate pair, written as an escape."""
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BundleError(f"{where} holds half of a surrogate pair, which is not a character.")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_texts(key, where)
            _check_texts(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, where)


# --- Single values ------------------------------------------------------------------------------


def shown(value: object) -> str:
    """Return a value of any size as a few printable characters for a message."""
    described = repr(value)
    return described if len(described) <= 60 else described[:57] + "..."


def _wrong(value: object, where: str, expected: str) -> BundleError:
    return BundleError(f"{where} is {shown(value)}; it must be {expected}.")


def mapping(
    value: object,
    where: str,
    *,
    required: Collection[str] = (),
    optional: Collection[str] | None = (),
) -> dict[str, Any]:
    """Return an object that has every required key and no key beyond the optional ones.

    :param optional: None to let any other key in.
    :raises BundleError: it is no object, or its keys are others.
    """
    if not isinstance(value, dict):
        raise _wrong(value, where, "an object")
    missing = [key for key in required if key not in value]
    if missing:
        raise BundleError(f"{where} lacks the key '{missing[0]}'.")
    if optional is not None:
        known = [*required, *optional]
        for key in value:
            if key not in known:
                match = nearest_match(key, known)
                advice = f"did you mean '{match}'?" if match else f"known: {', '.join(known)}."
                raise BundleError(f"{where} has the unknown key {shown(key)}; {advice}")
    return value


def sequence(value: object, where: str, *, most: int) -> list[Any]:
    """Return a list of at most ``most`` items."""
    if not isinstance(value, list):
        raise _wrong(value, where, "a list")
    if len(value) > most:
        raise BundleError(f"{where} has {len(value)} items; at most {most} are allowed.")
    return value


def text(value: object, where: str, *, longest: int = _MAX_TEXT) -> str:
    """Return a text of at most ``longest`` characters."""
    if not isinstance(value, str):
        raise _wrong(value, where, "a text")
    if len(value) > longest:
        raise BundleError(f"{where} has {len(value)} characters; at most {longest} are allowed.")
    return value


def one_of(value: object, where: str, known: Collection[str]) -> str:
    """Return a text that is one of ``known``."""
    if not isinstance(value, str) or value not in known:
        raise BundleError(f"{where}: {UnknownName('name', shown(value).strip(chr(39)), known)}")
    return value


def boolean(value: object, where: str) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise _wrong(value, where, "true or false")
    return value


def whole(value: object, where: str, *, least: int = 0, most: int = _LARGEST) -> int:
    """Return a whole number from ``least`` to ``most``; 3.0 is not one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, where, "a whole number")
    if not least <= value <= most:
        raise _wrong(value, where, f"a whole number from {least} to {most}")
    return value


def finite(value: object, where: str) -> float:
    """Return a finite number as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, where, "a number")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise _wrong(value, where, "a number that float64 can hold")
    if not math.isfinite(value):
        raise _wrong(value, where, "a finite number")
    return float(value)
