"""JSON of strangers: one meaning, bounded depth, no error but ours."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import BundleError
from hub.bundle_format import strict_json
from hub.bundle_format.strict_json import MAX_DEPTH, parse


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1} {"a": 1}', "not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
        (b'{"a": 1, "a": 1}', "gives the key 'a' twice"),
        (b'[{"b": {"a": 1, "a": 2}}]', "gives the key 'a' twice"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": 1e999}', "no float64 can hold"),
        (b"[" * 100_000, "nested deeper than 32"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper than 32"),
        (b"9" * 10_000, "not JSON"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
    ],
)
def test_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(content, "agent.json")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("agent.json")
    assert "\n" not in str(caught.value)


def test_brackets_in_texts_are_no_depth() -> None:
    content = json.dumps({"a": "[" * 100 + '"\\' + "{" * 100}).encode()
    assert parse(content, "f")["a"].count("[") == 100


def test_deepest_allowed() -> None:
    content = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    value = parse(content, "f")
    for _ in range(MAX_DEPTH - 1):
        (value,) = value
    assert value == []


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(_VALUES)
def test_canonical_documents_are_read_back(value: Any) -> None:
    again = parse(strict_json.canonical(value), "f")
    assert again == value
    assert repr(again) == repr(value)  # 1 is not 1.0, -0.0 is not 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_only_json_is_written(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.canonical(value)


@given(st.binary(max_size=200) | _VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_parse_or_are_refused(content: bytes) -> None:
    with contextlib.suppress(BundleError):
        parse(content, "f")


def test_single_values() -> None:
    assert strict_json.whole(3, "x") == 3
    assert strict_json.finite(3, "x") == 3.0
    assert strict_json.text("a", "x") == "a"
    assert strict_json.boolean(False, "x") is False
    assert strict_json.sequence([1], "x", most=1) == [1]
    assert strict_json.mapping({"a": 1}, "x", required=["a"]) == {"a": 1}
    assert strict_json.mapping({"b": 1}, "x", optional=None) == {"b": 1}
    assert strict_json.one_of("a", "x", ["a", "b"]) == "a"
    for call in (
        lambda: strict_json.whole(3.0, "x"),
        lambda: strict_json.whole(True, "x"),
        lambda: strict_json.whole(-1, "x"),
        lambda: strict_json.finite(True, "x"),
        lambda: strict_json.finite("3", "x"),
        lambda: strict_json.finite(math.nan, "x"),
        lambda: strict_json.finite(2**64, "x"),
        lambda: strict_json.text(b"a", "x"),
        lambda: strict_json.text("abc", "x", longest=2),
        lambda: strict_json.boolean(0, "x"),
        lambda: strict_json.sequence((1,), "x", most=1),
        lambda: strict_json.sequence([1, 2], "x", most=1),
        lambda: strict_json.mapping({}, "x", required=["a"]),
        lambda: strict_json.mapping({"b": 1}, "x"),
        lambda: strict_json.one_of("c", "x", ["a", "b"]),
        lambda: strict_json.one_of(["a"], "x", ["a", "b"]),
    ):
        with pytest.raises(BundleError, match=r"^x[ :]"):
            call()
