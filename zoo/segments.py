"""The state of training between two rollouts, and how it is taken up again.

Everything random is derived from ``(seed, segment)`` (:mod:`zoo.seeding`), so the state is small:
weights, optimiser, normaliser and the counters below.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from agents.errors import RunFolderError
from zoo.agent_file import AgentFile
from zoo.normalizer import load_statistics
from zoo.seeding import segment_seed

__all__ = ["TrainingState", "begin_segment", "capture", "restore", "training_env"]


@dataclass
class TrainingState:
    """Counters that go on after a resume; all values are JSON."""

    num_timesteps: int = 0
    segment: int = 0
    elapsed_seconds: float = 0.0
    monitor_bytes: int = 0
    """Length of the monitor file; what a killed process wrote beyond it is dropped."""
    best_mean_return: float | None = None
    counters: dict[str, Any] = field(default_factory=dict)
    """Attributes of the algorithm, see ``resumable_attributes``."""
    recent_episodes: list[dict[str, float]] = field(default_factory=list)
    """The episodes that the logged means cover."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Recorded by the last update and not yet written by the logger."""

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingState:
        """Return the state that :meth:`to_dict` wrote.

        :raises RunFolderError: the values come from something else.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise RunFolderError(
                f"The checkpoint's training state cannot be read ({error}); "
                "it was not written by this version of natural-zoo."
            ) from error


def training_env(model: BaseAlgorithm) -> VecEnv:
    """Return the environments that ``model`` trains on."""
    if model.env is None:
        raise RuntimeError("the model has no environment to train on")
    return model.env


def capture(
    model: BaseAlgorithm,
    *,
    segment: int,
    elapsed_seconds: float,
    monitor_bytes: int,
    best_mean_return: float | None,
) -> TrainingState:
    """Return the counters of ``model`` between two rollouts."""
    return TrainingState(
        num_timesteps=model.num_timesteps,
        segment=segment,
        elapsed_seconds=elapsed_seconds,
        monitor_bytes=monitor_bytes,
        best_mean_return=best_mean_return,
        counters={name: getattr(model, name) for name in _resumable_attributes(model)},
        recent_episodes=[
            {key: float(value) for key, value in episode.items()}
            for episode in model.ep_info_buffer or ()
        ],
        metrics={
            key: float(value)
            for key, value in model.logger.name_to_value.items()
            if isinstance(value, int | float | np.number)
        },
    )


def restore(model: BaseAlgorithm, file: AgentFile, state: TrainingState) -> None:
    """Put a saved state into ``model``, whose ``learn`` has begun, and begin its segment."""
    normalizer = unwrap_vec_normalize(training_env(model))
    if normalizer is not None and file.normalizer is not None:
        load_statistics(normalizer, file.normalizer)
    for name in _resumable_attributes(model):
        setattr(model, name, state.counters[name])
    if model.ep_info_buffer is not None:
        model.ep_info_buffer.extend(state.recent_episodes)
    for key, value in state.metrics.items():
        model.logger.record(key, value)


def begin_segment(model: BaseAlgorithm, seed: int, segment: int) -> None:
    """Reset the environments and seed every random generator for ``segment``.

    Episodes under way end here without being counted; the rollout before bootstrapped their
    future with the value function, as it does at every rollout's end.
    """
    env = training_env(model)
    new_seed = segment_seed(seed, segment)
    set_random_seed(new_seed, using_cuda=model.device.type == torch.device("cuda").type)
    env.action_space.seed(new_seed)
    env.seed(new_seed)
    model._last_obs = env.reset()  # type: ignore[assignment]
    model._last_episode_starts = np.ones((env.num_envs,), dtype=bool)
    normalizer = unwrap_vec_normalize(env)
    if isinstance(normalizer, VecNormalize):
        model._last_original_obs = normalizer.get_original_obs()
    if model.use_sde:
        model.policy.reset_noise(env.num_envs)  # type: ignore[operator]


def _resumable_attributes(model: BaseAlgorithm) -> tuple[str, ...]:
    """Return the counters of every SB3 algorithm and those that this one declares."""
    own: tuple[str, ...] = getattr(model, "resumable_attributes", ())
    return ("_n_updates", "_episode_num", *own)


class Stopwatch:
    """Seconds of training, counted on over a resume."""

    def __init__(self, elapsed_seconds: float) -> None:
        self._start = time.monotonic() - elapsed_seconds

    def elapsed(self) -> float:
        """Return the seconds since training first began, pauses not counted."""
        return time.monotonic() - self._start
