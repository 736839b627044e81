"""``python -m zoo.train``: train an agent, save everything about it, and evaluate it."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from tqdm import tqdm

from agents.errors import ConfigError, RunFolderError
from agents.registry import algorithm_class, algorithm_names
from zoo.atomic import write_text
from zoo.callbacks import evaluate_model
from zoo.cli import execute, make_parser
from zoo.config import RunConfig, resolve_config
from zoo.env_ids import check_env_id
from zoo.envs import BACKENDS, choose_backend, parity_note
from zoo.evaluation import Evaluation, save_evaluation
from zoo.logs import TrackingOptions
from zoo.runs import RunFolder, create_run_folder, latest_run_folder
from zoo.seeding import check_seed
from zoo.training import Interrupted, Resumption, find_resumption, train

__all__ = ["main"]

N_FINAL_EPISODES = 100
_EXAMPLES = """\
examples:
  python -m zoo.train --algo npg --env Walker2d-v4
  python -m zoo.train --algo trpo --env Hopper-v5 --seed 3 -n 2e6 --hyperparams target_kl=0.01
  python -m zoo.train --algo npg --env Ant-v4 -tb tensorboard
  python -m zoo.train --resume logs/npg/Walker2d-v4_1
  python -m zoo.train --resume auto --algo npg --env Walker2d-v4

