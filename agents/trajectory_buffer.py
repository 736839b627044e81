"""Trajectories with the behaviour policy's log-probabilities, kept in the order they happened.

Eligibility traces run along trajectories, so that single transitions in random order would not do.
The buffer is a ring of the last steps of each environment; batches are runs of consecutive steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from stable_baselines3.common.type_aliases import PyTorchObs

from agents.transitions import Array, Observations, Transitions

__all__ = ["TrajectoryBatch", "TrajectoryBuffer"]

_Arrays = dict[str, Array]
_PLAIN = ""  # the key of observations that are no mapping


class TrajectoryBatch(NamedTuple):
    """Sequences of consecutive steps, side by side.

    A sequence that is cut off (by a time limit, where the data end, or where the sequence does)
    is marked in ``truncated``, and what would have followed is in ``bootstrap_observations``.
    """

    observations: PyTorchObs
    """``s_t``, step by step: shape ``(n_steps · n_sequences, …)``."""
    actions: torch.Tensor
    """Shape ``(n_steps · n_sequences, action_dim)``."""
    behavior_log_probs: torch.Tensor
    """``log b(a_t|s_t)``, shape ``(n_steps, n_sequences)``."""
    rewards: torch.Tensor
    """Same shape."""
    terminated: torch.Tensor
    """bool, same shape."""
    truncated: torch.Tensor
    """bool, same shape; never where ``terminated``."""
    bootstrap_observations: PyTorchObs
    """``s_{t+1}`` where ``truncated``, shape ``(n_truncated, …)``, in the order of ``nonzero``."""


class TrajectoryBuffer:
    """The last ``n_rows`` steps of each of ``n_envs`` environments.

    :param n_rows: steps that are kept per environment; the oldest are overwritten.
    :param observation_space: of the policy.
    :param action_space: of the policy.
    :param n_envs: environments side by side.
    :param device: where batches are put.
    """

    def __init__(
        self,
        n_rows: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        n_envs: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n_rows, self.n_envs, self.device = n_rows, n_envs, device
        self._shapes: dict[str, tuple[int, ...]] = _shapes(observation_space)
        dtypes = {
            key: observation_space[key].dtype if key else observation_space.dtype  # type: ignore[index]
            for key in self._shapes
        }
        shape = (n_rows, n_envs)
        self._observations: _Arrays = {
            key: np.zeros((*shape, *self._shapes[key]), dtypes[key]) for key in self._shapes
        }
        self._actions = np.zeros((*shape, get_action_dim(action_space)), np.float32)
        self._log_probs, self._rewards = np.zeros((2, *shape), np.float32)
        self._terminated, self._truncated = np.zeros((2, *shape), bool)
        self.clear()

    @classmethod
    def of_transitions(
        cls,
        transitions: Transitions,
        log_probs: Array,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        device: torch.device | str = "cpu",
    ) -> TrajectoryBuffer:
        """Return a buffer that holds a data set as the steps of one environment.

        :param transitions: with actions as the policy's distribution takes them.
        :param log_probs: their ``log b(a|s)``, shape ``(n,)``.
        :param observation_space: of the policy.
        :param action_space: of the policy.
        :param device: where batches are put.
        """
        n = len(transitions)
        buffer = cls(n, observation_space, action_space, device=device)
        for key, values in _as_arrays(transitions.observations).items():
            buffer._observations[key][:, 0] = values.reshape(n, *buffer._shapes[key])
        buffer._actions[:, 0] = transitions.actions.reshape(n, -1)
        buffer._log_probs[:, 0], buffer._rewards[:, 0] = log_probs, transitions.rewards
        buffer._terminated[:, 0] = transitions.terminated
        buffer._truncated[:, 0] = cut_off = transitions.cut_off()
        following = {
            key: values.reshape(n, *buffer._shapes[key])
            for key, values in _as_arrays(transitions.next_observations).items()
        }
        buffer._following = {key: values[-1:] for key, values in following.items()}
        for row in np.flatnonzero(cut_off):
            buffer._cut_off[row] = {0: {key: values[row] for key, values in following.items()}}
        buffer._n_added = n
        return buffer

    def clear(self) -> None:
        """Forget everything."""
        self._n_added = 0
        self._following: _Arrays = {}
        self._cut_off: list[dict[int, _Arrays]] = [{} for _ in range(self.n_rows)]

    @property
    def size(self) -> int:
        """Steps per environment that are there."""
        return min(self._n_added, self.n_rows)

    @property
    def n_transitions(self) -> int:
        """Transitions that are there, of all environments."""
        return self.size * self.n_envs

    def add(
        self,
        observations: Observations,
        actions: Array,
        log_probs: Array,
        rewards: Array,
        terminated: Array,
        truncated: Array,
        next_observations: Observations,
    ) -> None:
        """Add one step of each environment.

        :param observations: ``s_t``.
        :param actions: as the policy's distribution takes them, shape ``(n_envs, …)``.
        :param log_probs: ``log b(a_t|s_t)``, shape ``(n_envs,)``.
        :param rewards: shape ``(n_envs,)``.
        :param terminated: bool, same shape.
        :param truncated: bool, same shape: the next step belongs to another trajectory.
        :param next_observations: ``s_{t+1}``, before any reset.
        """
        row = self._n_added % self.n_rows
        for key, values in _as_arrays(observations).items():
            self._observations[key][row] = values.reshape(self.n_envs, *self._shapes[key])
        self._actions[row] = actions.reshape(self.n_envs, -1)
        self._log_probs[row], self._rewards[row] = log_probs, rewards
        self._terminated[row], self._truncated[row] = terminated, truncated & ~terminated
        self._following = {
            key: np.array(values).reshape(self.n_envs, *self._shapes[key])
            for key, values in _as_arrays(next_observations).items()
        }
        self._cut_off[row] = {
            int(env): {key: values[env] for key, values in self._following.items()}
            for env in np.flatnonzero(self._truncated[row])
        }
        self._n_added += 1

    def batches(self, sequence_length: int, n_sequences: int) -> Iterator[TrajectoryBatch]:
        """Yield batches without end, going through everything once before anything is repeated.

        Each pass cuts the trajectories into sequences at other places, so that every step comes
        to stand at every place of a sequence. What a pass leaves over because it fills no whole
        sequence or batch is another part each time.

        :param sequence_length: steps of a sequence; fewer if there are fewer.
        :param n_sequences: sequences in a batch; fewer if there are fewer.
        """
        length = min(sequence_length, self.size)
        n_cuts = self.size // length
        n_sequences = min(n_sequences, n_cuts * self.n_envs)
        while True:
            # One sequence per environment needs no other beginning than the data's own.
            offset = 0 if length == self.size else np.random.randint(self.size)
            order = np.random.permutation(n_cuts * self.n_envs)
            for first in range(0, len(order) - n_sequences + 1, n_sequences):
                chosen = order[first : first + n_sequences]
                starts = offset + length * (chosen // self.n_envs)
                yield self._batch(starts, chosen % self.n_envs, length)

    def _batch(self, starts: Array, envs: Array, length: int) -> TrajectoryBatch:
        """Return sequences of ``envs`` that begin at ``starts``, counted from the oldest step."""
        ages = (starts + np.arange(length)[:, None]) % self.size
        rows = (self._n_added - self.size + ages) % self.n_rows
        terminated = self._terminated[rows, envs]
        truncated = self._truncated[rows, envs] | (ages == self.size - 1)
        truncated[-1] = True
        truncated &= ~terminated
        return TrajectoryBatch(
            self._tensors({k: v[rows, envs] for k, v in self._observations.items()}, flat=2),
            self._tensor(self._actions[rows, envs]).flatten(end_dim=1),
            self._tensor(self._log_probs[rows, envs]),
            self._tensor(self._rewards[rows, envs]),
            self._tensor(terminated),
            self._tensor(truncated),
            self._tensors(self._next_observations(rows, ages, envs, truncated), flat=1),
        )

    def _next_observations(
        self,
        rows: Array,
        ages: Array,
        envs: Array,
        wanted: Array,
    ) -> _Arrays:
        """Return ``s_{t+1}`` of the steps that are ``wanted``, in the order of ``nonzero``."""
        steps, sequences = wanted.nonzero()
        found_rows, found_envs = rows[steps, sequences], envs[sequences]
        arrays = {
            key: values[(found_rows + 1) % self.n_rows, found_envs]
            for key, values in self._observations.items()
        }
        newest = ages[steps, sequences] == self.size - 1
        cut_off = self._truncated[found_rows, found_envs]
        for key, values in arrays.items():
            values[newest] = self._following[key][found_envs[newest]]
            for i in np.flatnonzero(cut_off):
                values[i] = self._cut_off[found_rows[i]][int(found_envs[i])][key]
        return arrays

    def _tensors(self, arrays: _Arrays, flat: int) -> PyTorchObs:
        """Return observations as the policy takes them, the first ``flat`` axes made one."""
        tensors = {
            key: self._tensor(values).flatten(end_dim=flat - 1) for key, values in arrays.items()
        }
        return tensors[_PLAIN] if tensors.keys() == {_PLAIN} else tensors

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.as_tensor(array, device=self.device)


def _shapes(space: spaces.Space[Any]) -> dict[str, tuple[int, ...]]:
    shape = get_obs_shape(space)
    return shape if isinstance(shape, dict) else {_PLAIN: shape}


def _as_arrays(observations: Observations) -> _Arrays:
    return observations if isinstance(observations, dict) else {_PLAIN: observations}
