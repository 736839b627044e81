"""Action noise of deterministic policies as plain data, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
)

from agents.errors import BundleError
from hub.bundle_format import strict_json as read

__all__ = ["noise_from_json", "noise_to_json"]

_MAX_ACTIONS = 4096


def noise_to_json(noise: ActionNoise, where: str) -> dict[str, Any]:
    """Return ``{"noise": "normal", …}`` or ``{"noise": "ornstein_uhlenbeck", …}``.

    :raises BundleError: the noise is of another class.
    """
    if isinstance(noise, VectorizedActionNoise):  # what SB3 makes of it for many environments
        return noise_to_json(noise.base_noise, where)
    if type(noise) is NormalActionNoise and noise._dtype is np.float32:
        return {"noise": "normal", "mean": _listed(noise._mu), "sigma": _listed(noise._sigma)}
    if type(noise) is OrnsteinUhlenbeckActionNoise and noise._dtype is np.float32:
        initial = noise.initial_noise
        return {
            "noise": "ornstein_uhlenbeck",
            "mean": _listed(noise._mu),
            "sigma": _listed(noise._sigma),
            "theta": float(noise._theta),
            "dt": float(noise._dt),
            "initial_noise": None if initial is None else _listed(initial),
        }
    raise BundleError(
        f"{where} is {read.shown(noise)}, which has no name here; a bundle can hold SB3's "
        "NormalActionNoise and OrnsteinUhlenbeckActionNoise of float32."
    )


def noise_from_json(value: dict[str, Any], where: str) -> ActionNoise:
    """Return the noise that :func:`noise_to_json` wrote.

    :raises BundleError: it has no such name or field, or a number is none.
    """
    kind = read.one_of(value.get("noise"), f"{where}.noise", ("normal", "ornstein_uhlenbeck"))
    vectors = ("noise", "mean", "sigma")
    if kind == "normal":
        read.mapping(value, where, required=vectors)
        return NormalActionNoise(
            _vector(value["mean"], f"{where}.mean"), _vector(value["sigma"], f"{where}.sigma")
        )
    read.mapping(value, where, required=(*vectors, "theta", "dt", "initial_noise"))
    initial = value["initial_noise"]
    return OrnsteinUhlenbeckActionNoise(
        _vector(value["mean"], f"{where}.mean"),
        _vector(value["sigma"], f"{where}.sigma"),
        theta=read.finite(value["theta"], f"{where}.theta"),
        dt=read.finite(value["dt"], f"{where}.dt"),
        initial_noise=None if initial is None else _vector(initial, f"{where}.initial_noise"),
    )


def _listed(vector: Any) -> list[float]:
    numbers: list[float] = np.asarray(vector, np.float64).reshape(-1).tolist()
    return numbers


def _vector(value: object, where: str) -> npt.NDArray[np.float64]:
    numbers = read.sequence(value, where, most=_MAX_ACTIONS)
    return np.array([read.finite(number, where) for number in numbers], np.float64)
