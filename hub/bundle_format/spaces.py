"""Gymnasium spaces as JSON, exactly, for files that programs without Gymnasium read too.

::

    {"type": "Box", "shape": [3], "dtype": "float32", "low": [-1.0, -1.0, "-inf"], "high": 1.0}
    {"type": "Discrete", "n": 4, "start": 0, "dtype": "int64"}
    {"type": "MultiDiscrete", "shape": [2], "nvec": [3, 2], "start": [0, 0], "dtype": "int64"}
    {"type": "MultiBinary", "n": 5}
    {"type": "Dict", "keys": ["camera", "joints"], "spaces": {"camera": {…}, "joints": {…}}}

Bounds are one number for all elements, or a flat list in row-major order; an infinity is the text
``"inf"`` or ``"-inf"``. ``keys`` is the order in which the parts of a Dict are concatenated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from agents.errors import BundleError
from hub.bundle_format import strict_json as read

__all__ = ["MAX_CHOICES", "MAX_ELEMENTS", "space_from_json", "space_to_json"]

#: Numbers in one observation or action, all parts of a Dict together.
MAX_ELEMENTS = 2**22
#: Values of one discrete element; a network has an input or output for each.
MAX_CHOICES = 2**24
_MAX_AXES = 8
_MAX_KEYS = 256
_LARGEST_EXACT = 2**53
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DTYPES = ("float16", "float32", "float64", *_INTEGERS)

Space = spaces.Space[Any]
_Array = np.ndarray[Any, Any]


# --- Writing ------------------------------------------------------------------------------------


def space_to_json(space: Space) -> dict[str, Any]:
    """Return ``space`` as plain data, from which :func:`space_from_json` makes an equal one.

    :raises BundleError: it is not a Box, Discrete, MultiDiscrete, MultiBinary or a flat Dict of
        these, or it is larger than :data:`MAX_ELEMENTS` or :data:`MAX_CHOICES`.
    """
    value = _written(space)
    space_from_json(value)  # what could not be read again is not written
    return value


def _written(space: Space) -> dict[str, Any]:
    if isinstance(space, spaces.Dict):
        keys = list(space.spaces)
        return {
            "type": "Dict",
            "keys": keys,
            "spaces": {key: _written(space.spaces[key]) for key in keys},
        }
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": _bounds_to_json(space.low),
            "high": _bounds_to_json(space.high),
        }
    if isinstance(space, spaces.Discrete):
        return {
            "type": "Discrete",
            "n": int(space.n),
            "start": int(space.start),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "shape": list(space.nvec.shape),
            "nvec": space.nvec.flatten().tolist(),
            "start": space.start.flatten().tolist(),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        n = space.n
        return {"type": "MultiBinary", "n": int(n) if isinstance(n, int) else [int(i) for i in n]}
    raise BundleError(
        f"A bundle cannot hold the space {read.shown(space)}; it holds Box, Discrete, "
        "MultiDiscrete, MultiBinary and Dict. Convert it with a wrapper, such as "
        "gymnasium.wrappers.FlattenObservation."
    )


def _bounds_to_json(bounds: _Array) -> Any:
    flat = bounds.flatten()
    if flat.size and flat.tobytes() == np.full_like(flat, flat[0]).tobytes():
        return _number_to_json(flat[0].item())
    return [_number_to_json(number) for number in flat.tolist()]


def _number_to_json(number: float) -> float | str:
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return number


# --- Reading ------------------------------------------------------------------------------------


def space_from_json(value: object, where: str = "space") -> Space:
    """Return the space that :func:`space_to_json` wrote.

    :param value: parsed JSON of any origin.
    :param where: what it is, the start of every message.
    :raises BundleError: it is not a space, or one larger than :data:`MAX_ELEMENTS` or
        :data:`MAX_CHOICES`.
    """
    kind = read.one_of(
        read.mapping(value, where, required=("type",), optional=None)["type"],
        f"{where}.type",
        [*_READERS, "Dict"],
    )
    if kind != "Dict":
        return _READERS[kind](value, where)
    fields = read.mapping(value, where, required=("type", "keys", "spaces"))
    keys = [
        read.text(key, f"{where}.keys", longest=128)
        for key in read.sequence(fields["keys"], f"{where}.keys", most=_MAX_KEYS)
    ]
    if not keys or len(set(keys)) != len(keys) or not all(key.isprintable() for key in keys):
        raise BundleError(f"{where}.keys must be one or more different printable names.")
    parts = read.mapping(fields["spaces"], f"{where}.spaces", required=keys)
    _check_total(parts, where)
    inner: dict[str, Space] = {}
    for key in keys:
        kind = read.one_of(
            read.mapping(parts[key], f"{where}.{key}", required=("type",), optional=None)["type"],
            f"{where}.{key}.type",
            _READERS,
        )
        inner[key] = _READERS[kind](parts[key], f"{where}.{key}")
    return spaces.Dict(list(inner.items()))


def _check_total(parts: dict[str, Any], where: str) -> None:
    """Refuse many large parts before the first of them takes memory."""
    total = 0
    for key, part in parts.items():
        if isinstance(part, dict) and "shape" in part:
            total += math.prod(_shape(part["shape"], f"{where}.{key}.shape"))
    if total > MAX_ELEMENTS:
        raise BundleError(f"{where} has {total} elements; at most {MAX_ELEMENTS} are allowed.")


def _read_box(value: object, where: str) -> Space:
    fields = read.mapping(value, where, required=("type", "shape", "dtype", "low", "high"))
    shape = _shape(fields["shape"], f"{where}.shape")
    dtype = np.dtype(read.one_of(fields["dtype"], f"{where}.dtype", _DTYPES))
    low = _bounds(fields["low"], f"{where}.low", shape, dtype)
    high = _bounds(fields["high"], f"{where}.high", shape, dtype)
    if not (low <= high).all():
        raise BundleError(f"{where}.low is above {where}.high in some element.")
    return spaces.Box(low, high, shape, dtype.type)


def _read_discrete(value: object, where: str) -> Space:
    fields = read.mapping(value, where, required=("type", "n", "start", "dtype"))
    dtype = np.dtype(read.one_of(fields["dtype"], f"{where}.dtype", _INTEGERS))
    n = read.whole(fields["n"], f"{where}.n", least=1, most=MAX_CHOICES)
    start = _start(fields["start"], f"{where}.start")
    _check_range(start, n, dtype, where)
    if dtype == np.int64:
        return spaces.Discrete(n, start=start)
    return spaces.Discrete(n, start=start, dtype=dtype.type)  # not in every Gymnasium


def _read_multi_discrete(value: object, where: str) -> Space:
    fields = read.mapping(value, where, required=("type", "shape", "nvec", "start", "dtype"))
    shape = _shape(fields["shape"], f"{where}.shape")
    dtype = np.dtype(read.one_of(fields["dtype"], f"{where}.dtype", _INTEGERS))
    nvec = [
        read.whole(n, f"{where}.nvec", least=1, most=MAX_CHOICES)
        for n in _flat(fields["nvec"], f"{where}.nvec", shape)
    ]
    start = [
        _start(number, f"{where}.start")
        for number in _flat(fields["start"], f"{where}.start", shape)
    ]
    for first, n in zip(start, nvec, strict=True):
        _check_range(first, n, dtype, where)
    if sum(nvec) > MAX_CHOICES:
        raise BundleError(f"{where}.nvec has {sum(nvec)} choices; at most {MAX_CHOICES} in all.")
    return spaces.MultiDiscrete(
        np.array(nvec, dtype).reshape(shape),
        dtype=dtype.type,
        start=np.array(start, dtype).reshape(shape),
    )


def _read_multi_binary(value: object, where: str) -> Space:
    n = read.mapping(value, where, required=("type", "n"))["n"]
    if isinstance(n, list):
        shape = _shape(n, f"{where}.n")
        if not shape or 0 in shape:
            raise BundleError(f"{where}.n is {n}; every axis needs at least one element.")
        return spaces.MultiBinary(shape)
    return spaces.MultiBinary(read.whole(n, f"{where}.n", least=1, most=MAX_ELEMENTS))


_READERS: dict[str, Callable[[object, str], Space]] = {
    "Box": _read_box,
    "Discrete": _read_discrete,
    "MultiBinary": _read_multi_binary,
    "MultiDiscrete": _read_multi_discrete,
}


def _shape(value: object, where: str) -> tuple[int, ...]:
    axes = read.sequence(value, where, most=_MAX_AXES)
    shape = tuple(read.whole(length, where, most=MAX_ELEMENTS) for length in axes)
    if math.prod(shape) > MAX_ELEMENTS:
        raise BundleError(
            f"{where} {list(shape)} has {math.prod(shape)} elements; at most {MAX_ELEMENTS} are "
            "allowed."
        )
    return shape


def _flat(value: object, where: str, shape: tuple[int, ...]) -> list[Any]:
    numbers = read.sequence(value, where, most=MAX_ELEMENTS)
    if len(numbers) != math.prod(shape):
        raise BundleError(f"{where} has {len(numbers)} numbers for the shape {list(shape)}.")
    return numbers


def _start(value: object, where: str) -> int:
    return read.whole(value, where, least=-_LARGEST_EXACT, most=_LARGEST_EXACT)


def _check_range(start: int, n: int, dtype: npt.DTypeLike, where: str) -> None:
    """Refuse values that the type cannot hold; ``n`` itself is kept in that type, too."""
    limits = np.iinfo(np.dtype(dtype))
    if not (limits.min <= start and max(start + n - 1, n) <= limits.max):
        raise BundleError(
            f"{where} has values from {start} to {start + n - 1}, too many for its dtype."
        )


def _bounds(value: object, where: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Array:
    if not isinstance(value, list):
        return np.full(shape, _bound(value, where, dtype), dtype)
    numbers = [_bound(number, where, dtype) for number in _flat(value, where, shape)]
    return np.array(numbers, dtype).reshape(shape)


def _bound(value: object, where: str, dtype: np.dtype[Any]) -> float:
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        return read.whole(value, where, least=int(limits.min), most=int(limits.max))
    if value in ("inf", "-inf"):
        return math.inf if value == "inf" else -math.inf
    number = read.finite(value, where)
    if abs(number) > float(np.finfo(dtype).max):
        raise BundleError(f"{where} is {number}, which {dtype} cannot hold.")
    return number
