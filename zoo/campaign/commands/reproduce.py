"""``zoo.benchmark reproduce``: train the runs of a row again and compare."""

from __future__ import annotations

import argparse
from pathlib import Path

from agents.errors import ConfigError
from zoo.campaign.campaign import run_campaign
from zoo.campaign.cells import Places
from zoo.campaign.commands.common import (
    LOGS,
    RESULTS,
    check_outcome,
    number_of_jobs,
)
from zoo.campaign.reporter import Reporter
from zoo.campaign.reproduction import compare, recorded_results, repeat
from zoo.campaign.results import load_result
from zoo.cli import make_parser

__all__ = ["make_reproduce_parser", "reproduce"]

REPEATED = Path("logs/reproduced")
_REPRODUCE_EXAMPLES = """\
examples:
  python -m zoo.benchmark reproduce --algo npg --env Walker2d-v4
  make reproduce ALGO=npg TASK=Walker2d-v4

Trains with the settings and seeds that the results were recorded with, whatever hyperparams/ says
by now. On the same processor with the same versions every episode is equal, bit for bit; elsewhere
the means must agree within two standard errors. Exit code 1 if they do not.
"""


def make_reproduce_parser() -> argparse.ArgumentParser:
    """Return what reads the options of ``reproduce``."""
    parser = make_parser(
        "benchmark reproduce", "Train recorded runs again and compare.", _REPRODUCE_EXAMPLES
    )
    parser.add_argument("--algo", required=True, metavar="NAME", help="of the row to repeat")
    parser.add_argument("--env", required=True, metavar="ID", help="of the row to repeat")
    parser.add_argument("--seeds", type=int, metavar="N", help="only so many (default: all)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="runs side by side (default: all cores)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS, metavar="DIR", help="recorded results"
    )
    parser.add_argument(
        "-f", "--log-folder", type=Path, default=REPEATED, metavar="DIR", help=f"default {REPEATED}"
    )
    return parser


def reproduce(args: argparse.Namespace) -> None:
    """Train recorded runs again and compare."""
    n_jobs = number_of_jobs(args.jobs)
    if args.seeds is not None and args.seeds < 1:
        raise ConfigError(f"--seeds {args.seeds} is below 1; leave it out for all.")
    recorded = recorded_results(Places(args.output, LOGS), args.algo, args.env, args.seeds)
    places = Places(args.log_folder / "results", args.log_folder)
    tasks = [repeat(result) for result in recorded]
    outcome = run_campaign(tasks, places, n_jobs=n_jobs, n_retries=0, reporter=Reporter(recorded))
    check_outcome(outcome, len(tasks))
    repeated = [load_result(places.result(task.cell)) for task in tasks]
    print("\n".join(compare(recorded, repeated).lines()))
