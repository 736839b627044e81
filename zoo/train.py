"""``python -m zoo.train``: train an agent, save everything about it, and evaluate it."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from agents.errors import ConfigError, RunFolderError
from agents.registry import algorithm_class, algorithm_names
from zoo.atomic import write_text
from zoo.callbacks import FINAL_EVALUATION_SEED, evaluate_model, progress_bar
from zoo.cli import execute, make_parser
from zoo.config import RunConfig, resolve_config
from zoo.env_ids import check_env_id
from zoo.envs import BACKENDS, choose_backend, parity_note
from zoo.evaluation import Evaluation, save_evaluation
from zoo.hyperparameters import RUN_KEYS, parse_overrides, resolve_hyperparameters
from zoo.logs import TrackingOptions
from zoo.runs import RunFolder, create_run_folder, load_config, run_folders
from zoo.seeding import check_seed, evaluation_seeds
from zoo.segments import Resumption
from zoo.training import Interrupted, Training, find_resumption, prepare

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
_ALIASES = {"num_threads": "n_threads", "eval_episodes": "n_eval_episodes", "env": "env_id"}
_NEVER = -1


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
    what.add_argument(
        "--gym-packages",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules to import that register environments",
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
        "--resume",
        metavar="RUN",
        help="go on with a run folder; 'auto' takes the newest run with the settings that are "
        "given, and starts a new one if there is none or it is finished",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    out = parser.add_argument_group("what to save and show")
    out.add_argument(
        "-f", "--log-folder", type=Path, default=Path("logs"), metavar="DIR", help="default: logs"
    )
    out.add_argument(
        "--eval-freq", type=_period, metavar="N", help="steps between evaluations; 0 for none"
    )
    out.add_argument(
        "--log-interval", type=_period, metavar="N", help="updates between two log rows"
    )
    out.add_argument("--eval-episodes", type=int, metavar="N", help="episodes per evaluation")
    out.add_argument(
        "--save-freq",
        type=_period,
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
    """Parse a number of steps above 0: ``1000000``, ``1_000_000`` or ``1e6``."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1; type for example 1e6")
    return value


def _period(text: str) -> int:
    """Parse a number of steps, 0 for never (-1 in RL Zoo)."""
    value = _whole(text)
    if value < _NEVER:
        raise argparse.ArgumentTypeError(f"{text} is negative; 0 stands for never")
    return max(value, 0)


def _whole(text: str) -> int:
    try:
        value = float(text.replace("_", ""))
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, such as 50000 or 1e6")


def _run(args: argparse.Namespace, argv: Sequence[str] | None) -> None:
    for module in args.gym_packages:
        _import_package(module)
    with ExitStack() as stack:
        setup = _resume(args, stack) if args.resume else None
        if setup is None:
            setup = _start(args, argv, stack)
        _train_and_evaluate(setup, args)


def _train_and_evaluate(setup: _Setup, args: argparse.Namespace) -> None:
    config, run = setup.config, setup.run
    tracking = TrackingOptions(
        tensorboard_log=args.tensorboard_log,
        track=args.track,
        wandb_project=args.wandb_project_name,
        wandb_entity=args.wandb_entity,
        verbose=args.verbose,
    )
    progress = not args.no_progress
    with ExitStack() as stack:
        try:
            prepared = prepare(config, run, resumption=setup.resumption, tracking=tracking)
            training = stack.enter_context(prepared)
        except BaseException:
            if setup.is_new:
                run.remove()
            raise
        _say(f"{config.algo} on {config.env_id}, seed {config.seed}: {run.path}")
        if not setup.is_new:
            reached = training.model.num_timesteps
            _say(f"resuming after {reached} steps" if reached else "no checkpoint: starting over")
        try:
            training.learn(progress=progress)
            evaluation = _final_evaluation(training, progress)
        except Interrupted as stopped:
            _say(f"Stopped; {_saved(stopped.checkpoint)}")
            _say(f"To go on: {_resume_command(run, args)}")
            raise KeyboardInterrupt from stopped
        except KeyboardInterrupt:
            _say(f"To go on from what was saved: {_resume_command(run, args)}")
            raise
    n_timesteps = training.model.num_timesteps
    save_evaluation(
        run.final_evaluation,
        evaluation,
        algo=config.algo,
        env_id=config.env_id,
        env_kwargs=config.env_kwargs,
        training_seed=config.seed,
        num_timesteps=n_timesteps,
        deterministic=True,
    )
    print(
        f"{config.algo} {config.env_id} seed {config.seed}: "
        f"return {evaluation.mean_return:.2f} ± {evaluation.std_return:.2f} "
        f"over {len(evaluation.returns)} episodes after {n_timesteps} steps ({run.path})"
    )