Everything about the run lands in logs/ALGO/ENV_k: agents with their normalisers, checkpoints,
the learning curve and the configuration. The last line printed is the final evaluation:
100 deterministic episodes on Gymnasium with seeds that training never uses.
"""
# Settings of a run that a resumed one takes from its own config.yml.
_FIXED_ON_RESUME = (
    "seed",
    "hyperparams",
    "conf_file",
    "vec_env",
    "n_envs",
    "num_threads",
    "env_threads",
    "device",
    "env_kwargs",
    "eval_freq",
    "eval_episodes",
    "save_freq",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), lambda args: _run(args, argv), argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("train", "Train an agent and evaluate it.", _EXAMPLES)
    what = parser.add_argument_group("what to train")
    what.add_argument("--algo", metavar="NAME", help=f"one of {', '.join(algorithm_names())}")
    what.add_argument("--env", metavar="ID", help="Gymnasium id, such as Walker2d-v4")
    what.add_argument(
        "-n", "--n-timesteps", type=_count, metavar="N", help="environment steps (default: tuned)"
    )
    what.add_argument("--seed", type=int, metavar="N", help="default: a random one, recorded")
    what.add_argument(
        "-params",
        "--hyperparams",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override hyperparameters; dots reach inside, as in policy_kwargs.log_std_init=-1",
    )
    what.add_argument(
        "-conf", "--conf-file", type=Path, metavar="FILE", help="YAML file of hyperparameters"
    )
    what.add_argument(
        "--untuned", action="store_true", help="train with the defaults if there is no tuned entry"
    )
    what.add_argument(
        "--env-kwargs", nargs="+", default=[], metavar="KEY=VALUE", help="environment arguments"
    )
    _add_machine_options(parser)
    _add_output_options(parser)
    return parser


def _add_machine_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how to run")
    how.add_argument(
        "--vec-env",
        metavar="NAME",
        help=f"{', '.join(BACKENDS)} (default auto: EnvPool where it equals Gymnasium)",
    )
    how.add_argument("--n-envs", type=int, metavar="N", help="parallel environments")
    how.add_argument("--num-threads", type=int, metavar="N", help="threads of torch (default 1)")
    how.add_argument(
        "--env-threads", type=int, metavar="N", help="threads of EnvPool (default: one per core)"
    )
    how.add_argument("--device", metavar="NAME", help="auto, cpu or cuda (default auto)")
    how.add_argument(
        "--resume", metavar="RUN", help="go on with a run folder, or 'auto' for the newest one"
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    out = parser.add_argument_group("what to save and show")
    out.add_argument(
        "-f", "--log-folder", type=Path, default=Path("logs"), metavar="DIR", help="default: logs"
    )
    out.add_argument(
        "--eval-freq", type=_count, metavar="N", help="steps between evaluations; 0 for none"
    )
    out.add_argument("--eval-episodes", type=int, metavar="N", help="episodes per evaluation")
    out.add_argument(
        "--save-freq",
        type=_count,
        metavar="N",
        help="steps between checkpoints; 0 for none. Environments are reset at a checkpoint, so "
        "that a resumed run equals an uninterrupted one",
    )
    out.add_argument("-P", "--no-progress", action="store_true", help="no progress bar")
    out.add_argument("--verbose", action="store_true", help="print metrics to standard error")
    out.add_argument(
        "-tb", "--tensorboard-log", type=Path, metavar="DIR", help="write TensorBoard events"
    )
    out.add_argument("--track", action="store_true", help="log to Weights & Biases")
    out.add_argument("--wandb-project-name", default="natural-zoo", metavar="NAME")
    out.add_argument("--wandb-entity", metavar="NAME")


def _count(text: str) -> int:
    """Parse a number of steps: ``1000000``, ``1_000_000`` or ``1e6``."""
    value = float(text.replace("_", ""))
    if value != int(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of steps")
    return int(value)


def _run(args: argparse.Namespace, argv: Sequence[str] | None) -> None:
    config, run, resumption = _resume(args) if args.resume else _start(args, argv)
    tracking = TrackingOptions(
        tensorboard_log=args.tensorboard_log,
        track=args.track,
        wandb_project=args.wandb_project_name,
        wandb_entity=args.wandb_entity,
        verbose=args.verbose,
    )
    progress = not args.no_progress
    _say(f"{config.algo} on {config.env_id}, seed {config.seed}: {run.path}")
    try:
        with train(
            config, run, resumption=resumption, tracking=tracking, progress=progress
        ) as model:
            evaluation = _final_evaluation(model, config, progress)
    except Interrupted as stopped:
        _say(f"Stopped; saved {stopped.checkpoint}.")
        _say(f"To go on: python -m zoo.train --resume {shlex.quote(str(run.path))}")
        raise KeyboardInterrupt from stopped
    save_evaluation(
        run.final_evaluation,
        evaluation,
        algo=config.algo,
        env_id=config.env_id,
        training_seed=config.seed,
        num_timesteps=model.num_timesteps,
        deterministic=True,
    )
    print(
        f"{config.algo} {config.env_id} seed {config.seed}: "
        f"return {evaluation.mean_return:.2f} ± {evaluation.std_return:.2f} "
        f"over {len(evaluation.returns)} episodes after {model.num_timesteps} steps ({run.path})"
    )


def _start(
    args: argparse.Namespace, argv: Sequence[str] | None
) -> tuple[RunConfig, RunFolder, Resumption | None]:
    """Resolve the configuration and make the run folder."""
    if not args.algo or not args.env:
        raise ConfigError("--algo and --env are needed, such as --algo npg --env Walker2d-v4.")
    algorithm_class(args.algo)
    check_env_id(args.env)
    config = _resolve(args)
    backend = choose_backend(config.vec_env, config.env_id, config.env_kwargs, config.n_envs)
    note = parity_note(config.env_id)
    if backend == "envpool" and note:
        _say(f"warning: {note}")
    config = dataclasses.replace(config, vec_env=backend)
    run = create_run_folder(args.log_folder, config.algo, config.env_id)
    write_text(run.config, config.to_yaml())
    write_text(run.command, _command(argv) + "\n")
    return config, run, None


def _resolve(args: argparse.Namespace) -> RunConfig:
    given: dict[str, Any] = {
        "n_timesteps": args.n_timesteps,
        "n_envs": args.n_envs,
        "vec_env": args.vec_env or "auto",
        "n_threads": args.num_threads,
        "env_threads": args.env_threads,
        "eval_freq": args.eval_freq,
        "n_eval_episodes": args.eval_episodes,
        "save_freq": args.save_freq,
        "device": args.device,
        "seed": None if args.seed is None else check_seed(args.seed),
    }
    overrides = [*args.hyperparams, *(f"env_kwargs.{pair}" for pair in args.env_kwargs)]
    return resolve_config(
        args.algo,
        args.env,
        overrides=overrides,
        conf_file=args.conf_file,
        untuned=args.untuned,
        **{key: value for key, value in given.items() if value is not None},
    )


def _resume(args: argparse.Namespace) -> tuple[RunConfig, RunFolder, Resumption | None]:
    """Find the run to go on with and the state it had reached."""
    for name in _FIXED_ON_RESUME:
        if getattr(args, name):
            flag = "--" + name.replace("_", "-")
            raise ConfigError(
                f"{flag} cannot change on --resume: the run goes on with its own config.yml. "
                f"Leave {flag} out, or start a new run."
            )
    run = _run_to_resume(args)
    if run is None:
        return _start(args, None)
    config = RunConfig.from_yaml(run.config.read_text(), str(run.config))
    resumption = find_resumption(run)
    reached = resumption.state.num_timesteps if resumption else 0
    if args.n_timesteps is not None and args.n_timesteps != config.n_timesteps:
        if args.n_timesteps <= reached:
            raise ConfigError(
                f"{run.path} has already trained {reached} steps; give a larger --n-timesteps."
            )
        config = dataclasses.replace(config, n_timesteps=args.n_timesteps)
        write_text(run.config, config.to_yaml())
    elif run.final_evaluation.is_file():
        raise RunFolderError(
            f"{run.path} is finished after {reached} steps; to train it longer, add "
            f"--n-timesteps {2 * max(reached, 1)}."
        )
    _say(f"resuming after {reached} steps" if reached else "no checkpoint yet: starting over")
    return config, run, resumption


def _run_to_resume(args: argparse.Namespace) -> RunFolder | None:
    if args.resume != "auto":
        return RunFolder.open(Path(args.resume))
    if not args.algo or not args.env:
        raise ConfigError("--resume auto needs --algo and --env to find the newest run.")
    run = latest_run_folder(args.log_folder, args.algo, args.env)
    return None if run is None or run.final_evaluation.is_file() else run


def _final_evaluation(model: BaseAlgorithm, config: RunConfig, progress: bool) -> Evaluation:
    with tqdm(
        total=N_FINAL_EPISODES,
        desc="evaluating",
        unit="episode",
        disable=not progress,
        file=sys.stderr,
        dynamic_ncols=True,
    ) as bar:
        return evaluate_model(
            model, config, seed=0, n_episodes=N_FINAL_EPISODES, on_episode=bar.update
        )


def _command(argv: Sequence[str] | None) -> str:
    arguments = sys.argv[1:] if argv is None else argv
    return shlex.join(["python", "-m", "zoo.train", *arguments])


def _say(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
