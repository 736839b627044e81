"""Lines with bands in panels, in the look of every picture here; no display is needed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from hub.headless_figure import new_figure
from zoo.learning_curves import Aggregate, XAxis
from zoo.run_history import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "DASHES",
    "X_LABELS",
    "Grouping",
    "Line",
    "PlotSettings",
    "draw_lines",
    "format_number",
    "save",
    "style_axes",
]

Grouping: TypeAlias = Literal["algo", "run", "env"]

# Okabe and Ito's palette, told apart with every kind of colour blindness; its yellow, too pale for
# a line on white, is left out. Beyond seven lines the dash changes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")

X_LABELS: dict[XAxis, str] = {
    "steps": "environment steps",
    "time": "wall-clock time (minutes)",
    "episodes": "episodes",
}


_FEW_LINES = 5


@dataclass(frozen=True)
class PlotSettings:
    """What to draw.

    :param x: environment steps, minutes of wall-clock time, or episodes.
    :param y: ``"train"``: rolling mean of the training return; ``"eval"``: mean of each evaluation.
    :param by: what a line stands for: an algorithm or a run (one panel per environment), or an
        environment (one panel per algorithm).
    :param window: episodes in the rolling mean.
    :param title: a heading over all panels.
    """

    x: XAxis = "steps"
    y: Literal["train", "eval"] = "train"
    by: Grouping = "algo"
    window: int = 100
    title: str | None = None


@dataclass(frozen=True)
class Line:
    """One line of one panel.

    :param panel: heading of the panel.
    :param label: what the line stands for, the same in every panel.
    :param noun: what ``data`` averages, ``"seed"`` or ``"run"``; empty for a single run.
    """

    panel: str
    label: str
    data: Aggregate
    noun: str

    @property
    def edges(self) -> tuple[Floats, Floats]:
        """Lower and upper edge of the band."""
        return self.data.low, self.data.high


def draw_lines(lines: Sequence[Line], settings: PlotSettings) -> Figure:
    """Return the picture of ``lines``, panels by name.

    :raises MissingDependency: matplotlib is not installed.
    """
    figure = new_figure()
    panels = sorted({line.panel for line in lines})
    labels = list(dict.fromkeys(line.label for line in lines))
    n_columns = min(len(panels), 3 if len(panels) != 4 else 2)
    n_rows = math.ceil(len(panels) / n_columns)
    figure.set_size_inches(max(4.4 * n_columns, 6.0), 3.3 * n_rows + 0.5)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    opacity = 0.18 if len(labels) <= _FEW_LINES else 0.08  # many bands hide the lines
    for index, panel in enumerate(panels):
        axes = grid.flat[index]
        _style_panel(axes, panel, [line for line in lines if line.panel == panel], settings)
        if index % n_columns == 0:
            axes.set_ylabel(_y_label(settings))
        for line in lines:
            if line.panel == panel:
                _draw_line(axes, line, labels.index(line.label), opacity)
        axes.set_xlim(left=0)
    _add_legend(figure, lines, labels)
    if settings.title:
        figure.suptitle(settings.title, fontsize=13, fontweight="bold")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` so that ``path`` holds either the old picture or the whole new one.

    :param figure: the picture.
    :param path: its suffix chooses the format; missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    picture_format = path.suffix.lower().removeprefix(".")
    # Without dates the same data gives the same file.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(picture_format)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(part, format=picture_format, dpi=160, metadata=metadata)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def format_number(value: float, _position: int | None = None, *, largest: float) -> str:
    """Return an axis label such as ``0.2M`` or ``50k``, in one unit for the whole axis.

    :param value: the number to write.
    :param largest: the largest number on the axis; it chooses the unit.
    """
    if value == 0:
        return "0"
    if largest >= 200_000:
        return f"{value / 1e6:.6g}M"
    if largest >= 10_000:
        return f"{value / 1e3:.6g}k"
    return f"{value:.6g}"


def _y_label(settings: PlotSettings) -> str:
    if settings.y == "eval":
        return "evaluation return"
    if settings.window == 1:
        return "training return"
    return f"training return\n(mean of {settings.window} episodes)"


def _style_panel(axes: Axes, title: str, lines: Sequence[Line], settings: PlotSettings) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
    axes.set_xlabel(X_LABELS[settings.x])
    style_axes(axes)
    largest_x = max(float(line.data.x[-1]) for line in lines)
    largest_y = max(float(abs(edge).max()) for line in lines for edge in line.edges)
    for axis, largest in ((axes.xaxis, largest_x), (axes.yaxis, largest_y)):
        axis.set_major_formatter(FuncFormatter(partial(format_number, largest=largest)))
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))


def style_axes(axes: Axes) -> None:
    """Give the axes the look of every picture: a light grid and no box."""
    axes.grid(True, color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#8A8A8A")
    axes.tick_params(color="#8A8A8A", labelsize=9)


def _draw_line(axes: Axes, line: Line, index: int, opacity: float) -> None:
    colour = COLOURS[index % len(COLOURS)]
    dash = DASHES[index // len(COLOURS) % len(DASHES)]
    data = line.data
    if data.n_runs > 1:
        axes.fill_between(data.x, data.low, data.high, color=colour, alpha=opacity, linewidth=0)
    axes.plot(
        data.x,
        data.mean,
        color=colour,
        linestyle=dash,
        linewidth=1.8,
        marker="o" if len(data.x) == 1 else "",  # one point would draw no line
        label=line.label,
    )


def _add_legend(figure: Figure, lines: Sequence[Line], labels: Sequence[str]) -> None:
    handles = {handle.get_label(): handle for axes in figure.axes for handle in axes.lines}
    texts = [_legend_text([line for line in lines if line.label == label]) for label in labels]
    width, height = figure.get_size_inches()
    entry_width = 0.8 + 0.09 * max(map(len, texts))  # inches: the line, and about 10 pt letters
    n_columns = max(1, min(len(texts), int(width / entry_width)))
    n_rows = math.ceil(len(texts) / n_columns)
    figure.set_size_inches(width, height + 0.22 * n_rows)
    has_band = any(line.data.n_runs > 1 for line in lines)
    members = "runs" if any(line.noun == "run" for line in lines) else "seeds"
    figure.legend(
        [handles[label] for label in labels],
        texts,
        loc="outside lower center",
        ncols=n_columns,
        frameon=False,
        title=f"mean over {members} with 95% confidence band" if has_band else None,
        title_fontsize=9,
        fontsize=10,
    )


def _legend_text(lines: Sequence[Line]) -> str:
    """Return the label of one group's lines with the number of seeds, a range if panels differ."""
    label, nouns = lines[0].label, {line.noun for line in lines}
    if nouns == {""}:
        return label
    noun = "run" if "run" in nouns else "seed"
    fewest, most = min(line.data.n_runs for line in lines), max(line.data.n_runs for line in lines)
    numbers = str(most) if fewest == most else f"{fewest}–{most}"
    return f"{label} ({numbers} {noun}{'' if most == 1 else 's'})"
