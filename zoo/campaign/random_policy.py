"""What a policy of uniformly random actions returns: ``python -m zoo.campaign.random_policy``.

It is the 0 of the normalised return. ``--write`` measures anew and rewrites
``random_returns.json`` beside this file.
"""

from __future__ import annotations

import argparse
import functools
import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from hub.atomic import write_text
from hub.env_ids import MUJOCO_TASKS
from hub.gym_env import make_gym_env
from hub.seeding import FINAL_EVALUATION_SEED, evaluation_seeds
from hub.versions import installed_versions
from zoo.cli import execute, make_parser

__all__ = ["main", "measure", "random_return"]

N_EPISODES = 100
_FILE = "random_returns.json"
_ENV_IDS = [
    f"{task}-{version}"
    for task in MUJOCO_TASKS
    for version in ("v4", "v5")
    if (task, version) != ("Pusher", "v4")  # needs mujoco<3
]


def random_return(env_id: str) -> float | None:
    """Return the measured mean return of random actions, None for a task that was not measured."""
    returns: dict[str, float] = _measured()["mean_return"]
    return returns.get(env_id.rpartition(":")[2])


def measure(env_id: str, n_episodes: int = N_EPISODES) -> list[float]:
    """Return the returns of ``n_episodes`` episodes, those of the final evaluation.

    The actions of an episode are drawn from the action space with the episode's own seed.
    """
    env = make_gym_env(env_id, {})
    try:
        seeds = evaluation_seeds(FINAL_EVALUATION_SEED, n_episodes)
        return [_play(env, seed) for seed in seeds]
    finally:
        env.close()


def _play(env: gym.Env[Any, Any], seed: int) -> float:
    env.reset(seed=seed)
    env.action_space.seed(seed)
    total, ended = 0.0, False
    while not ended:
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total += float(reward)
        ended = terminated or truncated
    return total


@functools.cache
def _measured() -> dict[str, Any]:
    text = importlib.resources.files("zoo.campaign").joinpath(_FILE).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def _run(args: argparse.Namespace) -> None:
    means = {}
    for env_id in _ENV_IDS:
        returns = measure(env_id)
        means[env_id] = float(np.mean(returns))
        print(f"{env_id:<28}{means[env_id]:>12.2f} ± {np.std(returns):.2f}", flush=True)
    if args.write:
        content = {
            "what": f"mean return of uniformly random actions over {N_EPISODES} episodes",
            "evaluation_seed": FINAL_EVALUATION_SEED,
            "versions": installed_versions(),
            "mean_return": means,
        }
        write_text(Path(__file__).parent / _FILE, json.dumps(content, indent=1) + "\n")
        print(f"wrote {_FILE}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all tasks; returns the exit code."""
    parser = make_parser(
        "campaign.random_policy",
        "Measure what random actions return on each MuJoCo task.",
        "example:\n  python -m zoo.campaign.random_policy --write",
    )
    parser.add_argument("--write", action="store_true", help=f"rewrite {_FILE}")
    return execute(parser, _run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
