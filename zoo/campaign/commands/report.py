"""``zoo.benchmark report``: tables and pictures of a campaign."""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo.campaign.cells import Places
from zoo.campaign.commands.common import (
    LOGS,
    RESULTS,
    add_choice,
    selected,
)
from zoo.campaign.report import Report, insert_blocks
from zoo.campaign.results import load_results
from zoo.cli import make_parser, say

__all__ = ["make_report_parser", "report"]

_REPORT_EXAMPLES = """\
examples:
  python -m zoo.benchmark report
  python -m zoo.benchmark report --to docs/images --insert README.md docs/benchmark.md
  python -m zoo.benchmark report --envs CartPole-v1 --to cartpole

Writes results.md, learning_curves.png and performance_profiles.png, and prints the overview.
--insert replaces what stands between <!-- overview: begin --> and <!-- overview: end --> of a
Markdown file by the table as it is now; `tables` in the place of `overview` is a table for each
algorithm, `details` all of them with protocols and versions.
"""


def make_report_parser() -> argparse.ArgumentParser:
    """Return what reads the options of ``report``."""
    parser = make_parser("benchmark report", "Tables and pictures of a campaign.", _REPORT_EXAMPLES)
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS, metavar="DIR", help="folder of the results"
    )
    add_choice(parser)
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="where tables and pictures are written (default: report/ in the results)",
    )
    parser.add_argument(
        "--insert",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="Markdown files whose blocks are brought up to date",
    )
    return parser


def report(args: argparse.Namespace) -> None:
    """Write tables and pictures, and print the overview."""
    results = load_results(Places(args.output, LOGS))
    tables = Report(selected(results, args.algos, args.envs))
    for path in tables.write(args.to or args.output / "report"):
        say(f"wrote {path}")
    for path in args.insert:
        names = insert_blocks(path, tables)
        say(f"brought {', '.join(names)} up to date in {path}")
    print(tables.overview)
