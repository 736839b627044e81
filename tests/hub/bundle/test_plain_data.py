"""Arguments are numbers and names; paths, code and everything else stay out."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import BundleError
from hub.bundle_format.plain_data import check_env_kwargs, check_plain, to_plain

ALLOWED: list[Any] = [
    *(None, True, False, 0, -3, 2**63 - 1, 0.5, -1e-300, "relu", "auto_0.1", "auto_1e-3"),
    *("inf", "-inf", "multi-word", [], {}, [1, [2, "step"]], {"pi": [64, 64], "vf": []}),
]
REFUSED: list[Any] = [
    "",
    " ",
    "a b",
    "a.b",
    "os.system",
    "/etc/passwd",
    "../up",
    "..",
    "C:\\x",
    "C:x",
    "a/b",
    "a\\b",
    "~root",
    "file:///x",
    "lambda x: x",
    "print(1)",
    "__import__",
    "a__b",
    "!!python/name",
    "$HOME",
    "%PATH%",
    "relu\n",
    "relu\0",
    "ｒｅｌｕ",
    "é",
    "1e-3",
    "a" * 129,
    2**63,
    float("inf"),
    float("nan"),
    {"a b": 1},
    {"__class__": 1},
    {"": 1},
    {"a.b": 1},
    {"a": {"b": "c d"}},
    [[[[[[[[1]]]]]]]],
    [0] * 4097,
]


@pytest.mark.parametrize("value", ALLOWED, ids=repr)
def test_allowed(value: Any) -> None:
    assert check_plain(value, "x") == value
    assert check_env_kwargs({"key": value}, "x") == {"key": value}


@pytest.mark.parametrize("value", REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_refused(value: Any) -> None:
    with pytest.raises(BundleError, match=r"^arguments\.x"):
        check_plain(value, "arguments.x")


def test_environments_may_name_files_of_their_own() -> None:
    kwargs = {"xml_file": "ant.xml", "map_name": "8x8", "title": "Two words"}
    assert check_env_kwargs(kwargs, "env_kwargs") == kwargs
    for text in ("../ant.xml", "/ant.xml", "a/ant.xml", "a..xml", ".hidden", "a:b", "x.xml/"):
        with pytest.raises(BundleError, match="no paths"):
            check_env_kwargs({"xml_file": text}, "env_kwargs")
    with pytest.raises(BundleError, match="must be an object"):
        check_env_kwargs(["xml_file"], "env_kwargs")


class Goal(enum.Enum):
    FUTURE = 0


def test_what_programs_hold_becomes_plain() -> None:
    given_values = {
        "pair": (0.9, 0.999),
        "count": np.int32(3),
        "rate": np.float32(0.1),
        "flag": np.bool_(True),
        "vector": np.array([1.0, 2.0]),
        "unbounded": float("inf"),
        "goal": Goal.FUTURE,
        "nested": {"net_arch": [64, (32,)]},
    }
    plain = to_plain(given_values, "x")
    assert plain == {
        "pair": [0.9, 0.999],
        "count": 3,
        "rate": float(np.float32(0.1)),
        "flag": True,
        "vector": [1.0, 2.0],
        "unbounded": "inf",
        "goal": "future",
        "nested": {"net_arch": [64, [32]]},
    }
    assert type(plain["flag"]) is bool
    assert check_plain(plain, "x") == plain


@pytest.mark.parametrize("value", [object(), len, {1, 2}, b"bytes", 1j, float("nan"), int])
def test_other_things_do_not(value: Any) -> None:
    with pytest.raises(BundleError, match=r"^policy_kwargs\.x"):
        to_plain({"x": value}, "policy_kwargs")


@given(st.text(max_size=20))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        check_env_kwargs({"a": text}, "x")
    except BundleError:
        return
    assert not set(text) & set("/\\:~$%!()[]{}'\"`;|&<>*?\n\0")
    assert ".." not in text
    assert not text.startswith(".")
