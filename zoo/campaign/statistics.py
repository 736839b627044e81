"""Statistics over seeds and tasks, as rliable computes them.

A *score* is one training run's mean return, or that return normalised; scores come as matrices of
shape ``(n_seeds, n_tasks)``.

Ref: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
arXiv:2108.13264.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agents.errors import MissingDependency

__all__ = [
    "N_RESAMPLES",
    "Estimate",
    "Floats",
    "Profile",
    "interquartile_mean",
    "mean_and_std",
    "normalised",
    "performance_profiles",
]

Floats: TypeAlias = NDArray[np.float64]
N_RESAMPLES = 2_000
_SEED = 0  # a table must be the same each time it is made


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Profile:
    """The share of runs that score more than a threshold, with its 95 % confidence band."""

    share: Floats
    low: Floats
    high: Floats


def mean_and_std(scores: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation over seeds (``n − 1``), None for a single seed."""
    values = np.asarray(scores, dtype=np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def normalised(mean_return: float, *, zero: float, one: float) -> float:
    """Return ``(mean_return − zero) / (one − zero)``."""
    return (mean_return - zero) / (one - zero)


def interquartile_mean(scores: Floats, n_resamples: int | None = None) -> Estimate:
    """Return the mean of the middle half of all scores with a stratified-bootstrap interval.

    Seeds are drawn anew within each task; the interval is the percentiles'. With one seed there is
    nothing to draw, and with fewer than about five it is too narrow.

    :param scores: shape ``(n_seeds, n_tasks)``. A quarter of the scores, rounded down, is left out
        at each end.
    :param n_resamples: None for :data:`N_RESAMPLES`.
    :raises MissingDependency: rliable is not installed, or does not work here.
    """
    library, metrics = _rliable()
    with _numpy_seeded():
        points, intervals = library.get_interval_estimates(
            {"all": scores},
            lambda matrix: np.array([metrics.aggregate_iqm(matrix)]),
            reps=n_resamples or N_RESAMPLES,
        )
    return Estimate(float(points["all"][0]), *map(float, intervals["all"][:, 0]))


def performance_profiles(
    scores: Mapping[str, Floats], thresholds: Floats, n_resamples: int | None = None
) -> dict[str, Profile]:
    """Return for each name the share of runs, over all tasks, that score above each threshold.

    :param scores: by name, each of shape ``(n_seeds, n_tasks)``.
    :raises MissingDependency: rliable is not installed, or does not work here.
    """
    library, _ = _rliable()
    with _numpy_seeded():
        shares, bands = library.create_performance_profile(
            dict(scores),
            thresholds,
            custom_profile_func=_share_above,
            reps=n_resamples or N_RESAMPLES,
        )
    return {name: Profile(shares[name], *bands[name]) for name in scores}


def _share_above(scores: Floats, thresholds: Floats) -> Floats:
    """Return rliable's own profile, for all thresholds at once."""
    flat = np.sort(scores, axis=None)
    share: Floats = 1.0 - np.searchsorted(flat, thresholds, side="right") / flat.size
    return share


@contextmanager
def _numpy_seeded() -> Iterator[None]:
    """Seed NumPy's global generator: rliable draws from it, whatever ``random_state`` says."""
    state = np.random.get_state()
    np.random.seed(_SEED)
    try:
        yield
    finally:
        np.random.set_state(state)


def _rliable() -> tuple[Any, Any]:
    try:
        from rliable import library, metrics
    except (ImportError, TypeError) as error:  # TypeError: arch 7 with pandas 3
        raise MissingDependency(
            f"The statistics need rliable, which cannot be imported ({error}). "
            "Type: pip install 'natural-zoo[benchmark]'"
        ) from error
    return library, metrics
