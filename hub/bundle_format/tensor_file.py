"""Named arrays as bytes in the safetensors format, read by a parser that believes nothing.

A file is an 8-byte little-endian length, a JSON header of that length and the arrays' bytes, each
in row-major order: ``{"name": {"dtype": "F32", "shape": [64, 17], "data_offsets": [0, 4352]}, …}``.
Offsets count from the end of the header.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from agents.errors import BundleError
from hub.bundle_format import strict_json as read

__all__ = ["MAX_HEADER_BYTES", "MAX_TENSORS", "Arrays", "read_tensors", "write_tensors"]

Arrays = dict[str, npt.NDArray[Any]]

#: Bytes of the header; a network of a thousand tensors needs a tenth of it.
MAX_HEADER_BYTES = 2**20
MAX_TENSORS = 10_000
_MAX_NAME = 256
_MAX_AXES = 8
_LARGEST = 2**40
_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}


def write_tensors(arrays: Mapping[str, npt.NDArray[Any]], where: str) -> bytes:
    """Return the file's content, the same for the same arrays.

    :param where: the file's name, for messages.
    :raises BundleError: :func:`read_tensors` would refuse it.
    """
    for name, array in arrays.items():
        if array.dtype.newbyteorder("<") not in _DTYPES.values():
            raise BundleError(
                f"{where}: '{name}' is of type {array.dtype}; a bundle holds {', '.join(_DTYPES)}. "
                "Convert it to float32."
            )
    content: bytes = safetensors.numpy.save(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    )
    read_tensors(content, where)
    return content


def read_tensors(content: bytes, where: str) -> Arrays:
    """Return copies of the arrays by name, every number finite.

    :param where: the file's name, for messages.
    :raises BundleError: the bytes are not exactly such a file, or one of the numbers is NaN or
        infinite.
    """
    header, data = _split(content, where)
    entries = read.mapping(read.parse(header, f"{where}'s header"), where, optional=None)
    if len(entries) > MAX_TENSORS:
        raise BundleError(f"{where} has {len(entries)} tensors; at most {MAX_TENSORS} are allowed.")
    arrays: Arrays = {}
    places: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        if name == "__metadata__":
            _check_metadata(entry, where)
            continue
        dtype, shape, (begin, end) = _entry(entry, name, where, len(data))
        places.append((begin, end, name))
        flat = np.frombuffer(data[begin:end], dtype)
        arrays[name] = flat.reshape(shape).astype(dtype.newbyteorder("="), copy=True)
        if dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise BundleError(f"{where}: '{name}' holds NaN or infinity; the agent is useless.")
    _check_cover(places, len(data), where)
    return arrays


def _split(content: bytes, where: str) -> tuple[bytes, memoryview]:
    length = int.from_bytes(content[:8], "little")
    if len(content) < 9 or length > len(content) - 8 or content[8:9] != b"{":
        raise BundleError(f"{where} is truncated or not a safetensors file.")
    if length > MAX_HEADER_BYTES:
        raise BundleError(
            f"{where} has a header of {length} bytes; at most {MAX_HEADER_BYTES} are allowed."
        )
    return content[8 : 8 + length], memoryview(content)[8 + length :]


def _check_metadata(value: object, where: str) -> None:
    for text in read.mapping(value, f"{where}, __metadata__", optional=None).values():
        read.text(text, f"{where}, __metadata__")


def _entry(
    value: object, name: str, where: str, n_bytes: int
) -> tuple[np.dtype[Any], tuple[int, ...], tuple[int, int]]:
    """Return what the header says about one tensor, if that is possible."""
    if not (0 < len(name) <= _MAX_NAME and name.isprintable()):
        raise BundleError(f"{where} has a tensor of the name {read.shown(name)}.")
    place = f"{where}, '{name}'"
    fields = read.mapping(value, place, required=("dtype", "shape", "data_offsets"))
    dtype: np.dtype[Any] = _DTYPES[read.one_of(fields["dtype"], f"{place}: dtype", _DTYPES)]
    shape = tuple(
        read.whole(length, f"{place}: shape", most=_LARGEST)
        for length in read.sequence(fields["shape"], f"{place}: shape", most=_MAX_AXES)
    )
    offsets = [
        read.whole(offset, f"{place}: data_offsets", most=n_bytes)
        for offset in read.sequence(fields["data_offsets"], f"{place}: data_offsets", most=2)
    ]
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise BundleError(
            f"{place}: the shape {list(shape)} of {dtype} does not fill the bytes {offsets}."
        )
    return dtype, shape, (offsets[0], offsets[1])


def _check_cover(places: list[tuple[int, int, str]], n_bytes: int, where: str) -> None:
    """Every byte belongs to exactly one tensor."""
    position = 0
    for begin, end, name in sorted(places):
        if begin != position:
            raise BundleError(
                f"{where}: '{name}' begins at byte {begin} where {position} is expected: tensors "
                "overlap or leave a gap."
            )
        position = end
    if position != n_bytes:
        raise BundleError(f"{where} has {n_bytes - position} bytes that belong to no tensor.")
