"""Pictures of a campaign: learning curves of every task, and performance profiles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hub.headless_figure import new_figure
from zoo.campaign.published import reference
from zoo.campaign.results import Result
from zoo.campaign.rows import Row, Scores
from zoo.campaign.statistics import performance_profiles
from zoo.figures import (
    COLOURS,
    DASHES,
    Line,
    PlotSettings,
    draw_lines,
    format_number,
    style_axes,
)
from zoo.learning_curves import Curve, aggregate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_learning_curves", "draw_profiles"]

_N_THRESHOLDS = 101
_MOST_DIFFERENT_LENGTHS = 2.0


def draw_learning_curves(rows: Sequence[Row]) -> Figure | None:
    """Return a panel per task: the mean of the periodic evaluations over seeds with its band.

    Where lengths of training differ by more than a factor of two, the axis of steps is logarithmic.
    The dotted line is the highest published on-policy mean at 1M steps. None if no run was
    evaluated during training.

    :raises MissingDependency: matplotlib is not installed.
    """
    lines = [line for row in rows if (line := _line(row)) is not None]
    if not lines:
        return None
    figure = draw_lines(lines, PlotSettings(x="steps", y="eval"))
    for axes in figure.axes:
        env_id = axes.get_title(loc="left")
        axis = [line.data.x for line in lines if line.panel == env_id]
        ends = [float(x[-1]) for x in axis]
        if max(ends) > _MOST_DIFFERENT_LENGTHS * min(ends):  # short runs would be a corner
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(partial(format_number, largest=min(ends)))
            axes.set_xlim(min(float(x[0]) for x in axis), max(ends))
        bar = reference(env_id)
        if bar is not None:
            axes.axhline(bar.value, color="#555555", linestyle=":", linewidth=1.2, zorder=1)
            axes.text(
                0.99,
                bar.value,
                "best published",
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="bottom",
                fontsize=7,
                color="#555555",
            )
    return figure


def _line(row: Row) -> Line | None:
    curves = [_curve(result) for result in row.finished if result.curve]
    if not curves:
        return None
    data = aggregate(curves, f"{row.algo} on {row.env_id}")
    return Line(row.env_id, row.algo, data, "seed" if len(curves) > 1 else "")


def _curve(result: Result) -> Curve:
    timesteps, returns = zip(*result.curve, strict=True)
    return Curve(np.array(timesteps, dtype=np.float64), np.array([np.mean(r) for r in returns]))


def draw_profiles(scores: Scores) -> Figure | None:
    """Return for each algorithm the share of runs above each normalised return.

    None without a task that has normalised returns.

    :raises MissingDependency: matplotlib or rliable is not installed.
    """
    if not scores.env_ids:
        return None
    highest = max(float(matrix.max()) for matrix in scores.matrices.values())
    lowest = min(0.0, *(float(matrix.min()) for matrix in scores.matrices.values()))
    thresholds = np.linspace(lowest, 1.05 * max(highest, 1.0), _N_THRESHOLDS)
    profiles = performance_profiles(scores.matrices, thresholds)
    figure = new_figure()
    figure.set_size_inches(6.4, 4.0)
    axes = figure.subplots()
    style_axes(axes)
    for index, (algo, profile) in enumerate(profiles.items()):
        colour = COLOURS[index % len(COLOURS)]
        dash = DASHES[index // len(COLOURS) % len(DASHES)]
        axes.fill_between(
            thresholds, profile.low, profile.high, color=colour, alpha=0.18, linewidth=0
        )
        n_seeds, n_tasks = scores.matrices[algo].shape
        label = f"{algo} ({n_seeds} seeds × {n_tasks} tasks)"
        axes.plot(
            thresholds, profile.share, color=colour, linestyle=dash, linewidth=1.8, label=label
        )
    axes.axvline(1.0, color="#555555", linestyle=":", linewidth=1.2, zorder=1)
    axes.set_xlabel("normalised return τ (0: random actions, 1: best published on-policy mean)")
    axes.set_ylabel("share of runs with a return above τ")
    axes.set_ylim(0.0, 1.02)
    axes.legend(frameon=False, fontsize=9)
    return figure