def _saved(checkpoint: Path | None) -> str:
    return f"saved {checkpoint}." if checkpoint else "nothing had been learnt yet."


def _resume_command(run: RunFolder, args: argparse.Namespace) -> str:
    """Return what to type to go on, with the options that a run folder does not hold."""
    words = ["python", "-m", "zoo.train", "--resume", str(run.path)]
    if args.tensorboard_log is not None:
        words += ["--tensorboard-log", str(args.tensorboard_log)]
    if args.track:
        words += ["--track", "--wandb-project-name", args.wandb_project_name]
    if args.wandb_entity is not None:
        words += ["--wandb-entity", args.wandb_entity]
    return shlex.join(words)


def _import_package(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:  # a module may raise anything
        raise ConfigError(
            f"--gym-packages {module} cannot be imported ({type(error).__name__}: {error}). "
            "Install it, or run from the folder that holds it."
        ) from error


def _qualified(env_id: str, packages: Sequence[str]) -> str:
    """Return ``module:Name-v0`` for an environment that one of ``packages`` registers.

    Under that name every process can make it, also those of ``--vec-env subproc`` and of the
    commands that use the agent later.
    """
    spec = gymnasium.registry.get(env_id)
    if spec is None or not packages:
        return env_id
    owner = getattr(spec.entry_point, "__module__", None) or str(spec.entry_point).split(":")[0]
    root = owner.split(".")[0]
    if root == "gymnasium":
        return env_id
    same_root = [name for name in packages if name.split(".")[0] == root]
    return f"{(same_root or list(packages))[0]}:{env_id}"


@dataclass(frozen=True)
class _Setup:
    """What is to be trained and where; the run folder is locked."""

    config: RunConfig
    run: RunFolder
    resumption: Resumption | None = None
    is_new: bool = False


def _start(args: argparse.Namespace, argv: Sequence[str] | None, stack: ExitStack) -> _Setup:
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
    config = dataclasses.replace(
        config, vec_env=backend, env_id=_qualified(config.env_id, args.gym_packages)
    )
    run = create_run_folder(args.log_folder, config.algo, config.env_id)
    try:
        stack.enter_context(run.locked())
        write_text(run.command, _command(argv, args, config) + "\n")
        write_text(run.config, config.to_yaml())
    except BaseException:
        run.remove()
        raise
    return _Setup(config, run, is_new=True)


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
        "log_interval": args.log_interval,
        "device": args.device,
        "seed": None if args.seed is None else check_seed(args.seed),
    }
    overrides = [*args.hyperparams, *(f"env_kwargs.{pair}" for pair in args.env_kwargs)]
    config = resolve_config(
        args.algo,
        args.env,
        overrides=overrides,
        conf_file=args.conf_file,
        untuned=args.untuned,
        **{key: value for key, value in given.items() if value is not None},
    )
    evaluation_seeds(0, config.n_eval_episodes)  # too many are refused before training
    return config


def _resume(args: argparse.Namespace, stack: ExitStack) -> _Setup | None:
    """Find the run to go on with and the state it had reached; None for a new run."""
    if args.resume == "auto":
        found = _newest_run(args, stack)
        if found is None:
            return None
        run, config = found
    else:
        run = RunFolder.open(Path(args.resume))
        config = load_config(run)
        if difference := _difference(args, config):
            raise ConfigError(
                f"{difference}, and a resumed run goes on with its own settings. Leave the option "
                "out, or start a new run without --resume."
            )
        stack.enter_context(run.locked())
    run.remove_temporary_files()
    resumption = find_resumption(run)
    reached = resumption.state.num_timesteps if resumption else 0
    n_timesteps = args.n_timesteps or config.n_timesteps
    if (run.finished_timesteps() or 0) >= n_timesteps:
        raise RunFolderError(
            f"{run.path} is finished after {reached} steps; to train it longer, add "
            f"--n-timesteps {2 * max(reached, 1)}."
        )
    if n_timesteps != config.n_timesteps:
        if n_timesteps <= reached:
            raise ConfigError(
                f"{run.path} has already trained {reached} steps; give a larger --n-timesteps."
            )
        config = dataclasses.replace(config, n_timesteps=n_timesteps)
        write_text(run.config, config.to_yaml())
    return _Setup(config, run, resumption)


