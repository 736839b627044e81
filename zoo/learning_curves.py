"""Learning curves of runs, and their statistics over seeds.

:mod:`zoo.run_history` reads what they are made of, :mod:`zoo.figures` draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from agents.errors import RunFolderError
from zoo.run_history import Episodes, Floats, Run, read_episodes, read_evaluations

__all__ = [
    "Aggregate",
    "Curve",
    "XAxis",
    "aggregate",
    "bootstrap_band",
    "common_grid",
    "evaluation_curve",
    "rolling_mean",
    "training_curve",
]

XAxis: TypeAlias = Literal["steps", "time", "episodes"]

N_GRID_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """One run's curve.

    :param x: strictly increasing, shape ``(n,)``.
    :param y: shape ``(n,)``.
    """

    x: Floats
    y: Floats


@dataclass(frozen=True)
class Aggregate:
    """The curves of one group as mean and confidence band, each of shape ``(n,)``.

    :param n_runs: how many curves went in; with one, ``low`` and ``high`` are the curve itself.
    """

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    n_runs: int


def rolling_mean(values: Floats, window: int) -> Floats:
    """Return the mean of each value and the ``window - 1`` values before it.

    The first values have fewer before them and average what there is, as SB3's
    ``rollout/ep_rew_mean`` does.

    :param values: shape ``(n,)``.
    :param window: at least 1.
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - window, 0)
    mean: Floats = (total[end] - total[begin]) / (end - begin)
    return mean


def training_curve(run: Run, x_axis: XAxis, window: int) -> Curve:
    """Return the rolling mean of the training return.

    An episode stands where it ended: at the steps of all episodes up to and including it.

    :param run: the run to read.
    :param x_axis: environment steps, minutes or episodes.
    :param window: episodes to average over.
    :raises RunFolderError: no finished episode.
    """
    episodes = read_episodes(run.folder)
    x = _episode_axis(episodes, x_axis)
    return _strictly_increasing(x, rolling_mean(episodes.returns, window))


def evaluation_curve(run: Run, x_axis: XAxis) -> Curve:
    """Return the mean return of each evaluation.

    Evaluations are stored by steps.  Their time and episode follow from the monitor file: between
    two finished episodes by interpolation, after the last one at the run's mean speed.

    :param run: the run to read.
    :param x_axis: environment steps, minutes or episodes.
    :raises RunFolderError: no evaluation, or a file that cannot be read.
    """
    steps, means = read_evaluations(run.folder)
    if x_axis == "steps":
        return Curve(steps, means)
    episodes = read_episodes(run.folder)
    known_steps = np.concatenate([[0.0], episodes.steps])
    known_x = np.concatenate([[0.0], _episode_axis(episodes, x_axis)])
    x = np.interp(steps, known_steps, known_x)
    x += np.maximum(steps - known_steps[-1], 0.0) * known_x[-1] / known_steps[-1]
    return _strictly_increasing(x, means)


def _episode_axis(episodes: Episodes, x_axis: XAxis) -> Floats:
    if x_axis == "steps":
        return episodes.steps
    if x_axis == "time":
        return episodes.minutes
    return np.arange(1, len(episodes.lengths) + 1, dtype=np.float64)


def _strictly_increasing(x: Floats, y: Floats) -> Curve:
    last_of_equals = np.append(np.diff(x) > 0, True)
    return Curve(x[last_of_equals], y[last_of_equals])


def common_grid(axes: Sequence[Floats], n_points: int = N_GRID_POINTS) -> Floats:
    """Return the x values at which all curves can be compared.

    Curves measured at the same few points keep them; otherwise the grid is even.  It begins where
    the last curve begins and ends where the first one ends, see :func:`aggregate`.

    :param axes: the x values of each curve.
    :param n_points: points of an even grid.
    :return: empty if the curves share no stretch of the axis.
    """
    first = axes[0]
    if len(first) <= n_points and all(np.array_equal(first, axis) for axis in axes[1:]):
        return first
    low = max(float(axis[0]) for axis in axes)
    high = min(float(axis[-1]) for axis in axes)
    if low > high:
        return np.empty(0)
    return np.linspace(low, high, n_points if low < high else 1)


def bootstrap_band(
    values: Floats, confidence: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Return the percentile-bootstrap confidence band of the mean over seeds.

    Whole curves are resampled, so that the band follows the spread between seeds.  With fewer than
    about five seeds it is too narrow, as every bootstrap is: take it as a lower bound.

    :param values: shape ``(n_seeds, n_points)``.
    :param confidence: the share of resampled means inside the band at each point.
    :param n_resamples: how many sets of seeds to draw.
    :param seed: makes the band repeatable.
    :return: lower and upper edge, each of shape ``(n_points,)``.
    """
    n_seeds = len(values)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_seeds, np.full(n_seeds, 1.0 / n_seeds), size=n_resamples) / n_seeds
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(weights @ values, [tail, 1.0 - tail], axis=0)
    return low, high


def aggregate(curves: Sequence[Curve], name: str = "a group") -> Aggregate:
    """Return mean and 95 % confidence band of the curves of one group.

    Curves are interpolated linearly on a common grid.  Where fewer than all of them have data there
    is no mean: a run that died early cuts its whole group there.  Averaging on with the survivors
    would draw a jump that no agent made, and runs often die *because* they do badly.

    :param curves: at least one; a single curve is returned as it is.
    :param name: the group's name for the error message.
    :raises RunFolderError: the curves share no stretch of the x axis.
    """
    if len(curves) == 1:
        curve = curves[0]
        return Aggregate(curve.x, curve.y, curve.y, curve.y, 1)
    grid = common_grid([curve.x for curve in curves])
    if grid.size == 0:
        raise RunFolderError(
            f"The {len(curves)} runs of {name} share no stretch of the x axis: one ends before "
            "another begins. Draw them one by one: --by run."
        )
    values = np.stack([np.interp(grid, curve.x, curve.y) for curve in curves])
    low, high = bootstrap_band(values)
    return Aggregate(grid, values.mean(axis=0), low, high, len(curves))
