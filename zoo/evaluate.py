"""``python -m zoo.evaluate``: score a trained agent on Gymnasium."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from agents.errors import ConfigError
from hub.atomic import write_text
from hub.seeding import evaluation_seeds
from zoo.cli import execute, make_parser
from zoo.evaluation import evaluate, evaluation_report, report_json
from zoo.trained import add_agent_arguments, load_trained

__all__ = ["main"]

_EXAMPLES = """\
examples:
  python -m zoo.evaluate logs/npg/Walker2d-v4_1
  python -m zoo.evaluate logs/npg/Walker2d-v4_1 --checkpoint best --episodes 20
  python -m zoo.evaluate logs/npg/Walker2d-v4_1 --stochastic --json > episodes.json

Episode i of --seed S is reset with Gymnasium seed 2^31 + 1000000·S + i; training seeds are below
2^31. With --seed 0 and 100 episodes it is the evaluation that ended the training, to the last
digit: deterministic episodes are played with the agent's float64 ONNX file, one observation at a
time.
"""
_N_ENVS = 10
"""With --stochastic, where torch acts: ten at a time take little longer than one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("evaluate", "Score a trained agent on Gymnasium.", _EXAMPLES)
    add_agent_arguments(parser, n_episodes=100)
    parser.add_argument(
        "--n-envs",
        type=int,
        metavar="N",
        help=f"side by side (default 1, with --stochastic {_N_ENVS})",
    )
    parser.add_argument("--json", action="store_true", help="print every episode as JSON")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write that JSON to FILE")
    parser.add_argument("-P", "--no-progress", action="store_true", help="no progress bar")
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.n_envs is not None and args.n_envs < 1:
        raise ConfigError(f"--n-envs {args.n_envs} must be at least 1; leave it out for one.")
    seeds = evaluation_seeds(args.seed, args.episodes)
    agent = load_trained(args.agent, args.checkpoint, packages=args.gym_packages)
    torch.set_num_threads(agent.n_threads)
    torch.manual_seed(seeds[0])  # a stochastic evaluation repeats itself, too
    actor = agent.actor(deterministic=not args.stochastic)
    with tqdm(
        total=len(seeds),
        desc="evaluating",
        unit="episode",
        disable=args.no_progress,
        file=sys.stderr,
        dynamic_ncols=True,
    ) as bar:
        evaluation = evaluate(
            actor,
            agent.env_id,
            seeds=seeds,
            n_envs=args.n_envs or (_N_ENVS if args.stochastic else 1),
            env_kwargs=agent.env_kwargs,
            on_episode=bar.update,
        )
    report = evaluation_report(
        evaluation,
        algo=agent.algo,
        env_id=agent.env_id,
        env_kwargs=agent.env_kwargs,
        training_seed=agent.training_seed,
        num_timesteps=agent.n_timesteps,
        deterministic=not args.stochastic,
        played_with="torch" if args.stochastic or agent.exact is None else agent.exact.path.name,
    )
    text = report_json(report)
    if args.output:
        write_text(args.output, text)
    if args.json:
        print(text, end="")
        return
    steps = "" if agent.n_timesteps is None else f" after {agent.n_timesteps} steps"
    print(
        f"{agent.algo} {agent.env_id}{steps}: "
        f"return {evaluation.mean_return:.2f} ± {evaluation.std_return:.2f} "
        f"over {len(seeds)} {'stochastic' if args.stochastic else 'deterministic'} episodes, "
        f"mean length {sum(evaluation.lengths) / len(seeds):.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
