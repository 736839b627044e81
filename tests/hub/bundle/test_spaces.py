"""Spaces survive JSON exactly, and JSON that is no space is refused in words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import BundleError
from hub.bundle_format.spaces import MAX_CHOICES, MAX_ELEMENTS, space_from_json, space_to_json

PAPER = [
    (
        spaces.Box(-1.0, 1.0, (3,)),
        {"type": "Box", "shape": [3], "dtype": "float32", "low": -1.0, "high": 1.0},
    ),
    (
        spaces.Box(np.array([-np.inf, 0.5]), np.array([2.0, np.inf]), dtype=np.float64),
        {
            "type": "Box",
            "shape": [2],
            "dtype": "float64",
            "low": ["-inf", 0.5],
            "high": [2.0, "inf"],
        },
    ),
    (
        spaces.Box(0, 255, (3, 36, 36), np.uint8),
        {"type": "Box", "shape": [3, 36, 36], "dtype": "uint8", "low": 0, "high": 255},
    ),
    (spaces.Discrete(4), {"type": "Discrete", "n": 4, "start": 0, "dtype": "int64"}),
    (spaces.Discrete(3, start=-2), {"type": "Discrete", "n": 3, "start": -2, "dtype": "int64"}),
    (
        spaces.MultiDiscrete([3, 2], start=[1, -1]),
        {
            "type": "MultiDiscrete",
            "shape": [2],
            "nvec": [3, 2],
            "start": [1, -1],
            "dtype": "int64",
        },
    ),
    (spaces.MultiBinary(5), {"type": "MultiBinary", "n": 5}),
    (spaces.MultiBinary([2, 3]), {"type": "MultiBinary", "n": [2, 3]}),
]


def through_json(space: spaces.Space[Any]) -> spaces.Space[Any]:
    return space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False)))


@pytest.mark.parametrize(("space", "value"), PAPER, ids=str)
def test_written_as_the_docstring_says_and_read_back(
    space: spaces.Space[Any], value: dict[str, Any]
) -> None:
    assert space_to_json(space) == value
    assert through_json(space) == space


def test_other_dtypes_survive() -> None:
    for space in (
        spaces.Box(-(2**63), 2**63 - 2, (1,), np.int64),
        spaces.Box(-1, 1, (), np.float16),
        spaces.Box(-1, 1, (2, 0), np.float32),
        spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), dtype=np.int32),
    ):
        read = through_json(space)
        assert read == space
        assert read.dtype == space.dtype


def test_bounds_survive_to_the_last_bit() -> None:
    low = np.array([-0.1, -0.0, -3.4028235e38, 1e-45], np.float32)
    space = spaces.Box(low, np.full(4, np.inf, np.float32), dtype=np.float32)
    read = through_json(space)
    assert isinstance(read, spaces.Box)
    assert read.low.tobytes() == low.tobytes()
    assert read.high.tobytes() == space.high.tobytes()


def test_dict_keeps_the_order_of_its_keys() -> None:
    space = spaces.Dict([("joints", spaces.Box(-1, 1, (2,))), ("camera", spaces.Discrete(3))])
    value = space_to_json(space)
    assert value["keys"] == ["joints", "camera"]
    shuffled = json.loads(json.dumps(value, sort_keys=True))
    read = space_from_json(shuffled)
    assert isinstance(read, spaces.Dict)
    assert list(read.spaces) == ["joints", "camera"]
    assert read == space


@given(
    st.lists(
        st.tuples(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False)),
        min_size=1,
        max_size=5,
    )
)
def test_any_bounds_survive(pairs: list[tuple[float, float]]) -> None:
    low = np.array([min(pair) for pair in pairs], np.float32)
    high = np.array([max(pair) for pair in pairs], np.float32)
    read = through_json(spaces.Box(low.copy(), high.copy(), dtype=np.float32))
    assert isinstance(read, spaces.Box)
    assert read.low.tobytes() == low.tobytes()
    assert read.high.tobytes() == high.tobytes()


BOX = {"type": "Box", "shape": [2], "dtype": "float32", "low": -1, "high": 1}
DISCRETE = {"type": "Discrete", "n": 4, "start": 0, "dtype": "int64"}
MULTI = {"type": "MultiDiscrete", "shape": [2], "nvec": [3, 2], "start": [0, 0], "dtype": "int64"}
DICT = {"type": "Dict", "keys": ["a"], "spaces": {"a": DISCRETE}}
REFUSED: list[tuple[Any, str]] = [
    (None, "must be an object"),
    ([], "must be an object"),
    ({}, "lacks the key 'type'"),
    ({"type": "box"}, "Did you mean 'Box'"),
    ({"type": ["Box"]}, "Unknown name"),
    ({"type": "Tuple", "spaces": []}, "Known: Box"),
    (BOX | {"seed": 1}, "unknown key 'seed'"),
    (BOX | {"low": "-1"}, "must be a number"),
    (BOX | {"low": "nan"}, "must be a number"),
    (BOX | {"low": float("nan")}, "a finite number"),
    (BOX | {"low": True}, "must be a number"),
    (BOX | {"low": 10**400}, "float64"),
    (BOX | {"low": -1e39}, "which float32 cannot hold"),
    (BOX | {"low": [-1]}, "1 numbers for the shape [2]"),
    (BOX | {"low": [[-1], [-1]]}, "must be a number"),
    (BOX | {"low": 2}, "low is above"),
    (BOX | {"dtype": "object"}, "Known: float16"),
    (BOX | {"dtype": "int8", "low": 0.5}, "a whole number"),
    (BOX | {"dtype": "int8", "low": -129}, "from -128 to 127"),
    (BOX | {"dtype": "uint8", "low": "-inf"}, "a whole number"),
    (BOX | {"shape": 2}, "must be a list"),
    (BOX | {"shape": [2.0]}, "a whole number"),
    (BOX | {"shape": [-2]}, "a whole number from 0"),
    (BOX | {"shape": [1] * 9}, "at most 8"),
    (BOX | {"shape": [10**12]}, "whole number from 0 to 4194304"),
    (BOX | {"shape": [2**22, 2]}, "at most 4194304 are allowed"),
    (DISCRETE | {"n": 0}, "from 1"),
    (DISCRETE | {"n": 10**12}, "from 1 to 16777216"),
    (DISCRETE | {"n": 200, "dtype": "int8"}, "too many for its dtype"),
    (DISCRETE | {"n": 100, "start": 100, "dtype": "int8"}, "too many for its dtype"),
    (DISCRETE | {"start": 10**18}, "a whole number from"),
    (DISCRETE | {"dtype": "float32"}, "Known: int16"),
    (MULTI | {"nvec": [3]}, "1 numbers for the shape [2]"),
    (MULTI | {"nvec": [MAX_CHOICES, MAX_CHOICES]}, "in all"),
    (MULTI | {"start": [0, 0.5]}, "a whole number"),
    ({"type": "MultiBinary", "n": 0}, "from 1"),
    ({"type": "MultiBinary", "n": []}, "every axis"),
    ({"type": "MultiBinary", "n": [2, 0]}, "every axis"),
    ({"type": "MultiBinary", "n": 10**9}, "from 1 to 4194304"),
    (DICT | {"keys": []}, "different printable names"),
    (DICT | {"keys": ["a", "a"]}, "different printable names"),
    (DICT | {"keys": ["a\n"], "spaces": {"a\n": DISCRETE}}, "different printable names"),
    (DICT | {"keys": ["b"]}, "lacks the key 'b'"),
    (DICT | {"keys": [["a"]]}, "must be a text"),
    (DICT | {"spaces": {"a": DISCRETE, "b": DISCRETE}}, "unknown key 'b'"),
    (DICT | {"spaces": {"a": DICT}}, "Known: Box, Discrete"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_refused_in_words(value: Any, reason: str) -> None:
    with pytest.raises(BundleError) as caught:
        space_from_json(value, "observation_space")
    assert reason in str(caught.value)
    assert "observation_space" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_many_large_parts_are_refused_together() -> None:
    part = BOX | {"shape": [MAX_ELEMENTS // 2]}
    parts = {name: part for name in "abc"}
    with pytest.raises(BundleError, match="at most 4194304"):
        space_from_json({"type": "Dict", "keys": list(parts), "spaces": parts})


@pytest.mark.parametrize(
    "space",
    [
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Text(3),
        spaces.Dict(inner=spaces.Dict(a=spaces.Discrete(2))),
        spaces.Discrete(MAX_CHOICES + 1),
    ],
    ids=str,
)
def test_what_could_not_be_read_is_not_written(space: spaces.Space[Any]) -> None:
    with pytest.raises(BundleError):
        space_to_json(space)
