"""``zoo.benchmark run``: train what is missing of a grid."""

from __future__ import annotations

import argparse
from pathlib import Path

from agents.errors import ConfigError
from agents.registry import algorithm_names
from hub.seeding import SEED_SPACING, SEED_STARTS, purpose_seeds
from zoo.campaign.campaign import run_campaign
from zoo.campaign.cells import Places, grid
from zoo.campaign.commands.common import (
    LOGS,
    RESULTS,
    SUITES,
    add_places,
    check_outcome,
    env_ids,
    number_of_jobs,
)
from zoo.campaign.planning import Recipe, plan, refuse_outdated
from zoo.campaign.reporter import Reporter
from zoo.campaign.results import load_results
from zoo.cli import make_parser, say, step_count, step_period

__all__ = ["make_run_parser", "run"]

_RUN_EXAMPLES = f"""\
examples:
  python -m zoo.benchmark run --algos npg trpo --envs Walker2d-v4 Hopper-v4 --seeds 5
  python -m zoo.benchmark run --algos npg --envs mujoco --jobs 8
  python -m zoo.benchmark run --algos npg --envs Walker2d-v4 --seeds 2 -n 1e5 -o /tmp/try

It can be stopped at any moment and typed again: finished runs are skipped, interrupted ones go on
from their last checkpoint and end with the same numbers, bit for bit, as if never interrupted.
Several may run at once on the same folders; each run is trained by one of them.
Seeds are {SEED_STARTS["benchmark"]}, {SEED_STARTS["benchmark"] + SEED_SPACING}, …, \
which zoo.tune never uses. The result of a run is one small file,
{RESULTS}/ALGO/ENV/SEED.json; agents and logs stay in {LOGS}.
"""


def make_run_parser() -> argparse.ArgumentParser:
    """Return what reads the options of ``run``."""
    parser = make_parser("benchmark run", "Train what is missing of a grid.", _RUN_EXAMPLES)
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--algos", nargs="+", required=True, metavar="NAME", help=", ".join(algorithm_names())
    )
    what.add_argument(
        "--envs",
        nargs="+",
        required=True,
        metavar="ID",
        help=f"ids, or {', '.join(SUITES)} for all",
    )
    what.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="how many per algorithm and task (5)"
    )
    what.add_argument(
        "-n", "--n-timesteps", type=step_count, metavar="N", help="steps (default: the preset's)"
    )
    what.add_argument(
        "--presets", type=Path, metavar="DIR", help="folder of ALGO.yml to use for hyperparams/"
    )
    what.add_argument(
        "--untuned", action="store_true", help="train with the presets' default entry"
    )
    what.add_argument(
        "--eval-freq",
        type=step_period,
        metavar="N",
        help="steps between points of the curve (default: 20 points)",
    )
    what.add_argument("--eval-episodes", type=int, metavar="N", help="episodes of such a point")
    what.add_argument(
        "--save-freq", type=step_period, metavar="N", help="steps between checkpoints"
    )
    how = parser.add_argument_group("how to run")
    how.add_argument("--jobs", type=int, metavar="N", help="runs side by side (default: all cores)")
    how.add_argument(
        "--retries", type=int, default=2, metavar="N", help="further attempts at a failed run (2)"
    )
    how.add_argument(
        "--redo-outdated", action="store_true", help="replace results of other settings"
    )
    add_places(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Train what is missing of a grid."""
    n_jobs = number_of_jobs(args.jobs)
    if args.retries < 0:
        raise ConfigError(f"--retries {args.retries} is negative; type 0 for none.")
    places = Places(args.output, args.log_folder)
    given = {
        "eval_freq": args.eval_freq,
        "n_eval_episodes": args.eval_episodes,
        "save_freq": args.save_freq,
    }
    settings = tuple((key, value) for key, value in given.items() if value is not None)
    recipe = Recipe(args.n_timesteps, args.untuned, args.presets, settings)
    cells = grid(args.algos, env_ids(args.envs), purpose_seeds("benchmark", args.seeds))
    tasks = plan(dict.fromkeys(cells), recipe)
    if not args.redo_outdated:
        refuse_outdated(tasks, places)
    reporter = Reporter(load_results(places))
    try:
        outcome = run_campaign(
            tasks, places, n_jobs=n_jobs, n_retries=args.retries, reporter=reporter
        )
    except KeyboardInterrupt:
        say("Stopped; nothing is lost but the steps since each run's last checkpoint.")
        say("To go on, type the same command again.")
        raise
    check_outcome(outcome, len(tasks))
    print(f"{len(outcome.finished)} of {len(tasks)} runs finished: {places.results}")
