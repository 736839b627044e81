"""``python -m zoo.plot``: learning curves of one or many runs as a picture.

One panel per environment, one line per algorithm, a legend for all panels.  Several runs of a group
are drawn as their mean with a confidence band, see :func:`zoo.learning_curves.aggregate`.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from agents.errors import ConfigError, MissingDependency, RunFolderError
from zoo.cli import execute, make_parser
from zoo.learning_curves import Aggregate, Curve, XAxis, aggregate, evaluation_curve, training_curve
from zoo.run_history import Floats, Run, find_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "DASHES",
    "Line",
    "PlotSettings",
    "draw",
    "draw_lines",
    "format_number",
    "main",
    "new_figure",
    "save",
    "style_axes",
]

Grouping: TypeAlias = Literal["algo", "run", "env"]

# Okabe and Ito's palette, told apart with every kind of colour blindness; its yellow, too pale for
# a line on white, is left out. Beyond seven lines the dash changes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")

SUFFIXES = (".png", ".svg", ".pdf")
X_LABELS: dict[XAxis, str] = {
    "steps": "environment steps",
    "time": "wall-clock time (minutes)",
    "episodes": "episodes",
}
CUT_WORTH_A_NOTE = 0.9  # of the longest run's x axis

EPILOG = """examples:
  python -m zoo.plot logs/npg/Walker2d-v4_1
  python -m zoo.plot logs -o curves.svg
  python -m zoo.plot 'logs/*/Hopper-v4_*' -y eval -x time
"""


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("plot", "Draw learning curves of one or many runs.", EPILOG)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run folder, a folder with runs below it, a glob"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("learning_curves.png"),
        metavar="FILE",
        help="picture to write: .png, .svg or .pdf (default: %(default)s)",
    )
    parser.add_argument(
        "-x", choices=tuple(X_LABELS), default="steps", help="horizontal axis (default: steps)"
    )
    parser.add_argument(
        "-y", choices=("train", "eval"), default="train", help="which return (default: train)"
    )
    parser.add_argument(
        "--by",
        choices=("algo", "run", "env"),
        default="algo",
        help="one line per algorithm, run or environment (default: algo)",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=100,
        metavar="N",
        help="episodes in the rolling mean of the training return (default: 100)",
    )
    parser.add_argument("--title", metavar="TEXT", help="heading over all panels")
    return execute(parser, _plot, argv)


def _plot(args: argparse.Namespace) -> None:
    if args.output.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"Cannot write '{args.output}'. Allowed: {', '.join(SUFFIXES)}. "
            f"Type: -o {args.output.with_suffix('.png') if args.output.name else 'curves.png'}"
        )
    if args.window < 1:
        raise ConfigError(f"--window {args.window} is not at least 1. Type: --window 100")
    settings = PlotSettings(args.x, args.y, args.by, args.window, args.title)
    figure = draw(find_runs(args.runs), settings)
    save(figure, args.output)
    print(args.output)


def draw(runs: Sequence[Run], settings: PlotSettings) -> Figure:
    """Return the picture of ``runs``.

    A run without data is left out with a note on standard error, as long as another one has some.

    :param runs: at least one.
    :param settings: what to draw.
    :raises MissingDependency: matplotlib is not installed.
    :raises RunFolderError: no run has data.
    """
    return draw_lines(_lines(runs, settings), settings)


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
    for index, panel in enumerate(panels):
        axes = grid.flat[index]
        _style_panel(axes, panel, [line for line in lines if line.panel == panel], settings)
        if index % n_columns == 0:
            axes.set_ylabel(_y_label(settings))
        for line in lines:
            if line.panel == panel:
                _draw_line(axes, line, labels.index(line.label))
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


# ---------------------------------------------------------------- data to lines


def _lines(runs: Sequence[Run], settings: PlotSettings) -> list[Line]:
    curves = _curves(runs, settings)
    run_labels = _run_labels([run for run, _ in curves])
    groups: dict[tuple[str, str], list[tuple[Run, Curve]]] = {}
    for run, curve in curves:
        label = {"algo": run.algo, "env": run.env_id, "run": run_labels[run.folder]}[settings.by]
        panel = run.algo if settings.by == "env" else run.env_id
        groups.setdefault((label, panel), []).append((run, curve))
    # Runs come in the natural order of their folders, which "_10" would lose by sorting.
    keys = list(groups) if settings.by == "run" else sorted(groups)
    lines = []
    for label, panel in keys:
        members = groups[label, panel]
        group_curves = [curve for _, curve in members]
        name = f"{members[0][0].algo} on {members[0][0].env_id}"
        data = aggregate(group_curves, name)
        _note_cut(name, data, group_curves, settings.x)
        noun = "" if settings.by == "run" else _noun([run for run, _ in members])
        lines.append(Line(panel, label, data, noun))
    return lines


def _noun(runs: Sequence[Run]) -> str:
    """Say what the members of a group are: runs that repeat a seed are not so many seeds."""
    seeds = [run.seed for run in runs if run.seed is not None]
    return "seed" if len(set(seeds)) == len(seeds) else "run"


def _run_labels(runs: Sequence[Run]) -> dict[Path, str]:
    """Name each run ``<algo>/<folder>``, or by its whole path where that is not unique."""
    short = {run.folder: f"{run.algo}/{run.folder.resolve().name}" for run in runs}
    count = Counter(short.values())
    return {folder: name if count[name] == 1 else str(folder) for folder, name in short.items()}


def _note_cut(name: str, data: Aggregate, curves: Sequence[Curve], x_axis: XAxis) -> None:
    end, longest = float(data.x[-1]), max(float(curve.x[-1]) for curve in curves)
    if end < CUT_WORTH_A_NOTE * longest:
        unit = "minutes" if x_axis == "time" else x_axis
        end_text, longest_text = (
            format_number(float(f"{value:.3g}"), largest=longest) for value in (end, longest)
        )
        print(
            f"note: {name} is cut at {end_text} of {longest_text} {unit}, "
            "where its shortest run ends; --by run draws all of them",
            file=sys.stderr,
        )


def _curves(runs: Sequence[Run], settings: PlotSettings) -> list[tuple[Run, Curve]]:
    curves: list[tuple[Run, Curve]] = []
    problems: list[RunFolderError] = []
    for run in runs:
        try:
            if settings.y == "train":
                curve = training_curve(run, settings.x, settings.window)
            else:
                curve = evaluation_curve(run, settings.x)
            curves.append((run, curve))
        except RunFolderError as error:
            problems.append(error)
    if not curves:
        if len(problems) == 1:
            raise problems[0]
        raise RunFolderError(f"None of the {len(problems)} runs has data. The first: {problems[0]}")
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    return curves


# ---------------------------------------------------------------- lines to picture


def new_figure() -> Figure:
    """Return an empty figure that needs no display.

    :raises MissingDependency: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(
            f"Plotting needs matplotlib ({error}). Type: pip install 'natural-zoo[plot]'"
        ) from error
    figure = Figure(layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # the figure's own canvas: no display, no pyplot, no global state
    return figure


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


def _draw_line(axes: Axes, line: Line, index: int) -> None:
    colour = COLOURS[index % len(COLOURS)]
    dash = DASHES[index // len(COLOURS) % len(DASHES)]
    data = line.data
    if data.n_runs > 1:
        axes.fill_between(data.x, data.low, data.high, color=colour, alpha=0.18, linewidth=0)
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


if __name__ == "__main__":
    sys.exit(main())
