"""``python -m zoo.benchmark``: a grid of training runs as a campaign, and what is told about it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from agents.errors import ConfigError, NaturalZooError, UnknownName
from agents.registry import algorithm_names
from hub.seeding import SEED_SPACING, SEED_STARTS, purpose_seeds
from zoo.campaign.campaign import Outcome, run_campaign
from zoo.campaign.cells import Places, grid
from zoo.campaign.planning import Recipe, plan, refuse_outdated, states_on_disk
from zoo.campaign.report import Report, insert_blocks
from zoo.campaign.reporter import Reporter
from zoo.campaign.reproduction import compare, recorded_results, repeat
from zoo.campaign.results import Result, load_result, load_results
from zoo.campaign.status import status_table
from zoo.cli import execute, make_parser, say, step_count, step_period

__all__ = ["main"]

RESULTS = Path("benchmarks/campaign")
LOGS = Path("logs/campaign")
REPEATED = Path("logs/reproduced")
#: Tasks that can be asked for together.
SUITES = {
    "mujoco": (
        *("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4", "Swimmer-v4", "Humanoid-v4"),
        *("Reacher-v4", "InvertedPendulum-v4", "InvertedDoublePendulum-v4"),
        *("HumanoidStandup-v4", "Pusher-v5"),
    )
}

_OVERVIEW = """\
commands:
  run        train what is missing of a grid of algorithms, tasks and seeds
  status     how far a campaign has come
  report     tables and pictures of the results, beside what others have published
  reproduce  train the runs of one row of the tables again and compare

`python -m zoo.benchmark COMMAND --help` explains a command.
"""
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
_REPRODUCE_EXAMPLES = """\
examples:
  python -m zoo.benchmark reproduce --algo npg --env Walker2d-v4
  make reproduce ALGO=npg TASK=Walker2d-v4

Trains with the settings and seeds that the results were recorded with, whatever hyperparams/ says
by now. On the same processor with the same versions every episode is equal, bit for bit; elsewhere
the means must agree within two standard errors. Exit code 1 if they do not.
"""


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


def _tasks(names: Sequence[str]) -> list[str]:
    """Return the ids that ``names`` stand for, suites spelt out."""
    return [env_id for name in names for env_id in SUITES.get(name, (name,))]


def _add_places(parser: argparse.ArgumentParser) -> None:
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


# --- run ----------------------------------------------------------------------------------------


def _run_parser() -> argparse.ArgumentParser:
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
    _add_places(parser)
    return parser


def _run(args: argparse.Namespace) -> None:
    n_jobs = _number_of_jobs(args.jobs)
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
    cells = grid(args.algos, _tasks(args.envs), purpose_seeds("benchmark", args.seeds))
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
    _check_outcome(outcome, len(tasks))
    print(f"{len(outcome.finished)} of {len(tasks)} runs finished: {places.results}")


def _number_of_jobs(given: int | None) -> int:
    if given is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if given < 1:
        raise ConfigError(f"--jobs {given} is below 1; type for example --jobs 2.")
    return given


def _check_outcome(outcome: Outcome, n_tasks: int) -> None:
    if outcome.failed:
        cell, error = next(iter(outcome.failed.items()))
        raise NaturalZooError(
            f"{len(outcome.failed)} of {n_tasks} runs failed, the first {cell}: {error} "
            "Type the same command again to try them once more."
        )
    if outcome.elsewhere:
        say(f"{len(outcome.elsewhere)} runs are being trained by another process.")


# --- status -------------------------------------------------------------------------------------


def _status_parser() -> argparse.ArgumentParser:
    examples = "example:\n  python -m zoo.benchmark status -o benchmarks/campaign\n"
    parser = make_parser("benchmark status", "Tell how far a campaign has come.", examples)
    _add_places(parser)
    return parser


def _status(args: argparse.Namespace) -> None:
    places = Places(args.output, args.log_folder)
    states = states_on_disk(places)
    if not states:
        raise ConfigError(
            f"There is no run in {places.results} or {places.logs}; start some with "
            "python -m zoo.benchmark run --algos npg --envs Walker2d-v4."
        )
    print(status_table(states, places))


# --- report -------------------------------------------------------------------------------------


def _report_parser() -> argparse.ArgumentParser:
    parser = make_parser("benchmark report", "Tables and pictures of a campaign.", _REPORT_EXAMPLES)
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS, metavar="DIR", help="folder of the results"
    )
    parser.add_argument("--algos", nargs="+", metavar="NAME", help="only these algorithms")
    parser.add_argument(
        "--envs", nargs="+", metavar="ID", help=f"only these tasks; {', '.join(SUITES)} for all"
    )
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


def _report(args: argparse.Namespace) -> None:
    results = load_results(Places(args.output, LOGS))
    report = Report(_selected(results, args.algos, args.envs))
    for path in report.write(args.to or args.output / "report"):
        say(f"wrote {path}")
    for path in args.insert:
        names = insert_blocks(path, report)
        say(f"brought {', '.join(names)} up to date in {path}")
    print(report.overview)


def _selected(
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
    env_ids = None if envs is None else _tasks(envs)
    return [
        result
        for result in results
        if (algos is None or result.cell.algo in algos)
        and (env_ids is None or result.cell.env_id in env_ids)
    ]


# --- reproduce ----------------------------------------------------------------------------------


def _reproduce_parser() -> argparse.ArgumentParser:
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


def _reproduce(args: argparse.Namespace) -> None:
    n_jobs = _number_of_jobs(args.jobs)
    if args.seeds is not None and args.seeds < 1:
        raise ConfigError(f"--seeds {args.seeds} is below 1; leave it out for all.")
    recorded = recorded_results(Places(args.output, LOGS), args.algo, args.env, args.seeds)
    places = Places(args.log_folder / "results", args.log_folder)
    tasks = [repeat(result) for result in recorded]
    outcome = run_campaign(tasks, places, n_jobs=n_jobs, n_retries=0, reporter=Reporter(recorded))
    _check_outcome(outcome, len(tasks))
    repeated = [load_result(places.result(task.cell)) for task in tasks]
    print("\n".join(compare(recorded, repeated).lines()))


_COMMANDS: dict[
    str, tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace], None]]
] = {
    "run": (_run_parser, _run),
    "status": (_status_parser, _status),
    "report": (_report_parser, _report),
    "reproduce": (_reproduce_parser, _reproduce),
}


if __name__ == "__main__":
    sys.exit(main())
