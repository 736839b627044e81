"""What an ONNX file may not hold, found before ONNX Runtime sees it.

A policy needs one graph of standard operators with its weights inside. ONNX allows more: weights in
other files, named by paths that may lead anywhere; loops; functions and operators of somebody's
own. A file that uses any of this is refused. The check walks protobuf's wire format and so needs
neither ``onnx`` nor ``protobuf``; weights are skipped, not copied.
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.errors import BundleError

__all__ = ["MAX_ONNX_BYTES", "check_onnx"]

MAX_ONNX_BYTES = 2**28
"""A network for images, the largest that policies have, takes 14 MB in float64."""
_MAX_FIELDS = 500_000
_MAX_FIELD_NUMBER = 2**29 - 1  # a larger one may be cut to another one by other readers

# Wire types of protobuf; 3 and 4, groups, are in no ONNX file.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Messages of onnx.proto by the number of their fields: where to look further …
_INSIDE = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor"},
    "tensor": {},
}
# … and what must not be there.
_REFUSED = {
    "model": {20: "training steps", 25: "functions of its own"},
    "graph": {15: "sparse weights"},
    "node": {},
    "attribute": {
        6: "a loop or a branch",
        11: "loops or branches",
        22: "sparse weights",
        23: "sparse weights",
    },
    "tensor": {13: "weights in another file", 14: "weights in another file"},
}
_NODE_DOMAIN = 7
_STANDARD_DOMAINS = (b"", b"ai.onnx")

_Field = tuple[int, int | memoryview]


def check_onnx(content: bytes, where: str) -> None:
    """Refuse a file that holds more than one graph of standard operators and its weights.

    :param content: the file.
    :param where: its name, for messages.
    :raises BundleError: it is too large, truncated, something else, or holds what a policy does not
        need.
    """
    if len(content) > MAX_ONNX_BYTES:
        raise BundleError(
            f"{where} is larger than {MAX_ONNX_BYTES:,} bytes, which no policy is; it is refused."
        )
    reader = _Reader(where)
    graphs = _check("model", memoryview(content), where, reader)
    if not graphs:
        raise BundleError(f"{where} is not an ONNX file: it holds no graph.")


class _Reader:
    """Reads messages; counts their fields over all, which bounds the work that a file can cause."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._n_left = _MAX_FIELDS

    def fields(self, message: memoryview) -> Iterator[_Field]:
        """Yield number and value of each field.

        :raises BundleError: the bytes are no protobuf message, or there are too many fields.
        """
        at, end = 0, len(message)
        while at < end:
            self._n_left -= 1
            if self._n_left < 0:
                raise BundleError(f"{self._where} has over {_MAX_FIELDS:,} parts; it is refused.")
            key, at = self._varint(message, at)
            number, kind = key >> 3, key & 7
            value: int | memoryview
            if kind == _VARINT:
                value, at = self._varint(message, at)
            elif kind in (_FIXED64, _FIXED32):
                value, at = 0, at + (8 if kind == _FIXED64 else 4)
            elif kind == _BYTES:
                length, at = self._varint(message, at)
                value, at = message[at : at + length], at + length
            else:
                raise self._damaged()
            if at > end or not 0 < number <= _MAX_FIELD_NUMBER:
                raise self._damaged()
            yield number, value

    def _varint(self, message: memoryview, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(message):
                break
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self._damaged()

    def _damaged(self) -> BundleError:
        return BundleError(f"{self._where} is not an ONNX file, or it is truncated.")


def _check(kind: str, message: memoryview, where: str, reader: _Reader) -> int:
    """Walk a message; returns how many messages of interest it holds."""
    n_inside = 0
    for number, value in reader.fields(message):
        if number in _REFUSED[kind] and value != 0:
            raise BundleError(
                f"{where} holds {_REFUSED[kind][number]}, which no agent of this project does; it "
                "is refused."
            )
        if not isinstance(value, memoryview):
            continue
        if kind == "node" and number == _NODE_DOMAIN and value not in _STANDARD_DOMAINS:
            domain = bytes(value[:50]).decode("utf-8", "replace")
            raise BundleError(
                f"{where} needs operators of '{domain}', only standard ONNX operators are allowed; "
                "it is refused."
            )
        if number in _INSIDE[kind]:
            n_inside += 1
            _check(_INSIDE[kind][number], value, where, reader)
    return n_inside
