"""``python -m zoo.tune``: search hyperparameters, rank the best again, write a preset."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.errors import ConfigError, UnknownName
from agents.registry import algorithm_class, algorithm_names
from hub import __version__
from hub.atomic import write_text
from hub.env_ids import check_env_id
from hub.versions import installed_versions
from zoo.cli import execute, make_parser, say, step_count
from zoo.figures import save
from zoo.locks import FileLock
from zoo.presets import parse_overrides
from zoo.tuning.pictures import draw_history, draw_importance
from zoo.tuning.preset import entry_text, make_entry, read_file, replace_entry
from zoo.tuning.protocol import OBJECTIVES, Protocol
from zoo.tuning.reranking import PRESET, Candidate, best, candidates, rerank
from zoo.tuning.search import search, tally
from zoo.tuning.search_space import known_spaces, load_space
from zoo.tuning.study import PRUNERS, SAMPLERS, StudyFolder, open_study
from zoo.tuning.tables import ranking_table, trials_table

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["main"]

LOGS = Path("logs/tuning")
_UNKNOWN_LENGTH = 1_000_000
_EXAMPLES = """\
examples:
  python -m zoo.tune --algo npg --env Walker2d-v4 --n-trials 50 -n 300000 --jobs 2
  python -m zoo.tune --algo npg --env Walker2d-v4 --n-trials 100 -n 300000      # 50 more
  python -m zoo.tune --algo ppo --env my_package:MyEnv-v0 --search-space mine.yml --dry-run
  python -m zoo.tune --algo npg --env Ant-v4 --storage postgresql://user@host/studies

A trial trains with several seeds; its objective is the mean return of the final agents. It can be
stopped at any moment and typed again: trainings go on from their last checkpoints. Several may work
on one study at once, also on several machines with --storage URL. The best trials are then trained
again, at full length and on fresh seeds, beside the preset that is there already; the winner is
written with its provenance into a copy of hyperparams/ALGO.yml. Seeds and episodes of the benchmark
are used for none of this.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("tune", "Search hyperparameters and write a preset.", _EXAMPLES)
    what = parser.add_argument_group("what to search")
    what.add_argument("--algo", required=True, metavar="NAME", help=", ".join(algorithm_names()))
    what.add_argument("--env", required=True, metavar="ID", help="such as Walker2d-v4")
    what.add_argument(
        "--search-space",
        type=Path,
        metavar="FILE",
        help=f"YAML file of your own (shipped: {', '.join(known_spaces())})",
    )
    what.add_argument(
        "-params",
        "--hyperparams",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings of every trial that the space leaves alone",
    )
    what.add_argument(
        "-conf", "--conf-file", type=Path, metavar="FILE", help="hyperparameters to start from"
    )
    what.add_argument(
        "--from-preset", action="store_true", help="search around the task's entry, not `default`"
    )
    _add_trial_options(parser)
    _add_study_options(parser)
    _add_ranking_options(parser)
    return parser


def _add_trial_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("a trial")
    how.add_argument(
        "-n", "--n-timesteps", type=step_count, metavar="N", help="steps (default: the preset's)"
    )
    how.add_argument("--n-seeds", type=int, default=3, metavar="N", help="trainings (3)")
    how.add_argument(
        "--eval-episodes", type=int, default=20, metavar="N", help="of a final evaluation (20)"
    )
    how.add_argument(
        "--n-evaluations",
        type=int,
        default=4,
        metavar="N",
        help="looks at a training under way, by which a trial may be pruned (4)",
    )
    how.add_argument(
        "--objective",
        default="mean",
        metavar="NAME",
        help="mean over the seeds, or iqm: of their middle half (default mean)",
    )


def _add_study_options(parser: argparse.ArgumentParser) -> None:
    study = parser.add_argument_group("the study")
    study.add_argument(
        "--n-trials", type=int, default=50, metavar="N", help="of the study in all (50)"
    )
    study.add_argument("--jobs", type=int, default=1, metavar="N", help="trials side by side (1)")
    study.add_argument("--study-name", metavar="NAME", help="default: ALGO-ENV")
    study.add_argument(
        "--storage", metavar="URL", help="database URL or journal file (default: a journal)"
    )
    study.add_argument("--sampler", default="tpe", metavar="NAME", help="tpe or random (tpe)")
    study.add_argument(
        "--pruner", default="median", metavar="NAME", help="median, halving or none (median)"
    )
    study.add_argument("--seed", type=int, default=0, metavar="N", help="of the sampler (0)")
    study.add_argument(
        "-f", "--log-folder", type=Path, default=LOGS, metavar="DIR", help=f"default {LOGS}"
    )


def _add_ranking_options(parser: argparse.ArgumentParser) -> None:
    out = parser.add_argument_group("ranking the best again")
    out.add_argument("--rerank", type=int, default=5, metavar="K", help="trials; 0 for none (5)")
    out.add_argument("--rerank-seeds", type=int, default=5, metavar="N", help="fresh seeds (5)")
    out.add_argument(
        "--rerank-timesteps", type=step_count, metavar="N", help="default: the preset's"
    )
    out.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="file of hyperparameters whose entry is replaced "
        "(default: a copy, ALGO.yml in the study's folder)",
    )
    out.add_argument("--dry-run", action="store_true", help="print the preset, write no file")


