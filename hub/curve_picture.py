"""The learning curve of a published agent as a picture for its card."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

from agents.errors import BundleError
from hub.headless_figure import new_figure

__all__ = ["LearningCurve", "draw_curve", "read_curve"]

_STEPS = ("timesteps", "num_timesteps", "steps")
_COLOUR = "#0B5CAD"


@dataclass(frozen=True)
class LearningCurve:
    """Evaluations during training, in the order of steps.

    :param steps: environment steps.
    :param means: mean return of each evaluation.
    :param stds: standard deviation over its episodes; empty if not known.
    """

    steps: list[float]
    means: list[float]
    stds: list[float]


def read_curve(text: str) -> LearningCurve:
    """Return the curve in ``curve.csv``.

    :param text: with a header that names ``timesteps``, ``mean_return`` and perhaps ``std_return``.
    :raises BundleError: it has no such columns, or something else than numbers.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = set(rows[0]) if rows else set()
    steps = next((name for name in _STEPS if name in columns), None)
    if rows and (steps is None or "mean_return" not in columns):
        raise BundleError(
            f"curve.csv has the columns {', '.join(sorted(map(str, columns)))}; it needs timesteps "
            "and mean_return."
        )
    try:
        points = sorted(
            (float(row[steps or ""]), float(row["mean_return"]), float(row.get("std_return") or 0))
            for row in rows
        )
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(f"curve.csv holds something else than numbers: {error}.") from error
    if not all(math.isfinite(number) for point in points for number in point):
        raise BundleError("curve.csv holds a number that is not finite.")
    has_std = "std_return" in columns
    return LearningCurve(
        [point[0] for point in points],
        [point[1] for point in points],
        [point[2] for point in points] if has_std else [],
    )


def draw_curve(curve: LearningCurve, title: str) -> bytes:
    """Return the picture as PNG; the same curve gives the same bytes.

    :raises MissingDependency: matplotlib is not installed.
    """
    figure = new_figure(figsize=(7.0, 3.4))
    from matplotlib.ticker import EngFormatter  # an extra, which new_figure has asked for

    axes = figure.subplots()
    if curve.stds:
        low = [mean - std for mean, std in zip(curve.means, curve.stds, strict=True)]
        high = [mean + std for mean, std in zip(curve.means, curve.stds, strict=True)]
        axes.fill_between(curve.steps, low, high, color=_COLOUR, alpha=0.18, linewidth=0)
    axes.plot(
        curve.steps,
        curve.means,
        color=_COLOUR,
        linewidth=1.8,
        marker="o" if len(curve.steps) < 3 else "",
    )
    axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("evaluation return")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(True, color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()
