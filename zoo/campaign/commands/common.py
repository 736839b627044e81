"""What the commands have in common: where things are, and names for many tasks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from agents.errors import ConfigError, NaturalZooError, UnknownName
from zoo.campaign.campaign import Outcome
from zoo.campaign.results import Result
from zoo.cli import say

__all__ = [
    "LOGS",
    "RESULTS",
    "SUITES",
    "add_choice",
    "add_places",
    "check_outcome",
    "env_ids",
    "number_of_jobs",
    "selected",
]

RESULTS = Path("benchmarks/campaign")
LOGS = Path("logs/campaign")
#: Tasks that can be asked for together.
SUITES = {
    "mujoco": (
        *("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4", "Swimmer-v4", "Humanoid-v4"),
        *("Reacher-v4", "InvertedPendulum-v4", "InvertedDoublePendulum-v4"),
        *("HumanoidStandup-v4", "Pusher-v5"),
    )
}


def env_ids(names: Sequence[str]) -> list[str]:
    """Return the ids that ``names`` stand for, suites spelt out."""
    return [env_id for name in names for env_id in SUITES.get(name, (name,))]


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add the folders of results and runs."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help=f"folder of the results (default {RESULTS})",
    )
    parser.add_argument(
        "-f",
        "--log-folder",
        type=Path,
        default=LOGS,
        metavar="DIR",
        help=f"folder of the runs (default {LOGS})",
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a part of the results."""
    parser.add_argument("--algos", nargs="+", metavar="NAME", help="only these algorithms")
    parser.add_argument(
        "--envs", nargs="+", metavar="ID", help=f"only these tasks; {', '.join(SUITES)} for all"
    )


def selected(
    results: Sequence[Result], algos: Sequence[str] | None, envs: Sequence[str] | None
) -> list[Result]:
    """Return the results of some algorithms and tasks; a name without any is an error."""
    for name, given, known in (
        ("algorithm", algos, {result.cell.algo for result in results}),
        ("task", envs, {result.cell.env_id for result in results} | set(SUITES)),
    ):
        for value in given or ():
            if value not in known:
                raise UnknownName(f"{name} with results", value, known)
    tasks = None if envs is None else env_ids(envs)
    return [
        result
        for result in results
        if (algos is None or result.cell.algo in algos)
        and (tasks is None or result.cell.env_id in tasks)
    ]


def number_of_jobs(given: int | None) -> int:
    """Return how many runs go side by side."""
    if given is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if given < 1:
        raise ConfigError(f"--jobs {given} is below 1; type for example --jobs 2.")
    return given


def check_outcome(outcome: Outcome, n_tasks: int) -> None:
    """Say which runs failed, or are another process's.

    :raises NaturalZooError: a run failed.
    """
    if outcome.failed:
        cell, error = next(iter(outcome.failed.items()))
        raise NaturalZooError(
            f"{len(outcome.failed)} of {n_tasks} runs failed, the first {cell}: {error} "
            "Type the same command again to try them once more."
        )
    if outcome.elsewhere:
        say(f"{len(outcome.elsewhere)} runs are being trained by another process.")
