"""An agent of a run folder: the final one, the best one or a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage

from agents.errors import ConfigError, RunFolderError
from agents.registry import algorithm_class
from hub.gym_env import make_gym_env
from hub.normalizer import Normalizer
from zoo.agent_file import AgentFile, load_agent_file
from zoo.config import RunConfig
from zoo.runs import RunFolder, load_config

__all__ = ["RunAgent", "load_run_agent"]


@dataclass(frozen=True)
class RunAgent:
    """What a run folder holds of one agent."""

    config: RunConfig
    policy: BasePolicy
    normalizer: Normalizer | None
    """Scales its observations; None if it takes them raw."""
    transposed_images: tuple[str, ...]
    """``("obs",)`` if the environment gives images with their channels last."""
    n_timesteps: int
    """Environment steps it had been trained for."""


def load_run_agent(run: RunFolder, which: str = "final") -> RunAgent:
    """Load an agent of a run, without unpickling anything.

    :param which: ``"final"``, ``"best"``, ``"last"`` (the latest checkpoint) or the timesteps of a
        checkpoint, such as ``"100000"``.
    :raises RunFolderError: its files are damaged, or training has not come that far.
    :raises ConfigError: the run has no such checkpoint.
    """
    config = load_config(run)
    path = _agent_path(run, which)
    file = load_agent_file(path)
    policy, transposed = _build_policy(config)
    try:
        policy.load_state_dict(file.parameters["policy"])
    except RuntimeError as error:
        raise RunFolderError(
            f"The weights in {path} do not fit the run's config.yml: {' '.join(str(error).split())}"
        ) from error
    policy.set_training_mode(False)
    normalizer = _normalizer(file, config, path)
    n_timesteps = int(file.training_state.get("num_timesteps", 0))
    return RunAgent(config, policy, normalizer, transposed, n_timesteps)


def _normalizer(file: AgentFile, config: RunConfig, path: Path) -> Normalizer | None:
    """Return what scales the observations.

    :raises RunFolderError: the file and the run's configuration contradict each other.
    """
    if (file.normalizer is None) != (config.normalize is None):
        raise RunFolderError(
            f"{path} {'lacks' if file.normalizer is None else 'has'} a normaliser, which the run's "
            "config.yml denies; it was not written by this run."
        )
    if file.normalizer is None or config.normalize is None:
        return None
    settings = config.normalize
    if not settings.get("norm_obs", True):
        return None
    return Normalizer(
        file.normalizer,
        clip_obs=settings.get("clip_obs", 10.0),
        epsilon=settings.get("epsilon", 1e-8),
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


def _build_policy(config: RunConfig) -> tuple[BasePolicy, tuple[str, ...]]:
    """Return the untrained policy, and which images it reads with their channels first."""
    env = make_gym_env(config.env_id, config.env_kwargs)
    try:
        observation_space = _policy_observation_space(env)
        transposed = () if observation_space is env.observation_space else ("obs",)
        action_space = env.action_space
    finally:
        env.close()
    kwargs: dict[str, Any] = config.agent_kwargs()
    policy_class = algorithm_class(config.algo).policy_aliases[config.policy]
    policy = policy_class(
        observation_space,
        action_space,
        lr_schedule=lambda _: 0.0,
        use_sde=kwargs.get("use_sde", False),
        **(kwargs.get("policy_kwargs") or {}),
    )
    return policy, transposed


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
