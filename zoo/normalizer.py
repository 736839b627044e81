"""The running statistics that belong to an agent, as plain arrays.

SB3 keeps them in a ``VecNormalize`` wrapper and pickles that beside the model. Here they are named
float64 arrays, so that every saved agent can carry its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from agents.errors import RunFolderError

__all__ = ["ObservationNormalizer", "Statistics", "load_statistics", "statistics"]

Statistics = dict[str, npt.NDArray[np.float64]]
Observations = np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]


def statistics(normalizer: VecNormalize) -> Statistics:
    """Return copies of the running statistics.

    :return: ``obs.mean``, ``obs.var``, ``obs.count`` (``obs.KEY.mean`` … for Dict observations)
        and ``ret.mean``, ``ret.var``, ``ret.count``.
    """
    arrays: Statistics = {}
    for name, moments in _moments(normalizer).items():
        arrays[f"{name}.mean"] = np.array(moments.mean, dtype=np.float64)
        arrays[f"{name}.var"] = np.array(moments.var, dtype=np.float64)
        arrays[f"{name}.count"] = np.array(moments.count, dtype=np.float64)
    return arrays


def load_statistics(normalizer: VecNormalize, arrays: Statistics) -> None:
    """Put what :func:`statistics` returned back; discounted returns start anew.

    :raises RunFolderError: names or shapes do not fit this environment.
    """
    moments = _moments(normalizer)
    expected = {f"{name}.{part}" for name in moments for part in ("mean", "var", "count")}
    if expected != set(arrays):
        raise RunFolderError(
            f"The saved normaliser holds {sorted(arrays)}, this environment needs "
            f"{sorted(expected)}; it belongs to another environment."
        )
    for name, target in moments.items():
        if np.shape(target.mean) != arrays[f"{name}.mean"].shape:
            raise RunFolderError(
                f"The saved normaliser's {name} has shape {arrays[f'{name}.mean'].shape}, this "
                f"environment's has {np.shape(target.mean)}."
            )
        target.mean = arrays[f"{name}.mean"].copy()
        target.var = arrays[f"{name}.var"].copy()
        target.count = float(arrays[f"{name}.count"])


def _moments(normalizer: VecNormalize) -> dict[str, RunningMeanStd]:
    moments: dict[str, RunningMeanStd] = {}
    if normalizer.norm_obs:
        # SB3 declares one and keeps a dict of them for Dict observations.
        obs_rms: RunningMeanStd | dict[str, RunningMeanStd] = normalizer.obs_rms
        if isinstance(obs_rms, RunningMeanStd):
            moments["obs"] = obs_rms
        else:
            moments.update({f"obs.{key}": rms for key, rms in obs_rms.items()})
    moments["ret"] = normalizer.ret_rms
    return moments


class ObservationNormalizer:
    """Frozen statistics: ``clip((obs − mean) / √(var + epsilon), ±clip_obs)`` in float32.

    The same arithmetic as ``VecNormalize.normalize_obs``, without an environment to wrap.

    :param arrays: from :func:`statistics`.
    :param clip_obs: largest magnitude of a normalised component.
    :param epsilon: keeps the square root away from zero.
    """

    def __init__(self, arrays: Statistics, *, clip_obs: float, epsilon: float) -> None:
        self._arrays = arrays
        self._clip_obs = clip_obs
        self._epsilon = epsilon

    @classmethod
    def frozen(cls, normalizer: VecNormalize) -> ObservationNormalizer:
        """Return the observation part of ``normalizer`` as it stands now."""
        return cls(statistics(normalizer), clip_obs=normalizer.clip_obs, epsilon=normalizer.epsilon)

    def __call__(self, observations: Observations) -> Observations:
        """Return normalised observations; keys that are not normalised pass through."""
        if isinstance(observations, dict):
            return {
                key: self._normalize(value, f"obs.{key}") for key, value in observations.items()
            }
        return self._normalize(observations, "obs")

    def _normalize(self, values: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
        if f"{name}.mean" not in self._arrays:
            return values
        mean, var = self._arrays[f"{name}.mean"], self._arrays[f"{name}.var"]
        scaled = (values - mean) / np.sqrt(var + self._epsilon)
        return np.clip(scaled, -self._clip_obs, self._clip_obs).astype(np.float32)
