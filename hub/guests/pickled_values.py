"""Arrays, spaces, schedules and classes in what ``pickle_reader`` read, by exact names.

Each function returns a value of ours made from plain data, or raises
:class:`~agents.errors.BundleError` where the file says anything else.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from agents.errors import BundleError
from hub.guests.pickle_reader import Built, Symbol

__all__ = [
    "UnreadableFunction",
    "plain",
    "plain_dict",
    "schedule",
    "space",
    "to_array",
    "to_known",
    "to_number",
]

_T = TypeVar("_T")
_MULTIARRAY = ("numpy._core.multiarray", "numpy.core.multiarray")
_RECONSTRUCT = {Symbol(module, "_reconstruct") for module in _MULTIARRAY}
_SCALAR = {Symbol(module, "scalar") for module in _MULTIARRAY}
_FROM_BUFFER = {Symbol(f"numpy.{core}.numeric", "_frombuffer") for core in ("_core", "core")}
_DTYPE = Symbol("numpy", "dtype")
_NDARRAY = Symbol("numpy", "ndarray")
_ENCODE = Symbol("_codecs", "encode")  # how protocol 2 writes bytes
_NO_BYTES = Symbol("__builtin__", "bytes")
_DICTS = {Symbol("collections", "OrderedDict")}
_DTYPES = {*("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")}
_BYTE_ORDERS = {"<": "<", ">": ">", "|": "=", "=": "="}
_MAX_NODES = 100_000
_SPACES = {
    Symbol(f"{package}.spaces.{module}", name): name
    for package in ("gymnasium", "gym")
    for module, name in (
        *(("box", "Box"), ("discrete", "Discrete"), ("multi_discrete", "MultiDiscrete")),
        *(("multi_binary", "MultiBinary"), ("dict", "Dict")),
    )
}
# How cloudpickle writes a function; what it does cannot be read off without running it.
_FUNCTIONS = {
    Symbol(f"cloudpickle.{module}", name)
    for module in ("cloudpickle", "cloudpickle_fast")
    for name in ("_make_function", "_make_skel_func", "_fill_function", "_function_setstate")
}
_SB3_SCHEDULES = "stable_baselines3.common.utils"
_RL_ZOO_LINEAR = Symbol("rl_zoo3.utils", "SimpleLinearSchedule")


class UnreadableFunction(BundleError):
    """A function of the author's: nothing is wrong with it, but only running it would tell."""


def _made_by(value: Any, makers: Collection[Symbol]) -> bool:
    """Return whether ``value`` would be made by a call of one of ``makers``."""
    return isinstance(value, Built) and isinstance(value.maker, Symbol) and value.maker in makers


def to_array(value: Any, where: str) -> npt.NDArray[Any]:
    """Return a NumPy array or scalar of numbers."""
    if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63):
        return np.array(value)
    if _made_by(value, _FROM_BUFFER) and len(value.arguments) == 4:
        content, dtype, shape, order = value.arguments
        return _array(content, dtype, shape, order == "F", where)
    if _made_by(value, _RECONSTRUCT) and value.arguments[:1] == (_NDARRAY,):
        if isinstance(value.state, tuple) and len(value.state) == 5:
            _, shape, dtype, fortran, content = value.state
            return _array(content, dtype, shape, fortran is True or fortran == 1, where)
        _refuse(value, "an array", where)
    if _made_by(value, _SCALAR) and len(value.arguments) == 2:
        return _array(value.arguments[1], value.arguments[0], (), False, where)
    _refuse(value, "an array", where)


def to_number(value: Any, where: str) -> float:
    """Return a number that may be written as an array of one."""
    array = to_array(value, where)
    if array.size != 1:
        raise BundleError(f"{where} holds {array.size} numbers where one belongs.")
    return float(array.reshape(())[()])


def _array(content: Any, dtype: Any, shape: Any, fortran: bool, where: str) -> npt.NDArray[Any]:
    if _made_by(content, (_ENCODE, _NO_BYTES)):
        content = _encoded(content, where)
    kind = _dtype(dtype, where)
    if not (
        isinstance(content, bytes)
        and isinstance(shape, tuple)
        and all(isinstance(n, int) and 0 <= n < 2**40 for n in shape)
        and math.prod(shape) * kind.itemsize == len(content)
    ):
        raise BundleError(f"{where} is damaged: its array has not the size that it says.")
    return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C").copy("K")


def _encoded(value: Built, where: str) -> bytes:
    if value.maker == _NO_BYTES and not value.arguments:
        return b""
    if value.arguments[1:] == ("latin1",) and isinstance(value.arguments[0], str):
        try:
            return value.arguments[0].encode("latin1")
        except UnicodeEncodeError:
            pass
    _refuse(value, "bytes", where)


def _dtype(value: Any, where: str) -> np.dtype[Any]:
    if _made_by(value, (_DTYPE,)) and value.arguments:
        code, state = value.arguments[0], value.state
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
        if isinstance(code, str) and code in _DTYPES and order in _BYTE_ORDERS:
            return np.dtype(_BYTE_ORDERS[order] + code)
    _refuse(value, "a type of numbers", where)


