"""``zoo.benchmark status``: how far a campaign has come."""

from __future__ import annotations

import argparse

from agents.errors import ConfigError
from zoo.campaign.cells import Places
from zoo.campaign.commands.common import (
    add_places,
)
from zoo.campaign.planning import states_on_disk
from zoo.campaign.status import status_table
from zoo.cli import make_parser

__all__ = ["make_status_parser", "status"]


def make_status_parser() -> argparse.ArgumentParser:
    """Return what reads the options of ``status``."""
    examples = "example:\n  python -m zoo.benchmark status -o benchmarks/campaign\n"
    parser = make_parser("benchmark status", "Tell how far a campaign has come.", examples)
    add_places(parser)
    return parser


def status(args: argparse.Namespace) -> None:
    """Print how far a campaign has come."""
    places = Places(args.output, args.log_folder)
    states = states_on_disk(places)
    if not states:
        raise ConfigError(
            f"There is no run in {places.results} or {places.logs}; start some with "
            "python -m zoo.benchmark run --algos npg --envs Walker2d-v4."
        )
    print(status_table(states, places))
