"""The statistics in SB3's ``vecnormalize.pkl``, read without unpickling it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from agents.errors import BundleError
from hub.guests.pickle_reader import Built, Symbol, read_pickle
from hub.guests.pickled_values import plain_dict, to_array, to_number
from hub.normalizer import Normalizer, Statistics

__all__ = ["read_vec_normalize"]

_WRAPPER = Symbol("stable_baselines3.common.vec_env.vec_normalize", "VecNormalize")
_MOMENTS = Symbol("stable_baselines3.common.running_mean_std", "RunningMeanStd")
_NUMBERS = ("clip_obs", "clip_reward", "gamma", "epsilon")


def read_vec_normalize(content: bytes, where: str) -> Normalizer:
    """Return the statistics and settings of a pickled ``VecNormalize``.

    :param content: of ``vecnormalize.pkl``, or ``vec_normalize.pkl`` as the Hub has it.
    :param where: the file's name, for messages.
    :raises BundleError: it is anything else.
    """
    state = _state(read_pickle(content, where), _WRAPPER, where)
    switches = {key: state.get(key, True) for key in ("norm_obs", "norm_reward")}
    if not all(isinstance(value, bool) for value in switches.values()):
        raise BundleError(f"{where} is damaged: norm_obs and norm_reward are not true or false.")
    arrays = _moments(state.get("ret_rms"), "ret", where)
    if switches["norm_obs"]:
        arrays |= _observation_moments(state, where)
    numbers = {key: to_number(state.get(key), f"{where}: {key}") for key in _NUMBERS}
    return Normalizer(
        arrays, switches["norm_obs"], switches["norm_reward"], *(numbers[key] for key in _NUMBERS)
    )


def _observation_moments(state: dict[str, Any], where: str) -> Statistics:
    moments = state.get("obs_rms")
    if isinstance(moments, Built) and moments.maker == _MOMENTS:
        return _moments(moments, "obs", where)
    arrays: Statistics = {}
    for key, value in plain_dict(moments, f"{where}: obs_rms"):
        arrays |= _moments(value, f"obs.{key}", where)
    return arrays


def _moments(value: Any, name: str, where: str) -> Statistics:
    state = _state(value, _MOMENTS, f"{where}: {name}")
    arrays: Statistics = {}
    for part in ("mean", "var", "count"):
        array: npt.NDArray[np.float64] = to_array(
            state.get(part), f"{where}: {name}.{part}"
        ).astype(np.float64)
        if not np.isfinite(array).all() or (part != "mean" and (array < 0).any()):
            raise BundleError(f"{where} is damaged: {name}.{part} is not what it can be.")
        arrays[f"{name}.{part}"] = array
    if arrays[f"{name}.mean"].shape != arrays[f"{name}.var"].shape:
        raise BundleError(f"{where} is damaged: mean and var of {name} differ in shape.")
    return arrays


def _state(value: Any, maker: Symbol, where: str) -> dict[str, Any]:
    if isinstance(value, Built) and value.maker == maker and isinstance(value.state, dict):
        return value.state
    raise BundleError(
        f"{where} does not hold a {maker.name} of Stable-Baselines3. If you trust its author, pass "
        "trust_pickle=True (--trust-pickle) for this call."
    )