def space(value: Any, where: str) -> spaces.Space[Any]:
    """Return a Gymnasium space; one of the old ``gym`` comes back as Gymnasium's."""
    if not _made_by(value, _SPACES) or not isinstance(value.state, dict):
        _refuse(value, "an observation or action space", where)
    name, state = _SPACES[value.maker], value.state
    try:
        if name == "Box":
            low, high = (to_array(state[key], where) for key in ("low", "high"))
            dtype = _dtype(state["dtype"], where).newbyteorder("=")
            return spaces.Box(low.astype(dtype), high.astype(dtype), low.shape, dtype.type)
        if name == "Discrete":
            start = int(to_number(state.get("start", 0), where))
            return spaces.Discrete(int(to_number(state["n"], where)), start=start)
        if name == "MultiDiscrete":
            return spaces.MultiDiscrete(to_array(state["nvec"], where))
        if name == "MultiBinary":
            size = state["n"]
            return spaces.MultiBinary(size if isinstance(size, int) else list(size))
        return spaces.Dict({k: space(v, where) for k, v in plain_dict(state["spaces"], where)})
    except (KeyError, ValueError, TypeError, AssertionError, RecursionError) as error:
        raise BundleError(f"{where} holds no usable {name} space: {error!r}.") from error


def plain_dict(value: Any, where: str) -> list[tuple[str, Any]]:
    """Return the pairs of a dict or OrderedDict whose keys are texts."""
    if _made_by(value, _DICTS):
        pairs = value.pairs or (value.arguments[0] if value.arguments else [])
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        _refuse(value, "a dictionary", where)
    if not isinstance(pairs, list) or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in pairs
    ):
        raise BundleError(f"{where} has keys that are not texts.")
    return [(pair[0], pair[1]) for pair in pairs]


def schedule(value: Any, where: str) -> float | dict[str, Any]:
    """Return what a schedule does: a number, or ``{"schedule": "linear", "start": …, "end": …}``.

    :raises UnreadableFunction: it is a function of the author's.
    """
    if _made_by(value, (Symbol(_SB3_SCHEDULES, "FloatSchedule"),)):
        value = _state(value).get("value_schedule")  # a wrapper that makes floats of the values
    if isinstance(value, int | float):
        return to_number(value, where)
    if _made_by(value, (Symbol(_SB3_SCHEDULES, "ConstantSchedule"),)):
        return to_number(_state(value).get("val"), where)
    if _made_by(value, (_RL_ZOO_LINEAR,)):
        start = to_number(_state(value).get("initial_value"), where)
        return {"schedule": "linear", "start": start, "end": 0.0, "end_fraction": 1.0}
    if _made_by(value, (Symbol(_SB3_SCHEDULES, "LinearSchedule"),)):
        keys = ("start", "end", "end_fraction")
        numbers = {key: to_number(_state(value).get(key), where) for key in keys}
        return {"schedule": "linear", **numbers}
    if _made_by(value, _FUNCTIONS) or (
        isinstance(value, Built) and _made_by(value.maker, _FUNCTIONS)
    ):
        raise UnreadableFunction(f"{where} holds a function of the author's.")
    _refuse(value, "a schedule", where)


def _state(value: Built) -> dict[str, Any]:
    return value.state if isinstance(value.state, dict) else {}


def to_known(value: Any, known: Mapping[Symbol, _T], where: str) -> _T:
    """Return what a name in the file stands for, by an exact list."""
    if isinstance(value, Symbol) and value in known:
        return known[value]
    _refuse(value, f"one of {', '.join(sorted(map(str, known)))}", where)


def plain(value: Any, classes: Mapping[Symbol, Any], where: str) -> Any:
    """Return numbers, texts, lists and dicts; for a class what ``classes`` has for it.

    :raises BundleError: there is anything else, or more than anybody means to write.
    """
    budget = [_MAX_NODES]

    def convert(part: Any, depth: int) -> Any:
        budget[0] -= 1
        if budget[0] < 0 or depth > 50:
            raise BundleError(f"{where} is nested too deeply or too large.")
        if part is None or isinstance(part, bool | int | float | str):
            return part
        if isinstance(part, Symbol):
            return to_known(part, classes, where)
        if isinstance(part, list | tuple):
            return [convert(item, depth + 1) for item in part]
        if isinstance(part, dict) or _made_by(part, _DICTS):
            return {key: convert(v, depth + 1) for key, v in plain_dict(part, where)}
        if _made_by(part, _SCALAR):
            return to_array(part, where).item()
        _refuse(part, "plain data", where)

    return convert(value, 0)


def _refuse(value: Any, wanted: str, where: str) -> NoReturn:
    """Say what was found without printing what a stranger wrote."""
    found = value.maker if isinstance(value, Built) else value
    name = f"'{str(found)[:120]}'" if isinstance(found, Symbol) else f"a {type(found).__name__}"
    raise BundleError(
        f"{where} should hold {wanted} and holds {name}, which is not read without running code. "
        "If you trust its author, pass trust_pickle=True (--trust-pickle) for this call."
    )