def _newest_run(args: argparse.Namespace, stack: ExitStack) -> tuple[RunFolder, RunConfig] | None:
    """Return the newest run with the settings that were given, if it is neither finished nor
    trained by another process.
    """
    if not args.algo or not args.env:
        raise ConfigError("--resume auto needs --algo and --env to find the newest run.")
    algorithm_class(args.algo)
    check_env_id(args.env)
    for run in run_folders(args.log_folder, args.algo, args.env):
        config = load_config(run)
        if _difference(args, config):
            continue
        try:
            stack.enter_context(run.locked())
        except RunFolderError:
            continue
        wanted = args.n_timesteps or config.n_timesteps
        return None if (run.finished_timesteps() or 0) >= wanted else (run, config)
    return None


def _difference(args: argparse.Namespace, config: RunConfig) -> str | None:
    """Return how the options that were given differ from a run's settings, None if they agree."""
    recorded = dataclasses.asdict(config) | {"env_id": config.env_id.rpartition(":")[2]}
    given = {
        name: getattr(args, name)
        for name in ("algo", "seed", "n_envs", "num_threads", "env_threads", "eval_episodes")
    }
    given["env"] = None if args.env is None else args.env.rpartition(":")[2]
    given |= {name: getattr(args, name) for name in ("vec_env", "device")}
    for name, value in given.items():
        own = recorded[_ALIASES.get(name, name)]
        if value not in (None, "auto", own):
            return f"--{name.replace('_', '-')} {value} differs from the run's {own}"
    for name in ("eval_freq", "save_freq", "log_interval"):
        value = getattr(args, name)
        if value is not None and (value or None) != recorded[name]:
            return f"--{name.replace('_', '-')} {value} differs from the run's {recorded[name]}"
    return _difference_of_hyperparameters(args, config)


def _difference_of_hyperparameters(args: argparse.Namespace, config: RunConfig) -> str | None:
    pairs = parse_overrides([*args.hyperparams, *(f"env_kwargs.{p}" for p in args.env_kwargs)])
    if not (pairs or args.conf_file or args.untuned):
        return None
    env_id = config.env_id.rpartition(":")[2]
    if args.conf_file or args.untuned:
        resolve = functools.partial(
            resolve_hyperparameters, conf_file=args.conf_file, untuned=args.untuned
        )
        base, changed = {}, pairs
    else:
        # The run's own settings as the entry, the given ones on top: nothing may move.
        own = dataclasses.asdict(config)
        own = {key: own[key] for key in RUN_KEYS} | own["agent"]
        resolve = functools.partial(resolve_hyperparameters, untuned=True)
        base, changed = own, pairs
    tuned = resolve(config.algo, env_id, overrides={**base, **changed})
    for name in ("policy", "n_envs", "normalize", "env_kwargs", "agent"):
        if getattr(tuned, name) != getattr(config, name):
            if name == "n_envs" and args.n_envs is not None:
                continue
            options = [*args.hyperparams, *args.env_kwargs] or ["the file's entry"]
            return f"{' '.join(options)} differs from what the run was started with ({name})"
    return None


def _final_evaluation(training: Training, progress: bool) -> Evaluation:
    with ExitStack() as stack:
        bar = None
        if progress:
            bar = stack.enter_context(progress_bar(N_FINAL_EPISODES, "evaluating", "episode"))
        return evaluate_model(
            training.model,
            training.config,
            seed=FINAL_EVALUATION_SEED,
            n_episodes=N_FINAL_EPISODES,
            on_episode=bar.update if bar is not None else None,
        )


def _command(argv: Sequence[str] | None, args: argparse.Namespace, config: RunConfig) -> str:
    """Return what was typed, with the seed that was chosen: typing it again repeats the run."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if args.seed is None:
        arguments += ["--seed", str(config.seed)]
    return shlex.join(["python", "-m", "zoo.train", *arguments])


def _say(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
