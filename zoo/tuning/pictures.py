"""Pictures of a study: how the trials went, and which settings mattered."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from hub.headless_figure import new_figure
from zoo.figures import COLOURS, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna import Study

__all__ = ["draw_history", "draw_importance", "importances"]

_MOST_BARS = 15
_FEWEST_TRIALS = 4


def draw_history(study: Study) -> Figure:
    """Return every trial's objective and the best so far; pruned trials with their last report.

    :raises MissingDependency: matplotlib is not installed.
    """
    trials = study.get_trials(deepcopy=False)
    figure = new_figure()
    figure.set_size_inches(7.0, 4.0)
    axes = figure.subplots()
    style_axes(axes)
    complete = [(t.number, t.value) for t in trials if t.state.name == "COMPLETE"]
    pruned = [
        (t.number, t.intermediate_values[max(t.intermediate_values)])
        for t in trials
        if t.state.name == "PRUNED" and t.intermediate_values
    ]
    failed = [t.number for t in trials if t.state.name == "FAIL"]
    if pruned:
        axes.plot(*zip(*pruned, strict=True), "x", color="#9A9A9A", label=f"pruned ({len(pruned)})")
    if complete:
        numbers, values = map(np.array, zip(*complete, strict=True))
        axes.plot(numbers, values, "o", color=COLOURS[0], label=f"complete ({len(complete)})")
        axes.step(
            numbers, np.maximum.accumulate(values), where="post", color=COLOURS[1], label="best"
        )
    for number in failed:
        axes.axvline(number, color="#CC3311", linewidth=0.8, alpha=0.5)
    if failed:
        axes.plot([], [], color="#CC3311", linewidth=0.8, label=f"failed ({len(failed)})")
    axes.set_title(study.study_name, fontsize=11, fontweight="bold", loc="left")
    axes.set_xlabel("trial")
    axes.set_ylabel("objective")
    if complete or pruned or failed:
        axes.legend(frameon=False, fontsize=9)
    return figure


def importances(study: Study) -> dict[str, float]:
    """Return the share of each parameter in what distinguishes good trials, largest first.

    By Optuna's PED-ANOVA. Empty with fewer than four complete trials, or where all are alike.
    """
    import optuna

    complete = [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    if len(complete) < _FEWEST_TRIALS or len({trial.value for trial in complete}) == 1:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a parameter with a single value, an experimental option
        try:
            return optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):  # too few trials for some parameter
            return {}


def draw_importance(study: Study) -> Figure | None:
    """Return a bar per parameter, None if there are too few trials to tell.

    :raises MissingDependency: matplotlib is not installed.
    """
    shares = dict(list(importances(study).items())[:_MOST_BARS])
    if not shares:
        return None
    figure = new_figure()
    figure.set_size_inches(7.0, 1.2 + 0.3 * len(shares))
    axes = figure.subplots()
    style_axes(axes)
    axes.barh(list(shares)[::-1], list(shares.values())[::-1], color=COLOURS[0])
    axes.set_title(study.study_name, fontsize=11, fontweight="bold", loc="left")
    axes.set_xlabel("importance (PED-ANOVA, sums to 1)")
    return figure
