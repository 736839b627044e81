"""The samples of a rollout as tensors, in the order of SB3's buffer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer

from agents.gaussian_mlp import GaussianMLP

__all__ = ["RolloutBatch", "whole_batch"]


class RolloutBatch(NamedTuple):
    """N samples: a whole rollout or a minibatch of it."""

    inputs: torch.Tensor
    """Features of the observations, shape ``(N, n_in)``."""
    actions: torch.Tensor
    """Shape ``(N, n_actions)``."""
    old_values: torch.Tensor
    old_log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    """The last four of shape ``(N,)``."""

    def take(self, index: torch.Tensor) -> RolloutBatch:
        """Return the samples at ``index``."""
        return RolloutBatch(*(tensor[index] for tensor in self))


def whole_batch(buffer: RolloutBuffer, networks: GaussianMLP) -> RolloutBatch:
    """Return the whole rollout as SB3's buffer flattens it: environment by environment."""
    # Whoever called the buffer's ``get`` before us has flattened its arrays in place.
    flat = buffer.generator_ready
    observations, actions, *others = (
        buffer.to_torch(array if flat else buffer.swap_and_flatten(array), copy=False)
        for array in (
            buffer.observations,
            buffer.actions.astype(np.float32, copy=False),
            buffer.values,
            buffer.log_probs,
            buffer.advantages,
            buffer.returns,
        )
    )
    inputs = networks.actor.inputs(networks.policy, observations)
    return RolloutBatch(inputs, actions, *(other.flatten() for other in others))
