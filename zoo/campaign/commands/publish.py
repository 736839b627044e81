"""``zoo.benchmark publish``: put the agents of the median seeds into ``pretrained/``."""

from __future__ import annotations

import argparse
from pathlib import Path

from agents.errors import NaturalZooError
from hub.publishing import Wishes
from zoo.campaign.cells import Places
from zoo.campaign.commands.common import add_choice, add_places, selected
from zoo.campaign.publication import publish_median, write_index
from zoo.campaign.results import load_results
from zoo.campaign.rows import gather
from zoo.cli import make_parser, say

__all__ = ["make_publish_parser", "publish"]

_PUBLISHED = Path("pretrained")
_EXAMPLES = """\
examples:
  python -m zoo.benchmark publish
  python -m zoo.benchmark publish --algos npg trpo --envs mujoco --video

Of each row of the tables the agent of the median seed is taken, not of the luckiest: of an even
number the lower one of the two in the middle. Its bundle gets a card with the numbers of all seeds.
What is there already stays as it is. Afterwards: python -m zoo.verify npg-Walker2d-v4.
"""


def make_publish_parser() -> argparse.ArgumentParser:
    """Return what reads the options of ``publish``."""
    parser = make_parser(
        "benchmark publish", "Put the agents of the median seeds into pretrained/.", _EXAMPLES
    )
    add_choice(parser)
    parser.add_argument(
        "--video",
        action="store_true",
        help="film the first seconds of an episode, also of agents that are there without",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=_PUBLISHED,
        metavar="DIR",
        help=f"where the bundles are written (default {_PUBLISHED})",
    )
    add_places(parser)
    return parser


def publish(args: argparse.Namespace) -> None:
    """Write a bundle per row; what cannot be written is told at the end."""
    places = Places(args.output, args.log_folder)
    wishes = Wishes(video=args.video, preview=True)
    rows = gather(selected(load_results(places), args.algos, args.envs))
    problems = []
    for row in rows:
        try:
            path, is_new = publish_median(row, places, args.to, wishes)
        except NaturalZooError as error:
            problems.append(f"{row.algo} {row.env_id}: {error}")
            continue
        n_seeds = f"{len(row.finished)} seed{'s' * (len(row.finished) != 1)}"
        say(f"{'wrote' if is_new else 'kept'} {path}, the median of {n_seeds}")
    if args.to.is_dir():
        write_index(args.to)
    if problems:
        raise NaturalZooError(
            f"{len(problems)} of {len(rows)} agents are missing. " + " ".join(problems)
        )
    print(f"{len(rows)} agents: {args.to}")