def _run(args: argparse.Namespace) -> None:
    protocol = _protocol(args)
    protocol.check()
    name = args.study_name or f"{args.algo}-{args.env.rpartition(':')[2].replace('/', '-')}"
    folder = StudyFolder(args.log_folder / name)
    study = open_study(folder, name, protocol, storage=args.storage, pruner=args.pruner)
    try:
        search(
            study,
            folder,
            protocol,
            n_trials=args.n_trials,
            n_jobs=args.jobs,
            sampler=args.sampler,
            seed=args.seed,
            say=say,
        )
        _describe(study, folder)
        if args.rerank == 0:
            print(f"{name}: {_counts(study)} ({folder.path})")
            return
        if not folder.is_idle(study):
            say("Other processes are still at work on this study; the last one ranks the best.")
            print(f"{name}: {_counts(study)} ({folder.path})")
            return
        _rank(args, study, folder, protocol)
    except KeyboardInterrupt:
        say("Stopped; to go on, type the same command again.")
        raise


def _protocol(args: argparse.Namespace) -> Protocol:
    algorithm_class(args.algo)
    check_env_id(args.env)
    for option, known in (("objective", OBJECTIVES), ("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if getattr(args, option) not in known:
            raise UnknownName(option, getattr(args, option), known)
    for option, least in (("n_trials", 0), ("jobs", 1), ("rerank", 0), ("rerank_seeds", 1)):
        if getattr(args, option) < least:
            flag = f"--{option.replace('_', '-')}"
            raise ConfigError(f"{flag} {getattr(args, option)} is below {least}.")
    protocol = Protocol(
        algo=args.algo,
        env_id=args.env,
        space=load_space(args.algo, args.search_space),
        n_timesteps=args.n_timesteps or _UNKNOWN_LENGTH,
        n_seeds=args.n_seeds,
        n_evaluations=args.n_evaluations,
        n_episodes=args.eval_episodes,
        objective=args.objective,
        fixed=parse_overrides(args.hyperparams),
        from_preset=args.from_preset,
        conf_file=args.conf_file,
    )
    if args.n_timesteps is None:
        protocol = dataclasses.replace(protocol, n_timesteps=protocol.usual_length())
    return protocol


def _counts(study: Study) -> str:
    return ", ".join(f"{count} {state}" for state, count in tally(study).items()) or "no trial"


def _describe(study: Study, folder: StudyFolder) -> None:
    write_text(folder.path / "trials.csv", trials_table(study))
    save(draw_history(study), folder.path / "history.png")
    importance = draw_importance(study)
    if importance is not None:
        save(importance, folder.path / "importance.png")
    pictures = "history.png" + ", importance.png" * (importance is not None)
    say(f"the study: {folder.path}/trials.csv, {pictures}")


def _rank(args: argparse.Namespace, study: Study, folder: StudyFolder, protocol: Protocol) -> None:
    ranked = candidates(study, protocol, args.rerank, args.rerank_seeds, args.rerank_timesteps)
    n_timesteps = ranked[0].configs[0].n_timesteps
    path = folder.path / "reranking.lock"
    path.touch()
    lock = FileLock(path)
    if not lock.acquire():
        raise ConfigError(f"Another process is ranking the trials in {folder.path}; wait for it.")
    try:
        names = ", ".join(candidate.name for candidate in ranked)
        say(f"ranking again with {args.rerank_seeds} seeds, {n_timesteps} steps: {names}")
        rerank(ranked, folder.path / "reranking", n_jobs=args.jobs, say=say)
    finally:
        lock.release()
    write_text(folder.path / "ranking.csv", ranking_table(ranked))
    winner = best(ranked, protocol.objective)
    for candidate in ranked:
        mark = " ← best" if candidate is winner else ""
        say(f"{candidate.name}: {candidate.error or candidate.described()}{mark}")
    source = _source(study, protocol, ranked, winner)
    if winner.overrides is None:
        say("No trial is better than the preset, which stays as it is.")
        print(f"preset unchanged: {winner.described()}")
    else:
        entry = make_entry(protocol, winner.overrides, source, n_timesteps)
        _write(args, folder, protocol, entry)


def _source(
    study: Study, protocol: Protocol, ranked: Sequence[Candidate], winner: Candidate
) -> str:
    """Return the provenance of the winner in a line."""
    preset = next((c for c in ranked if c.name == PRESET and not c.error), None)
    config = winner.configs[0]
    versions = installed_versions()
    parts = [
        f"zoo.tune, study {study.study_name}: {_counts(study)} trials of {protocol.n_timesteps} "
        f"steps x {protocol.n_seeds} seeds ({protocol.objective} of the final returns); "
        f"{winner.name} is the best of {len(ranked)} ranked again on {len(winner.configs)} fresh "
        f"seeds x {config.n_timesteps} steps: {winner.described().replace('±', '+-')}",
    ]
    parts += [f"the preset before: {preset.described().replace('±', '+-')}"] if preset else []
    parts.append(f"natural-zoo {__version__}, mujoco {versions['mujoco']}")
    return "; ".join(parts)


def _write(
    args: argparse.Namespace, folder: StudyFolder, protocol: Protocol, entry: dict[str, Any]
) -> None:
    if args.dry_run:
        print(entry_text(protocol.env_id, entry), end="")
        return
    output = args.output or folder.path / f"{args.algo}.yml"
    original = args.output if args.output and args.output.exists() else args.conf_file
    text, sharing = replace_entry(read_file(args.algo, original), protocol.env_id, entry)
    write_text(output, text)
    if sharing:
        say(f"this entry is shared by {', '.join(sharing)}")
    print(output)


if __name__ == "__main__":
    sys.exit(main())
