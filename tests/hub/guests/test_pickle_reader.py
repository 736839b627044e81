"""Pickles, read without being run: what honest ones hold, and what hostile ones cannot do."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from agents.errors import BundleError
from hub.guests.pickle_reader import Built, Symbol, read_pickle
from hub.guests.pickled_values import (
    UnreadableFunction,
    plain,
    schedule,
    space,
    to_array,
    to_number,
)

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS))
@settings(max_examples=60, deadline=None)
def test_plain_data_is_what_it_was(value: Any, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol), "it") == value


def test_other_containers() -> None:
    value = {"t": (1, (2.5,)), "s": {1, 2}, "f": frozenset({3}), "b": b"\xff", "a": bytearray(b"x")}
    expected = value | {"a": b"x"}
    assert read_pickle(pickle.dumps(value, 5), "it") == expected
    shared = [1]
    found = read_pickle(pickle.dumps([shared, shared]), "it")
    assert found[0] is found[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        *(np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        *(np.array([], np.float32), np.array(2.5), np.array([True, False])),
        np.arange(3, dtype=">f8"),
        np.float32(1.5),
        np.arange(10)[::2],
    ],
)
def test_arrays_come_back_bit_for_bit(array: Any, protocol: int) -> None:
    found = to_array(read_pickle(pickle.dumps(array, protocol), "it"), "it")
    assert found.dtype == array.dtype
    assert found.tobytes("A") == np.asarray(array).tobytes("A")
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "original",
    [
        spaces.Box(-np.inf, np.inf, (17,), np.float64),
        spaces.Box(np.float32([-1.0, -2.0]), np.float32([1.0, 3.0])),
        spaces.Box(0, 255, (84, 84, 3), np.uint8),
        spaces.Discrete(4, start=-1),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(5),
        spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Discrete(3)}),
    ],
)
def test_spaces_are_equal(original: spaces.Space[Any]) -> None:
    original.seed(1)  # its random generator is in the pickle, too
    found = space(read_pickle(cloudpickle.dumps(original), "it"), "it")
    assert found == original
    assert found.dtype == original.dtype


def test_schedules() -> None:
    def read(value: Any) -> Any:
        return schedule(read_pickle(cloudpickle.dumps(value), "it"), "it")

    assert read(0.5) == 0.5
    assert read(FloatSchedule(0.2)) == 0.2
    assert read(ConstantSchedule(0.1)) == 0.1
    linear = {"schedule": "linear", "start": 1.0, "end": 0.05, "end_fraction": 0.1}
    assert read(LinearSchedule(1.0, 0.05, 0.1)) == linear
    with pytest.raises(UnreadableFunction, match="a function of the author's"):
        read(lambda progress: 0.2 * progress)
    with pytest.raises(UnreadableFunction):
        read(FloatSchedule(lambda progress: 0.2 * progress))
    with pytest.raises(BundleError, match=r"holds 'builtins.abs', which is not read"):
        read(abs)


class Marker:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_runs(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"a": [Marker(tmp_path / "ran")]}, protocol)
    if protocol >= 2:
        found = read_pickle(content, "it")["a"][0]
        assert (found.maker.name, found.arguments) == ("mkdir", (str(tmp_path / "ran"),))
        readers = (to_array, space, schedule, to_number, lambda v, w: plain(v, {}, w))
        for read in readers:
            with pytest.raises(BundleError, match=r"'(posix|nt)\.mkdir'.*trust_pickle=True"):
                read(found, "the file")
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)  # the payload does work
    assert (tmp_path / "ran").is_dir()


def test_nothing_is_imported() -> None:
    """Also a name that exists nowhere is only written down."""
    content = b"\x80\x04\x8c\x06nowhat\x8c\x05Thing\x93)R}\x8c\x01xK\x01sb."
    found = read_pickle(content, "it")
    assert isinstance(found, Built)
    assert (found.maker, found.arguments, found.state) == (Symbol("nowhat", "Thing"), (), {"x": 1})
    code = (
        "import sys; from hub.guests.pickle_reader import read_pickle\n"
        "before = set(sys.modules)\n"
        "read_pickle(b'cantigravity\\nfly\\n(tR.', 'it')\n"
        "print(set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x04", "damaged"),
        (b"\x80\x04K\x01", "damaged"),
        (b"\x80\x04.", "damaged"),
        (b"\x80\x04K\x01\x85", "damaged"),
        (b"\x80\x04]K\x01K\x02s.", "damaged"),
        (b"\x80\x04h\x05.", "damaged"),
        (b"\x80\x04}K\x01b.", "damaged"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "damaged"),
        (b"Pid\n.", "PERSID, which is not read"),
        (b"\x80\x04K\x01Q.", "BINPERSID, which is not read"),
        (b"\x80\x02\x82\x01.", "EXT1, which is not read"),
        (b"ios\nsystem\n(S'x'\no.", "which is not read"),
        (b"not a pickle", "damaged"),
        (b"\x80\x04}(K\x01\x85K\x02u.", "tuple or a set as a key"),
    ],
)
def test_damage_and_odd_instructions_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as error:
        read_pickle(content, "vecnormalize.pkl")
    assert str(error.value).startswith("vecnormalize.pkl ")


def test_memory_bombs_are_refused() -> None:
    with pytest.raises(BundleError, match="at most 67108864 are read"):
        read_pickle(b"\x80\x04" + bytes(65 * 2**20), "it")
    far = b"\x80\x04K\x01r\xff\xff\xff\x7f."  # a memo of 2³¹ places, had it been a list
    assert read_pickle(far, "it") == 1
    doubling: list[Any] = []
    for _ in range(40):  # 2⁴⁰ items when written out
        doubling = [doubling, doubling]
    with pytest.raises(BundleError, match="too deeply or too large"):
        plain(read_pickle(pickle.dumps(doubling), "it"), {}, "it")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BundleError, match="too deeply or too large"):
        plain(read_pickle(pickle.dumps(endless), "it"), {}, "it")
    deep = b"\x80\x04)" + b"\x85" * 200_000 + b"."  # tuples 200,000 levels deep
    assert read_pickle(deep, "it")
    with pytest.raises(BundleError, match="as a key"):
        read_pickle(b"\x80\x04}(" + deep[2:-1] + b"K\x01u.", "it")


def _array_pickle(content: bytes, dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 4)
    pickler.dump(_FromBuffer((content, np.dtype(dtype), shape, "C")))
    return buffer.getvalue()


class _FromBuffer:
    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        from numpy._core.numeric import _frombuffer

        return _frombuffer, self.arguments


@pytest.mark.parametrize(
    ("content", "dtype", "shape"),
    [
        (b"1234", "f8", (1,)),
        (b"1234", "f4", (2**39, 2**39)),
        (b"1234", "f4", (-1,)),
        (b"12345678", "O", (1,)),
        (b"12345678", "M8[s]", (1,)),
    ],
)
def test_arrays_that_are_none_are_refused(
    content: bytes, dtype: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(BundleError):
        to_array(read_pickle(_array_pickle(content, dtype, shape), "it"), "it")


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_value_or_our_error(content: bytes) -> None:
    for prefix in (b"", b"\x80\x04"):
        try:
            found = read_pickle(prefix + content, "it")
            for read in (to_array, space, schedule):
                with pytest.raises(BundleError):
                    read(Built(found, (found,), found), "it")
        except BundleError:
            pass


ORIGINAL = cloudpickle.dumps(spaces.Box(-1, 1, (3,)), 5)


@given(st.lists(st.tuples(st.integers(0, len(ORIGINAL) - 1), st.integers(0, 255)), max_size=4))
@settings(max_examples=300, deadline=None)
def test_damaged_spaces_give_a_space_or_our_error(changes: list[tuple[int, int]]) -> None:
    content = bytearray(ORIGINAL)
    for position, value in changes:
        content[position] = value
    with contextlib.suppress(BundleError):
        assert isinstance(space(read_pickle(bytes(content), "it"), "it"), gym.Space)


def test_ordered_dicts_are_plain() -> None:
    value = collections.OrderedDict(a=1, b=[2, np.float64(3.5)])
    assert plain(read_pickle(pickle.dumps(value), "it"), {}, "it") == {"a": 1, "b": [2, 3.5]}
    classes = {Symbol("torch.nn.modules.activation", "ReLU"): "relu"}
    from torch import nn

    content = cloudpickle.dumps({"activation_fn": nn.ReLU})
    assert plain(read_pickle(content, "it"), classes, "it") == {"activation_fn": "relu"}
    with pytest.raises(
        BundleError, match=r"holds 'torch\.nn\.modules\.activation\.Tanh', which is not"
    ):
        plain(read_pickle(cloudpickle.dumps(nn.Tanh), "it"), classes, "it")
