"""``python -m zoo.plot``: learning curves of one or many runs as a picture.

One panel per environment, one line per algorithm, a legend for all panels.  Several runs of a group
are drawn as their mean with a confidence band, see :func:`zoo.learning_curves.aggregate`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agents.errors import ConfigError, RunFolderError
from zoo.cli import execute, make_parser
from zoo.figures import X_LABELS, Line, PlotSettings, draw_lines, format_number, save
from zoo.learning_curves import Aggregate, Curve, XAxis, aggregate, evaluation_curve, training_curve
from zoo.run_history import Run, find_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "draw",
    "main",
]

SUFFIXES = (".png", ".svg", ".pdf")
CUT_WORTH_A_NOTE = 0.9  # of the longest run's x axis

EPILOG = """examples:
  python -m zoo.plot logs/npg/Walker2d-v4_1
  python -m zoo.plot logs -o curves.svg
  python -m zoo.plot 'logs/*/Hopper-v4_*' -y eval -x time
"""


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


if __name__ == "__main__":
    sys.exit(main())
