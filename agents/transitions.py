"""Data that were there before training: lists of transitions and Minari's data sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from agents.errors import ConfigError, MissingDependency, UnknownName

__all__ = [
    "Array",
    "Dataset",
    "EpisodicDataset",
    "Observations",
    "Transition",
    "Transitions",
    "read_transitions",
]

Array = np.ndarray[Any, Any]
Observations = Array | dict[str, Array]
"""Several observations as one array, or as a mapping of arrays."""


class Transition(NamedTuple):
    """One step of an environment.

    A trajectory goes on from one transition of a list to the next as long as neither ends it and
    the one's ``next_observation`` is the other's ``observation``.
    """

    observation: Any
    action: Any
    """As the behaviour policy chose it: before it is clipped to the bounds of a Box."""
    reward: float
    next_observation: Any
    """Before any reset."""
    terminated: bool
    truncated: bool
    log_prob: float | None = None
    """``log b(action|observation)``; None where it is not known, in all transitions then."""


@dataclass(frozen=True)
class Transitions:
    """The same as columns of ``n`` transitions in the order they happened."""

    observations: Observations
    """Shape ``(n, …)``, or a dict of such arrays."""
    actions: Array
    """Shape ``(n, …)``."""
    rewards: Array
    """Shape ``(n,)``."""
    next_observations: Observations
    """As ``observations``."""
    terminated: Array
    """bool, shape ``(n,)``."""
    truncated: Array
    """bool, shape ``(n,)``."""
    log_probs: Array | None = None
    """``log b(a|s)``, shape ``(n,)``; None if the behaviour policy is not known."""

    def __len__(self) -> int:
        """Return the number of transitions."""
        return len(self.rewards)

    def check(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        """Refuse what a policy of these spaces cannot learn from.

        :raises ConfigError: with what was found and what belongs there.
        """
        if len(self) < 2:
            raise ConfigError(f"The data set has {len(self)} transitions; at least 2 are needed.")
        for name, space, values in (
            ("observations", observation_space, self.observations),
            ("actions", action_space, self.actions),
        ):
            _check_shape(name, space, values, len(self))
        if self.log_probs is not None and not np.isfinite(self.log_probs).all():
            raise ConfigError(
                "The data set has log-probabilities that are not finite: an action that was taken "
                "had a positive probability. Leave them all out to have them estimated."
            )
        if not np.isfinite(self.rewards).all():
            raise ConfigError("The data set has rewards that are not finite.")

    def for_policy(self, policy: ActorCriticPolicy) -> Transitions:
        """Return the transitions with actions as the policy's distribution takes them."""
        space = policy.action_space
        if isinstance(space, spaces.Box) and policy.squash_output:
            return replace(self, actions=policy.scale_action(self.actions))
        return self

    def cut_off(self) -> Array:
        """Return where a trajectory is cut off: bool, shape ``(n,)``.

        Besides the time limits that is where the next transition starts elsewhere, as in shuffled
        data, and at the end.
        """
        goes_on = np.ones(len(self) - 1, bool)
        for following, actual in _pairs(self.next_observations, self.observations):
            same = following[:-1] == actual[1:]
            goes_on &= same.reshape(len(goes_on), -1).all(axis=1)
        cut_off: Array = self.truncated | ~np.append(goes_on, False)
        return cut_off & ~self.terminated


@runtime_checkable
class EpisodicDataset(Protocol):
    """What is used of ``minari.MinariDataset``."""

    def iterate_episodes(self) -> Iterable[Any]:
        """Yield episodes with ``observations`` (one more than steps), ``actions``, ``rewards``,
        ``terminations`` and ``truncations``; ``infos["log_prob"]`` is used where it exists.
        """


Dataset = Transitions | Sequence[Transition] | EpisodicDataset


def read_transitions(dataset: Dataset | str) -> Transitions:
    """Return any kind of data set as columns.

    :param dataset: columns, a list of transitions, a Minari data set or the id of one that is on
        this machine.
    :raises ConfigError: it is none of these, or empty.
    :raises MissingDependency: an id was given and Minari is not installed.
    """
    if isinstance(dataset, Transitions):
        return dataset
    if isinstance(dataset, str):
        return _of_episodes(_load_minari(dataset).iterate_episodes())
    if isinstance(dataset, EpisodicDataset):
        return _of_episodes(dataset.iterate_episodes())
    if isinstance(dataset, list | tuple) and all(isinstance(t, Transition) for t in dataset):
        return _of_list(dataset)
    raise ConfigError(
        f"dataset: a {type(dataset).__name__} is neither Transitions, nor a list of Transition, "
        "nor a Minari data set, nor the id of one."
    )


