"""Loading a trained agent from a run folder, ready to act."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage

from agents.errors import ConfigError, RunFolderError
from agents.registry import algorithm_class
from hub.gym_env import make_gym_env
from hub.normalizer import Normalizer
from zoo.agent_file import load_agent_file
from zoo.config import RunConfig
from zoo.evaluation import Actor, policy_actor
from zoo.runs import RunFolder, load_config

# Rows in a batch of `zoo.evaluation.evaluate`: a matrix product of another size rounds
# differently, and after a thousand steps of a walk that is another return.
_BATCH = 10

__all__ = ["TrainedAgent", "add_agent_arguments", "load_trained"]


@dataclass(frozen=True)
class TrainedAgent:
    """An agent as it was saved."""

    run: RunFolder
    config: RunConfig
    policy: BasePolicy
    normalizer: Normalizer | None
    n_timesteps: int
    """Environment steps it had been trained for."""

    def actor(self, *, deterministic: bool = True) -> Actor:
        """Return a function from raw observations to actions.

        If the policy has a memory it begins with the first call and goes on from call to call:
        make another one for other episodes.
        """
        return policy_actor(self.policy, self.normalizer, deterministic=deterministic)

    def single_actor(self, *, deterministic: bool = True) -> Callable[[Any], Any]:
        """Return a function from one raw observation to the action, equal to a row of `actor`.

        A policy with a memory needs a new one for every episode.
        """
        actor = self.actor(deterministic=deterministic)
        return lambda observation: actor(_repeated(observation))[0]


def add_agent_arguments(parser: argparse.ArgumentParser, *, n_episodes: int) -> None:
    """Add what every command that plays an agent takes: AGENT, which of its files, which episodes.

    :param n_episodes: how many are played by default.
    """
    parser.add_argument("agent", metavar="AGENT", help="run folder, such as logs/npg/Walker2d-v4_1")
    parser.add_argument(
        "--checkpoint",
        default="final",
        metavar="WHICH",
        help="final, best, last or a number of steps (default final)",
    )
    parser.add_argument(
        "--episodes", type=int, default=n_episodes, metavar="N", help=f"default {n_episodes}"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the episodes; default 0, the final evaluation's",
    )
    parser.add_argument(
        "--stochastic", action="store_true", help="sample actions instead of taking the mode"
    )


def load_trained(agent: str, which: str = "final") -> TrainedAgent:
    """Load an agent by name, without unpickling anything.

    :param agent: a run folder such as ``logs/npg/Walker2d-v4_1``.
    :param which: ``"final"``, ``"best"``, ``"last"`` (the latest checkpoint) or the timesteps of a
        checkpoint, such as ``"100000"``.
    :raises RunFolderError: there is no such agent, or its files are damaged.
    """
    run = RunFolder.open(Path(agent))
    config = load_config(run)
    path = _agent_path(run, which)
    file = load_agent_file(path)
    policy = _build_policy(config)
    try:
        policy.load_state_dict(file.parameters["policy"])
    except RuntimeError as error:
        raise RunFolderError(
            f"The weights in {path} do not fit the run's config.yml: {' '.join(str(error).split())}"
        ) from error
    if (file.normalizer is None) != (config.normalize is None):
        raise RunFolderError(
            f"{path} {'lacks' if file.normalizer is None else 'has'} a normaliser, which the run's "
            "config.yml denies; it was not written by this run."
        )
    normalizer = None
    if file.normalizer is not None and config.normalize is not None:
        settings = config.normalize
        if settings.get("norm_obs", True):
            normalizer = Normalizer(
                file.normalizer,
                clip_obs=settings.get("clip_obs", 10.0),
                epsilon=settings.get("epsilon", 1e-8),
            )
    return TrainedAgent(
        run, config, policy, normalizer, int(file.training_state.get("num_timesteps", 0))
    )


def _agent_path(run: RunFolder, which: str) -> Path:
    checkpoints = run.checkpoints()
    known: dict[str, Callable[[], Path]] = {
        "final": lambda: run.final_model,
        "best": lambda: run.best_model,
        "last": lambda: list(checkpoints.values())[-1],
    }
    if which in known:
        if which == "last" and not checkpoints:
            raise RunFolderError(f"{run.path} has no checkpoint; train with --save-freq.")
        path = known[which]()
        if not path.is_file():
            raise RunFolderError(
                f"{run.path} has no {path.name}: its training has not come that far. "
                f"It has {_available(run)}."
            )
        return path
    if re.fullmatch(r"\d+", which) and int(which) in checkpoints:
        return checkpoints[int(which)]
    raise ConfigError(f"Unknown checkpoint '{which}'; {run.path} has {_available(run)}.")


def _available(run: RunFolder) -> str:
    names = [
        name
        for name, path in (("final", run.final_model), ("best", run.best_model))
        if path.is_file()
    ]
    names += [str(timesteps) for timesteps in run.checkpoints()]
    return ", ".join(names) or "nothing yet"


def _build_policy(config: RunConfig) -> BasePolicy:
    env = make_gym_env(config.env_id, config.env_kwargs)
    try:
        observation_space = _policy_observation_space(env)
        action_space = env.action_space
    finally:
        env.close()
    kwargs: dict[str, Any] = config.agent_kwargs()
    policy_class = algorithm_class(config.algo).policy_aliases[config.policy]
    return policy_class(
        observation_space,
        action_space,
        lr_schedule=lambda _: 0.0,
        use_sde=kwargs.get("use_sde", False),
        **(kwargs.get("policy_kwargs") or {}),
    )


def _policy_observation_space(env: gym.Env[Any, Any]) -> spaces.Space[Any]:
    """Return the space as SB3 shows it to a policy: images with their channels first."""
    space = env.observation_space
    if (
        isinstance(space, spaces.Box)
        and is_image_space(space)
        and not is_image_space_channels_first(space)
    ):
        return VecTransposeImage.transpose_space(space)
    return space


def _repeated(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _repeated(value) for key, value in observation.items()}
    return np.stack([observation] * _BATCH)
