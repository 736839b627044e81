"""What ``zoo.train`` is asked for, resolved: a new run, or one to go on with."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from agents.errors import ConfigError, RunFolderError
from agents.registry import algorithm_class
from hub.atomic import write_text
from hub.env_ids import check_env_id
from hub.seeding import evaluation_seeds
from zoo.cli import say
from zoo.config import RunConfig, resolve_config
from zoo.envs import choose_backend, parity_note
from zoo.hyperparameters import RUN_KEYS, resolve_hyperparameters
from zoo.presets import parse_overrides
from zoo.runs import RunFolder, create_run_folder, load_config, run_folders
from zoo.segments import Resumption
from zoo.training import find_resumption

__all__ = ["RunSetup", "resume_run", "start_run"]

_ALIASES = {"num_threads": "n_threads", "eval_episodes": "n_eval_episodes", "env": "env_id"}


@dataclass(frozen=True)
class RunSetup:
    """What is to be trained and where; the run folder is locked."""

    config: RunConfig
    run: RunFolder
    resumption: Resumption | None = None
    is_new: bool = False


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


def start_run(args: argparse.Namespace, argv: Sequence[str] | None, stack: ExitStack) -> RunSetup:
    """Resolve the configuration and make the run folder."""
    if not args.algo or not args.env:
        raise ConfigError("--algo and --env are needed, such as --algo npg --env Walker2d-v4.")
    algorithm_class(args.algo)
    check_env_id(args.env)
    config = _resolve(args)
    backend = choose_backend(config.vec_env, config.env_id)
    note = parity_note(config.env_id)
    if backend == "envpool" and note:
        say(f"warning: {note}")
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
    return RunSetup(config, run, is_new=True)


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
        "seed": args.seed,
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


def resume_run(args: argparse.Namespace, stack: ExitStack) -> RunSetup | None:
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
    return RunSetup(config, run, resumption)


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


def _command(argv: Sequence[str] | None, args: argparse.Namespace, config: RunConfig) -> str:
    """Return what was typed, with the seed that was chosen: typing it again repeats the run."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if args.seed is None:
        arguments += ["--seed", str(config.seed)]
    return shlex.join(["python", "-m", "zoo.train", *arguments])