def _load_minari(dataset_id: str) -> EpisodicDataset:
    try:
        import minari
    except ImportError as error:
        raise MissingDependency(
            f"dataset '{dataset_id}' is a Minari id, and Minari is not installed; "
            "type pip install 'natural-zoo[minari]'."
        ) from error
    try:
        dataset: EpisodicDataset = minari.load_dataset(dataset_id)
    except (FileNotFoundError, ValueError, OSError) as error:
        local = list(minari.list_local_datasets())
        raise UnknownName(
            "Minari dataset",
            dataset_id,
            local,
            advice=f"Fetch it with `minari download {dataset_id}` if it exists.",
        ) from error
    return dataset


def _of_list(transitions: Sequence[Transition]) -> Transitions:
    if not transitions:
        raise ConfigError("dataset: the list is empty; give at least 2 transitions.")
    log_probs = [transition.log_prob for transition in transitions]
    n_unknown = sum(log_prob is None for log_prob in log_probs)
    if 0 < n_unknown < len(log_probs):
        raise ConfigError(
            f"{n_unknown} of {len(log_probs)} transitions have no log_prob; give all of them or "
            "none, which has them estimated."
        )
    return Transitions(
        observations=_stack([t.observation for t in transitions]),
        actions=np.array([t.action for t in transitions]),
        rewards=np.array([t.reward for t in transitions], np.float64),
        next_observations=_stack([t.next_observation for t in transitions]),
        terminated=np.array([t.terminated for t in transitions], bool),
        truncated=np.array([t.truncated for t in transitions], bool),
        log_probs=None if n_unknown else np.array(log_probs, np.float64),
    )


def _of_episodes(episodes: Iterable[Any]) -> Transitions:
    parts = [_of_episode(episode) for episode in episodes if len(episode.rewards)]
    if not parts:
        raise ConfigError("The Minari data set has no steps; choose another one.")
    log_probs = [part.log_probs for part in parts if part.log_probs is not None]
    return Transitions(
        observations=_concatenate([part.observations for part in parts]),
        actions=np.concatenate([part.actions for part in parts]),
        rewards=np.concatenate([part.rewards for part in parts]),
        next_observations=_concatenate([part.next_observations for part in parts]),
        terminated=np.concatenate([part.terminated for part in parts]),
        truncated=np.concatenate([part.truncated for part in parts]),
        log_probs=np.concatenate(log_probs) if len(log_probs) == len(parts) else None,
    )


def _of_episode(episode: Any) -> Transitions:
    n = len(episode.rewards)
    infos = episode.infos if isinstance(getattr(episode, "infos", None), dict) else {}
    log_probs = infos.get("log_prob")
    observations = episode.observations
    return Transitions(
        observations=_sliced(observations, slice(0, n)),
        actions=np.asarray(episode.actions),
        rewards=np.asarray(episode.rewards, np.float64),
        next_observations=_sliced(observations, slice(1, n + 1)),
        terminated=np.asarray(episode.terminations, bool),
        truncated=np.asarray(episode.truncations, bool),
        # Infos come with the observations, one more than steps: the reset's is dropped.
        log_probs=None if log_probs is None else np.asarray(log_probs, np.float64)[-n:],
    )


def _check_shape(name: str, space: spaces.Space[Any], values: Observations, n: int) -> None:
    if isinstance(space, spaces.Dict):
        if not isinstance(values, dict) or values.keys() != space.spaces.keys():
            raise ConfigError(
                f"The data set's {name} are not mappings with the keys "
                f"{', '.join(space.spaces)} of {space}."
            )
        for key, inner in space.spaces.items():
            _check_shape(f"{name} '{key}'", inner, values[key], n)
        return
    shape = None if isinstance(values, dict) else values.shape
    if shape != (n, *(space.shape or ())):
        raise ConfigError(
            f"The data set's {name} have the shape {shape} for {n} transitions, and {space} needs "
            f"{(n, *(space.shape or ()))}; is it data of another environment?"
        )


def _pairs(left: Observations, right: Observations) -> list[tuple[Array, Array]]:
    if isinstance(left, dict) and isinstance(right, dict):
        return [(left[key], right[key]) for key in left]
    return [(np.asarray(left), np.asarray(right))]


def _stack(observations: Sequence[Any]) -> Observations:
    if isinstance(observations[0], dict):
        return {key: np.array([each[key] for each in observations]) for key in observations[0]}
    return np.array(observations)


def _concatenate(parts: Sequence[Observations]) -> Observations:
    mappings = [part for part in parts if isinstance(part, dict)]
    if mappings:
        return {key: np.concatenate([part[key] for part in mappings]) for key in mappings[0]}
    return np.concatenate([part for part in parts if not isinstance(part, dict)])


def _sliced(observations: Any, part: slice) -> Observations:
    if isinstance(observations, dict):
        return {key: np.asarray(values)[part] for key, values in observations.items()}
    sliced: Array = np.asarray(observations)[part]
    return sliced
