"""The state of training between two rollouts, and how it is taken up again.

Everything random is derived from ``(seed, segment)`` (:mod:`hub.seeding`), so the state is small:
weights, optimiser, normaliser and the counters below.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from agents.errors import RunFolderError
from hub.normalizer import Statistics
from hub.seeding import segment_seed
from hub.vec_normalize import load_statistics, statistics
from zoo.agent_file import AgentFile

__all__ = [
    "Boundary",
    "Resumption",
    "Stopwatch",
    "TrainingState",
    "begin_segment",
    "capture",
    "restore",
    "set_statistics",
    "training_env",
]


@dataclass
class TrainingState:
    """Counters that go on after a resume."""

    num_timesteps: int = 0
    iteration: int = 0
    """Rollouts so far."""
    segment: int = 0
    elapsed_seconds: float = 0.0
    monitor_bytes: int = 0
    """Length of the monitor file; what a killed process wrote beyond it is dropped."""
    best_mean_return: float | None = None
    counters: dict[str, Any] = field(default_factory=dict)
    """Attributes of the algorithm, see ``resumable_attributes``."""
    recent_episodes: list[dict[str, Any]] = field(default_factory=list)
    """The episodes that the logged means cover."""
    recent_successes: list[Any] = field(default_factory=list)
    """Whether those reached their goal, on tasks that say so."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Recorded by the last update and not yet written by the logger."""
    metrics_excluded: dict[str, Any] = field(default_factory=dict)
    """The outputs that a metric is kept from."""

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        values: dict[str, Any] = _to_json(vars(self))
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingState:
        """Return the state that :meth:`to_dict` wrote, numbers with their NumPy types.

        :raises RunFolderError: the values come from something else.
        """
        try:
            state = cls(**_from_json(values))
            for each in dataclasses.fields(cls):
                _check_kind(each.name, getattr(state, each.name), str(each.type))
        except (TypeError, ValueError, AttributeError) as error:
            raise RunFolderError(
                f"The checkpoint's training state cannot be read ({error}); "
                "it was not written by this version of natural-zoo. Start a new run instead."
            ) from error
        return state


@dataclass(frozen=True)
class Resumption:
    """Where training goes on."""

    path: Path
    """The file that was loaded."""
    file: AgentFile
    state: TrainingState


@dataclass(frozen=True)
class Boundary:
    """Everything that a rollout changes, as it was before the rollout."""

    state: TrainingState
    statistics: Statistics | None


def training_env(model: BaseAlgorithm) -> VecEnv:
    """Return the environments that ``model`` trains on."""
    if model.env is None:
        raise RuntimeError("the model has no environment to train on")
    return model.env


def capture(model: BaseAlgorithm, **counters: Any) -> Boundary:
    """Return what the next rollout will change in ``model``.

    Cheap enough for every rollout: nothing is converted before it is saved.

    :param counters: fields of :class:`TrainingState` that the model does not know.
    """
    normalizer = unwrap_vec_normalize(training_env(model))
    state = TrainingState(
        num_timesteps=model.num_timesteps,
        counters={name: getattr(model, name) for name in _resumable_attributes(model)},
        recent_episodes=list(model.ep_info_buffer or ()),
        recent_successes=list(model.ep_success_buffer or ()),
        metrics=dict(model.logger.name_to_value),
        metrics_excluded=dict(model.logger.name_to_excluded),
        **counters,
    )
    return Boundary(state, None if normalizer is None else statistics(normalizer))


def restore(model: BaseAlgorithm, state: TrainingState) -> None:
    """Put the saved counters into ``model``, whose ``learn`` has begun."""
    for name in _resumable_attributes(model):
        if name not in state.counters:
            raise RunFolderError(
                f"The checkpoint does not hold '{name}', which {type(model).__name__} goes on "
                "with: it was written by another version. Start a new run instead."
            )
        setattr(model, name, state.counters[name])
    if model.ep_info_buffer is not None:
        model.ep_info_buffer.extend(state.recent_episodes)
    if model.ep_success_buffer is not None:
        model.ep_success_buffer.extend(state.recent_successes)
    for key, value in state.metrics.items():
        excluded = state.metrics_excluded.get(key)
        model.logger.record(key, value, exclude=tuple(excluded) if excluded else None)
    # Speed and time are those of the whole run, as its curves show them.
    model.start_time = time.time_ns() - int(state.elapsed_seconds * 1e9)
    model._num_timesteps_at_start = 0


def set_statistics(model: BaseAlgorithm, file: AgentFile) -> None:
    """Put the saved normaliser into the environments of ``model``.

    :raises RunFolderError: it belongs to another environment, or one is missing.
    """
    normalizer = unwrap_vec_normalize(training_env(model))
    if (normalizer is None) != (file.normalizer is None):
        saved = "holds no normaliser" if file.normalizer is None else "holds a normaliser"
        raise RunFolderError(f"The saved agent {saved}, which its run's config.yml denies.")
    if normalizer is not None and file.normalizer is not None:
        load_statistics(normalizer, file.normalizer)


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


def _to_json(value: Any) -> Any:
    """Return JSON values; NumPy's scalars keep their types, on which rounding depends."""
    if isinstance(value, np.generic):
        return {"numpy": value.dtype.name, "value": value.item()}
    if isinstance(value, Mapping):
        # A logger also takes images and the like, which no training state consists of.
        return {key: _to_json(inner) for key, inner in value.items() if _is_plain(inner)}
    if isinstance(value, list | tuple):
        return [_to_json(inner) for inner in value]
    return value


_PLAIN = (str, int, float, list, tuple, Mapping, np.number, np.bool_, type(None))


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN)


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"numpy", "value"}:
            return np.dtype(value["numpy"]).type(value["value"])
        return {key: _from_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_from_json(inner) for inner in value]
    return value


_KINDS: dict[str, Any] = {
    "int": int,
    "float": int | float,
    "float | None": int | float | None,
    "dict[str, Any]": dict,
    "list[dict[str, Any]]": list,
    "list[Any]": list,
}


def _check_kind(name: str, value: Any, kind: str) -> None:
    if not isinstance(value, _KINDS[kind]) or (kind == "int" and value < 0):
        raise ValueError(f"{name} is {value!r}")


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
