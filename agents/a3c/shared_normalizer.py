"""Running statistics of observations and rewards that all workers share.

The learner keeps them, in the ``VecNormalize`` around its own environments, so that evaluation and
checkpoints find them where SB3 has them. A worker scales a whole segment with what it pulled at
the segment's start, and reports the moments of what it saw.
"""

from __future__ import annotations

from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from agents.errors import ConfigError
from agents.rollout_normalize import RolloutNormalize

__all__ = ["Moments", "SharedStatistics", "WorkerNormalize", "merge_moments"]


class Moments(NamedTuple):
    """Mean, variance and number of a segment's samples, for each statistic that is kept."""

    obs: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int] | None
    returns: tuple[float, float, int]
    """Of the discounted sums of rewards, whose variance scales the rewards."""


def merge_moments(normalizer: VecNormalize, moments: Moments) -> None:
    """Add a segment's samples to the learner's statistics."""
    if moments.obs is not None:
        _observations(normalizer).update_from_moments(*moments.obs)
    mean, variance, count = moments.returns
    normalizer.ret_rms.update_from_moments(np.array(mean), np.array(variance), count)


def _observations(normalizer: VecNormalize) -> RunningMeanStd:
    # SB3 declares one and keeps a dict of them for Dict observations.
    moments: RunningMeanStd | dict[str, RunningMeanStd] = normalizer.obs_rms
    if not isinstance(moments, RunningMeanStd):
        raise TypeError("Box observations have one mean and variance")
    return moments


class SharedStatistics:
    """The learner's statistics in shared memory: it writes, workers read.

    A version number, odd while the learner writes, lets a reader see that it has to read again;
    nobody waits for a lock.

    :param context: of the processes to come.
    :param normalizer: the learner's.
    :raises ConfigError: dictionaries of observations are to be normalised.
    """

    def __init__(self, context: BaseContext, normalizer: VecNormalize) -> None:
        space = normalizer.observation_space
        if not isinstance(space, spaces.Box):
            raise ConfigError(
                f"Workers cannot normalise {type(space).__name__} observations; pass n_workers=1, "
                "or an environment without VecNormalize."
            )
        n_obs = int(np.prod(space.shape))
        self._raw: tuple[Any, Any] = (
            context.RawArray("d", 2 * n_obs + 1),
            context.RawArray("q", 1),
        )
        self._shape = space.shape
        self._map()
        self.publish(normalizer)

    def _map(self) -> None:
        raw_values, raw_version = self._raw
        self._values = np.frombuffer(raw_values, np.float64)
        self._version = np.frombuffer(raw_version, np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {"_raw": self._raw, "_shape": self._shape}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    def publish(self, normalizer: VecNormalize) -> None:
        """Let the workers see the statistics of ``normalizer``."""
        n_obs = (len(self._values) - 1) // 2
        self._version[0] += 1
        if normalizer.norm_obs:
            observations = _observations(normalizer)
            self._values[:n_obs] = observations.mean.ravel()
            self._values[n_obs:-1] = observations.var.ravel()
        self._values[-1] = normalizer.ret_rms.var
        self._version[0] += 1

    def pull(self, normalizer: WorkerNormalize) -> None:
        """Copy the statistics into a worker's normaliser."""
        while True:
            version = int(self._version[0])
            values = self._values.copy()
            if version % 2 == 0 and version == int(self._version[0]):
                break
        n_obs = (len(values) - 1) // 2
        if normalizer.norm_obs:
            observations = _observations(normalizer)
            observations.mean = values[:n_obs].reshape(self._shape)
            observations.var = values[n_obs:-1].reshape(self._shape)
        normalizer.ret_rms.var = values[-1]
        normalizer.take_over()


class WorkerNormalize(RolloutNormalize):
    """Scales with the learner's statistics and keeps the moments of what it has seen for it."""

    def __init__(self, venv: VecEnv, n_steps: int, **kwargs: Any) -> None:
        super().__init__(venv, n_steps, **kwargs)
        self.moments: Moments | None = None
        """Of the last whole segment."""

    def take_over(self) -> None:
        """Scale with the statistics as they are now."""
        self._freeze()

    def end_rollout(self) -> None:
        """Keep the moments of all steps since the last call; the statistics are the learner's."""
        if not self._discounted:
            return
        discounted = np.concatenate(self._discounted)
        obs = None
        if self.norm_obs:
            rows = np.concatenate(self._observations)
            obs = (rows.mean(axis=0), rows.var(axis=0), len(rows))
        returns = (float(discounted.mean()), float(discounted.var()), len(discounted))
        self.moments = Moments(obs, returns)
        self._observations.clear()
        self._discounted.clear()
        self._n_steps_collected = 0

    def _has_statistics(self) -> bool:
        """The learner has them, or will."""
        return True
