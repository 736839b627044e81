"""The running statistics that belong to an agent, as plain arrays.

SB3 keeps them in a ``VecNormalize`` wrapper and pickles that beside the model. Here they are named
float64 arrays, so that every saved agent can carry its own. :mod:`hub.vec_normalize` takes them out
of a wrapper and puts them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Normalizer", "Statistics"]

Statistics = dict[str, npt.NDArray[np.float64]]
Observations = np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Frozen statistics: ``clip((obs − mean) / √(var + epsilon), ±clip_obs)`` in float32.

    The same arithmetic as ``VecNormalize.normalize_obs``, without an environment to wrap.
    """

    arrays: Statistics
    """``obs.mean``, ``obs.var``, ``obs.count`` (``obs.KEY.mean`` … for Dict observations, only of
    keys that are normalised) and ``ret.mean``, ``ret.var``, ``ret.count``."""
    norm_obs: bool = True
    """Whether observations are scaled; if not, the arrays hold none of theirs."""
    norm_reward: bool = True
    """Whether rewards were scaled in training; an evaluation never scales them."""
    clip_obs: float = 10.0
    """Largest magnitude of a normalised component."""
    clip_reward: float = 10.0
    """Largest magnitude of a normalised reward."""
    gamma: float = 0.99
    """Discount of the returns whose variance scales the rewards."""
    epsilon: float = 1e-8
    """Added to the variance, which keeps the square root away from zero."""

    def __call__(self, observations: Observations) -> Observations:
        """Return normalised observations; keys that are not normalised pass through."""
        if isinstance(observations, dict):
            return {
                key: self._normalize(value, f"obs.{key}") for key, value in observations.items()
            }
        return self._normalize(observations, "obs")

    def _normalize(self, values: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
        if f"{name}.mean" not in self.arrays:
            return values
        mean, var = self.arrays[f"{name}.mean"], self.arrays[f"{name}.var"]
        scaled = (values - mean) / np.sqrt(var + self.epsilon)
        return np.clip(scaled, -self.clip_obs, self.clip_obs).astype(np.float32)
