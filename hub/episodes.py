"""Playing whole episodes, one observation at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from agents.errors import EnvironmentFault

__all__ = ["PlayedEpisode", "play_episode"]


@dataclass(frozen=True)
class PlayedEpisode:
    """What an episode came to."""

    episode_return: float
    """Undiscounted sum of rewards."""
    length: int
    """Steps."""
    ended: bool
    """Whether the environment ended it, rather than ``max_steps``."""


def play_episode(
    env: gym.Env[Any, Any],
    act: Callable[[Any], Any],
    seed: int,
    *,
    max_steps: int | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> PlayedEpisode:
    """Play one episode.

    :param env: the environment.
    :param act: maps one raw observation to the action to apply.
    :param seed: of the reset, from :func:`hub.seeding.evaluation_seeds`.
    :param max_steps: stop after so many steps.
    :param on_frame: called after the reset and after every step.
    :raises EnvironmentFault: a reward is not a finite number.
    """
    episode_return, length, ended = 0.0, 0, False
    observation, _ = env.reset(seed=seed)
    on_frame()
    while not ended and length != max_steps:
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        episode_return += float(reward)
        length += 1
        ended = terminated or truncated
        if not math.isfinite(episode_return):
            raise EnvironmentFault(
                f"The environment returned {reward} as reward at step {length} of the episode with "
                f"seed {seed}; it must be finite."
            )
        on_frame()
    return PlayedEpisode(episode_return, length, ended)
