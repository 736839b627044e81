"""``python -m zoo.benchmark``: a grid of training runs as a campaign, and what is told about it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from agents.errors import UnknownName
from zoo.campaign.commands.publish import make_publish_parser, publish
from zoo.campaign.commands.report import make_report_parser, report
from zoo.campaign.commands.reproduce import make_reproduce_parser, reproduce
from zoo.campaign.commands.run import make_run_parser, run
from zoo.campaign.commands.status import make_status_parser, status
from zoo.cli import execute, make_parser

__all__ = ["main"]

_OVERVIEW = """\
commands:
  run        train what is missing of a grid of algorithms, tasks and seeds
  status     how far a campaign has come
  report     tables and pictures of the results, beside what others have published
  reproduce  train the runs of one row of the tables again and compare
  publish    put the agent of the median seed of each row into pretrained/

`python -m zoo.benchmark COMMAND --help` explains a command.
"""

_COMMANDS: dict[
    str, tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace], None]]
] = {
    "run": (make_run_parser, run),
    "status": (make_status_parser, status),
    "report": (make_report_parser, report),
    "reproduce": (make_reproduce_parser, reproduce),
    "publish": (make_publish_parser, publish),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _COMMANDS:
        make, command = _COMMANDS[arguments[0]]
        return execute(make(), command, arguments[1:])
    parser = make_parser("benchmark", "Train a grid of runs and report on it.", _OVERVIEW)
    parser.add_argument("command", metavar="COMMAND", help=", ".join(_COMMANDS))
    return execute(parser, _unknown_command, arguments)


def _unknown_command(args: argparse.Namespace) -> None:
    raise UnknownName("command", args.command, _COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
