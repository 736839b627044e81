"""``python -m zoo.train``: train an agent, save everything about it, and evaluate it."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from agents.registry import algorithm_names
from hub.atomic import write_text
from hub.command_line import add_gym_packages
from hub.gym_env import import_package
from hub.runtime import OnnxPolicy
from hub.seeding import FINAL_EVALUATION_SEED, evaluation_seeds
from zoo.callbacks import model_actor
from zoo.cli import execute, make_parser, say, step_count, step_period
from zoo.envs import BACKENDS
from zoo.evaluation import Evaluation, evaluate, evaluation_report, one_by_one, report_json
from zoo.logs import TrackingOptions
from zoo.progress_bar import progress_bar
from zoo.published_evaluation import FLOAT64
from zoo.run_bundle import RunBundle, complete_run_bundle, write_run_bundle
from zoo.run_setup import RunSetup, resume_run, start_run
from zoo.runs import RunFolder
from zoo.training import Interrupted, Training, prepare

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), lambda args: _run(args, argv), argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("train", "Train an agent and evaluate it.", _EXAMPLES)
    what = parser.add_argument_group("what to train")
    what.add_argument("--algo", metavar="NAME", help=f"one of {', '.join(algorithm_names())}")
    what.add_argument("--env", metavar="ID", help="Gymnasium id, such as Walker2d-v4")
    what.add_argument(
        "-n",
        "--n-timesteps",
        type=step_count,
        metavar="N",
        help="environment steps (default: tuned)",
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
    add_gym_packages(what)
    _add_machine_options(parser)
    _add_output_options(parser)
    return parser


def _add_machine_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how to run")
    how.add_argument(
        "--vec-env",
        metavar="NAME",
        help=f"{', '.join(BACKENDS)} (default auto: mujoco for MuJoCo tasks, else dummy)",
    )
    how.add_argument("--n-envs", type=int, metavar="N", help="parallel environments")
    how.add_argument("--num-threads", type=int, metavar="N", help="threads of torch (default 1)")
    how.add_argument(
        "--env-threads",
        type=int,
        metavar="N",
        help="threads that step environments (default: as many cores as pay)",
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
        "--eval-freq",
        type=step_period,
        metavar="N",
        help="steps between evaluations; 0 for none (default: a twentieth of the training)",
    )
    out.add_argument(
        "--log-interval", type=step_period, metavar="N", help="updates between two log rows"
    )
    out.add_argument("--eval-episodes", type=int, metavar="N", help="episodes per evaluation")
    out.add_argument(
        "--save-freq",
        type=step_period,
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


def _run(args: argparse.Namespace, argv: Sequence[str] | None) -> None:
    for module in args.gym_packages:
        import_package(module)
    with ExitStack() as stack:
        setup = resume_run(args, stack) if args.resume else None
        if setup is None:
            setup = start_run(args, argv, stack)
        _train_and_evaluate(setup, args)


def _train_and_evaluate(setup: RunSetup, args: argparse.Namespace) -> None:
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
        say(f"{config.algo} on {config.env_id}, seed {config.seed}: {run.path}")
        if not setup.is_new:
            reached = training.model.num_timesteps
            say(f"resuming after {reached} steps" if reached else "no checkpoint: starting over")
        try:
            training.learn(progress=progress)
            written = _write_bundle(training)
            evaluation = _final_evaluation(training, written, progress)
        except Interrupted as stopped:
            if stopped.is_final:
                _write_bundle(training)
            say(f"Stopped; {_saved(stopped.checkpoint)}")
            say(f"To go on: {_resume_command(run, args)}")
            raise KeyboardInterrupt from stopped
        except KeyboardInterrupt:
            say(f"To go on from what was saved: {_resume_command(run, args)}")
            raise
    n_timesteps = training.model.num_timesteps
    report = evaluation_report(
        evaluation,
        algo=config.algo,
        env_id=config.env_id,
        env_kwargs=config.env_kwargs,
        training_seed=config.seed,
        num_timesteps=n_timesteps,
        deterministic=True,
        played_with=FLOAT64 if written.has_float64 else "torch",
        **({} if written.problem is None else {"problem": written.problem}),
    )
    complete_run_bundle(written, config, report)
    # Last: a run with a final evaluation is finished.
    write_text(run.final_evaluation, report_json(report))
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


def _write_bundle(training: Training) -> RunBundle:
    written = write_run_bundle(training.model, training.config, training.run)
    if written.problem is not None:
        say(f"warning: {training.run.path}: {written.problem}")
    return written


def _final_evaluation(training: Training, written: RunBundle, progress: bool) -> Evaluation:
    """Play the final episodes with the float64 ONNX file, from which everyone can repeat them."""
    config = training.config
    if written.has_float64:
        actor = one_by_one(OnnxPolicy(training.run.bundle, float64=True, check_range=False))
    else:
        actor = model_actor(training.model)
    with ExitStack() as stack:
        bar = None
        if progress:
            bar = stack.enter_context(progress_bar(N_FINAL_EPISODES, "evaluating", "episode"))
        return evaluate(
            actor,
            config.env_id,
            seeds=evaluation_seeds(FINAL_EVALUATION_SEED, N_FINAL_EPISODES),
            n_envs=1,  # one after the other, so that the first k are the first k for everyone
            env_kwargs=config.env_kwargs,
            on_episode=bar.update if bar is not None else None,
        )


if __name__ == "__main__":
    sys.exit(main())
