"""Our reader of safetensors: agrees with theirs on good files, refuses all others in words."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import BundleError
from hub.bundle_format.tensor_file import MAX_HEADER_BYTES, MAX_TENSORS, read_tensors, write_tensors

ARRAYS = {
    "net.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "net.0.bias": np.array([-0.0, 1e-45], np.float32),
    "count": np.array(3.5, np.float64),
    "step": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float16),
    "bytes": np.arange(3, dtype=np.uint8),
}


def file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: Any = (2,), begin: int = 0, end: int = 8, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


ONES = np.ones(2, np.float32).tobytes()


def test_both_readers_give_back_what_was_written() -> None:
    content = write_tensors(ARRAYS, "f")
    for read in (read_tensors(content, "f"), safetensors.numpy.load(content)):
        assert read.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert read[name].dtype == array.dtype
            assert read[name].shape == array.shape
            assert read[name].tobytes() == array.tobytes()


def test_the_same_arrays_give_the_same_bytes() -> None:
    reordered = dict(reversed(ARRAYS.items()))
    assert write_tensors(ARRAYS, "f") == write_tensors(reordered, "f")
    transposed = np.asfortranarray(ARRAYS["net.0.weight"])
    assert write_tensors({"a": transposed}, "f") == write_tensors({"a": transposed.copy()}, "f")


def test_what_is_read_is_a_copy() -> None:
    content = bytearray(write_tensors({"a": np.ones(2)}, "f"))
    array = read_tensors(bytes(content), "f")["a"]
    array[0] = 5.0
    assert array.flags.writeable
    assert read_tensors(bytes(content), "f")["a"][0] == 1.0


def test_a_file_by_hand() -> None:
    header = {"__metadata__": {"format": "pt"}, "a": entry()}
    assert read_tensors(file(header, ONES), "f")["a"].tolist() == [1.0, 1.0]


REFUSED: list[tuple[bytes, str]] = [
    (b"", "truncated"),
    (b"\x80\x04\x95", "truncated"),  # a pickle's first bytes
    (b"PK\x03\x04" + bytes(100), "truncated"),  # a zip's
    (struct.pack("<Q", 2**63), "truncated"),
    (struct.pack("<Q", 5) + b"{}", "truncated"),
    (file(b"   {}"), "not a safetensors file"),
    (struct.pack("<Q", 0), "truncated"),
    (file(b"{" + b" " * MAX_HEADER_BYTES + b"}"), "at most 1048576"),
    (file(b"[]"), "not a safetensors file"),
    (file(b'{"a": 1'), "not JSON"),
    (file(b'{"a": {}, "a": {}}'), "twice"),
    (file({"a": 1}), "must be an object"),
    (file({"a": entry() | {"extra": 1}}, ONES), "unknown key 'extra'"),
    (file({"a": {"dtype": "F32", "shape": [2]}}, ONES), "lacks the key 'data_offsets'"),
    (file({"a": entry(dtype="BF16")}, ONES), "Known: F16"),
    (file({"a": entry(dtype="O")}, ONES), "Known: F16"),
    (file({"a": entry(dtype=["F32"])}, ONES), "Known: F16"),
    (file({"a": entry([-2])}, ONES), "whole number"),
    (file({"a": entry([2.0])}, ONES), "whole number"),
    (file({"a": entry([True, 2])}, ONES), "whole number"),
    (file({"a": entry([2] + [1] * 8)}, ONES), "at most 8"),
    (file({"a": entry([2**40, 2**40])}, ONES), "does not fill"),
    (file({"a": entry([3])}, ONES), "does not fill"),
    (file({"a": entry(begin=8, end=0)}, ONES), "does not fill"),
    (file({"a": entry(end=16)}, ONES), "from 0 to 8"),
    (file({"a": entry() | {"data_offsets": [0]}}, ONES), "does not fill"),
    (file({"a": entry()}, ONES + b"more"), "belong to no tensor"),
    (file({"a": entry(begin=4, end=12)}, bytes(12)), "expected"),
    (file({"a": entry(), "b": entry()}, ONES), "overlap"),
    (file({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)), "overlap"),
    (file({"": entry()}, ONES), "a tensor of the name"),
    (file({"a\n": entry()}, ONES), "a tensor of the name"),
    (file({"a" * 257: entry()}, ONES), "a tensor of the name"),
    (file({"__metadata__": {"a": 1}}), "must be a text"),
    (file({"a": entry()}, np.float32([1, np.nan]).tobytes()), "NaN or infinity"),
    (file({"a": entry()}, np.float32([-np.inf, 1]).tobytes()), "NaN or infinity"),
    (file({str(i): entry([0], 0, 0) for i in range(MAX_TENSORS + 1)}), "at most 10000"),
]


@pytest.mark.parametrize(("content", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BundleError) as caught:
        read_tensors(content, "policy.safetensors")
    assert reason in str(caught.value)
    assert "policy.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "array",
    [np.array([np.nan]), np.array(["a"]), np.array([1j]), np.array([object()])],
    ids=["nan", "text", "complex", "object"],
)
def test_what_could_not_be_read_is_not_written(array: Any) -> None:
    with pytest.raises(BundleError, match="f: 'a'"):
        write_tensors({"a": array}, "f")


@given(st.data())
def test_damaged_files_are_refused_or_read_as_theirs_does(data: st.DataObject) -> None:
    content = bytearray(write_tensors(ARRAYS, "f"))
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where : where + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(BundleError):
        ours, theirs = read_tensors(bytes(content), "f"), safetensors.numpy.load(bytes(content))
        assert {name: array.tobytes() for name, array in ours.items()} == {
            name: array.tobytes() for name, array in theirs.items()
        }
