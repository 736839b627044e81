"""What a critic says of a batch, whichever of ``V(s)`` and ``Q(s, a)`` it is."""

from __future__ import annotations

from typing import NamedTuple, overload

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from agents.action_value import ActionValuePolicy, action_critic_mlp
from agents.mlp_structure import MLPStructure, critic_mlp

__all__ = [
    "StateActions",
    "critic_inputs",
    "critic_network",
    "critic_values",
    "mean_squared_error",
    "take",
]


class StateActions(NamedTuple):
    """What ``Q`` is evaluated at: N observations and as many actions."""

    observations: PyTorchObs
    actions: torch.Tensor


@torch.no_grad()
def mean_squared_error(
    policy: ActorCriticPolicy, observations: PyTorchObs | StateActions, returns: torch.Tensor
) -> float:
    """Return ``mean (V − return)²`` over the batch."""
    return float(nn.functional.mse_loss(critic_values(policy, observations), returns))


def critic_network(
    policy: ActorCriticPolicy, observations: PyTorchObs | StateActions
) -> MLPStructure | None:
    """Return the critic's layers if it is a common MLP."""
    if isinstance(observations, StateActions):
        return action_critic_mlp(policy)
    return critic_mlp(policy)


def critic_inputs(
    policy: ActorCriticPolicy, mlp: MLPStructure, observations: PyTorchObs | StateActions
) -> torch.Tensor:
    """Return what the first of the critic's layers is fed with, shape ``(N, n_in)``."""
    if isinstance(observations, StateActions):
        return _action_value_policy(policy).critic_inputs(*observations)
    return mlp.inputs(policy, observations)


def critic_values(
    policy: ActorCriticPolicy, observations: PyTorchObs | StateActions
) -> torch.Tensor:
    """Return the critic's values, shape ``(N,)``."""
    if isinstance(observations, StateActions):
        return _action_value_policy(policy).action_values(*observations).flatten()
    return policy.predict_values(observations).flatten()


def _action_value_policy(policy: ActorCriticPolicy) -> ActionValuePolicy:
    if not isinstance(policy, ActionValuePolicy):
        raise TypeError(f"{type(policy).__name__} has no action-value critic")
    return policy


@overload
def take(observations: StateActions, index: torch.Tensor | slice) -> StateActions: ...


@overload
def take(observations: PyTorchObs, index: torch.Tensor | slice) -> PyTorchObs: ...


def take(
    observations: PyTorchObs | StateActions, index: torch.Tensor | slice
) -> PyTorchObs | StateActions:
    """Return the samples that ``index`` selects."""
    if isinstance(observations, StateActions):
        return StateActions(take(observations.observations, index), observations.actions[index])
    if isinstance(observations, dict):
        return {key: value[index] for key, value in observations.items()}
    return observations[index]
