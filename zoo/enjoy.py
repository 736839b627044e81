"""``python -m zoo.enjoy``: watch a trained agent in a window, at the speed of the simulation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from hub.episodes import play_episode
from hub.gym_env import make_gym_env
from hub.rendering import drawing_errors, make_drawn_env, require_display
from hub.seeding import evaluation_seeds
from hub.window import Window, WindowClosed
from zoo.cli import execute, make_parser
from zoo.trained import TrainedAgent, add_agent_arguments, load_trained

__all__ = ["main"]

_EXAMPLES = """\
examples:
  python -m zoo.enjoy logs/npg/Walker2d-v4_1
  python -m zoo.enjoy logs/npg/Walker2d-v4_1 --checkpoint best --episodes 1
  python -m zoo.enjoy logs/npg/Walker2d-v4_1 --no-render --episodes 20

Escape, closing the window or Ctrl-C ends it; the last line counts the episodes played to their end.
Without a display: python -m zoo.record AGENT -o replay.mp4
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return execute(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("enjoy", "Watch a trained agent in a window.", _EXAMPLES)
    add_agent_arguments(parser, n_episodes=5)
    parser.add_argument(
        "--no-render", action="store_true", help="no window and no waiting, only the returns"
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    seeds = evaluation_seeds(args.seed, args.episodes)
    with drawing_errors():
        agent = load_trained(args.agent, args.checkpoint, packages=args.gym_packages)
    if not args.no_render:
        require_display(args.agent)
    torch.set_num_threads(agent.n_threads)
    torch.manual_seed(seeds[0])
    if args.no_render:
        env = make_gym_env(agent.env_id, agent.env_kwargs)
    else:
        env = make_drawn_env(agent.env_id, agent.env_kwargs, "human")
    returns: list[float] = []
    try:
        _play(agent, env, seeds, returns, window=not args.no_render, stochastic=args.stochastic)
    except WindowClosed:
        print("The window was closed.", file=sys.stderr)
    finally:
        env.close()
        if returns:
            print(_summary(returns))


def _play(
    agent: TrainedAgent,
    env: gym.Env[Any, Any],
    seeds: Sequence[int],
    returns: list[float],
    *,
    window: bool,
    stochastic: bool,
) -> None:
    """Play the episodes, adding to ``returns`` so that an interrupted visit keeps its episodes."""
    on_frame: Callable[[], object] = Window(env) if window else lambda: None
    for number, seed in enumerate(seeds, start=1):
        act = agent.single_actor(deterministic=not stochastic)
        with drawing_errors():
            episode = play_episode(env, act, seed, on_frame=on_frame)
        returns.append(episode.episode_return)
        print(
            f"episode {number}: return {episode.episode_return:.2f}, {episode.length} steps",
            flush=True,
        )


def _summary(returns: Sequence[float]) -> str:
    plural = "s" if len(returns) > 1 else ""
    return (
        f"return {np.mean(returns):.2f} ± {np.std(returns):.2f} over {len(returns)} episode{plural}"
    )


if __name__ == "__main__":
    sys.exit(main())
