"""The agent that stands for a row of the tables: that of its median seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from agents.errors import BundleError, ConfigError
from hub.agent_name import default_name
from hub.atomic import write_text
from hub.bundle import Bundle
from hub.bundle_format.bundle_folder import AGENT, write_folder
from hub.publishing import Publication, Wishes, prepare_publication
from zoo.campaign.cells import Places
from zoo.campaign.results import Result
from zoo.campaign.rows import Row, number
from zoo.cli import say
from zoo.runs import RunFolder

__all__ = ["MAX_VIDEO_BYTES", "median_result", "publish_median", "write_index"]

_VIDEO = "replay.mp4"

MAX_VIDEO_BYTES = 300_000
"""Of a video in a checkout: everybody who clones it pays for all of them."""


def median_result(row: Row) -> Result:
    """Return the run whose mean return is the median of the row's.

    Of an even number it is the lower one of the two in the middle, of equal ones the first seed's.

    :raises ConfigError: no seed has finished.
    """
    if not row.finished:
        raise ConfigError("no seed has finished. Type: python -m zoo.benchmark run")
    ranked = sorted(row.finished, key=lambda result: (result.mean_return, result.cell.seed))
    return ranked[(len(ranked) - 1) // 2]


def publish_median(row: Row, places: Places, target: Path, wishes: Wishes) -> tuple[Path, bool]:
    """Write the median seed's agent to ``target/ALGO-ENV``, unless it is there.

    :param row: all seeds of an algorithm on a task.
    :param places: where the runs are.
    :param target: folder of the bundles.
    :param wishes: a video of more than :data:`MAX_VIDEO_BYTES` is left out; one that is there
        already without the video that is wished for is written again.
    :return: the bundle, and whether it was written now.
    :raises ConfigError: the run folder is gone, or holds another agent than the recorded one.
    """
    result = median_result(row)
    path = target / default_name(row.algo, row.env_id)
    is_filmed = (path / _VIDEO).is_file()
    if _holds(path, result) and (is_filmed or not wishes.video):
        return path, False
    run = places.run(result.cell)
    if not _holds(run.bundle, result):
        raise ConfigError(
            f"{run.path} does not hold the agent of the recorded result (seed {result.cell.seed}). "
            f"Delete {places.result(result.cell)} and train it again: "
            f"python -m zoo.benchmark run --algos {row.algo} --envs {row.env_id}"
        )
    write_folder(path, _publication(run, wishes).files)
    Bundle.open(path)
    return path, True


def _publication(run: RunFolder, wishes: Wishes) -> Publication:
    """Return the files; a video that is too large is left out."""
    made = prepare_publication(run.bundle, wishes, run=run.path, address="{name}")
    size = len(made.files.get(_VIDEO, b""))
    if size <= MAX_VIDEO_BYTES:
        return made
    say(f"left out: the video of {made.name} has {size:,} bytes, more than {MAX_VIDEO_BYTES:,}")
    return prepare_publication(
        run.bundle, replace(wishes, video=False), run=run.path, address="{name}"
    )


def write_index(target: Path) -> None:
    """Write ``target/README.md``: a table of the bundles that are there."""
    bundles = [Bundle.open(path.parent) for path in sorted(target.glob(f"*/{AGENT}"))]
    lines = [
        "# Trained agents",
        "",
        "Every command, `hub.load` and `hub.OnnxPolicy` find them by name. Each is the agent of",
        "the *median* seed of its row in the [benchmark](../docs/benchmark.md), not of the",
        "luckiest; its card has the numbers of all seeds. `python -m zoo.benchmark publish` writes",
        "them.",
        "",
        "| agent | return of 100 episodes | training steps |",
        "| --- | ---: | ---: |",
    ]
    for bundle in bundles:
        report = json.loads(bundle.read("evaluation.json"))
        name, mean, std = bundle.path.name, report["mean_return"], report["std_return"]
        score = f"{number(mean)} ± {number(std, mean)}"
        lines.append(f"| [{name}]({name}) | {score} | {report['num_timesteps']:,} |")
    write_text(target / "README.md", "\n".join(lines) + "\n")


def _holds(bundle: Path, result: Result) -> bool:
    """Tell whether a bundle's published episodes are those of ``result``."""
    try:
        report = json.loads(Bundle.open(bundle).read("evaluation.json"))
    except (BundleError, KeyError, ValueError):
        return False
    seed, returns = report.get("training_seed"), report.get("returns")
    return bool(seed == result.cell.seed and returns == list(result.returns))
