"""The critic of GTD(λ): a value network with a second, linear head beside its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

__all__ = ["SecondaryCritic", "Values", "critic_only_parameters", "evaluate_states"]


class SecondaryCritic(nn.Module):
    """``h(s) = wᵀx(s)``: GTD(λ)'s secondary weights ``w`` on the features of the value function.

    The features are the value network's last hidden layer and a constant, exactly those that
    ``V(s)`` is linear in. ``w`` starts at zero, as in the paper, where GTD(λ) is TD(λ).

    :param n_features: width of the last hidden layer.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.head = nn.Linear(n_features, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return ``h``; no gradient reaches the features.

        :param features: shape ``(n, n_features)``.
        :return: shape ``(n,)``.
        """
        values: torch.Tensor = self.head(features.detach())
        return values.squeeze(-1)


class Values(NamedTuple):
    """What the critic says about a batch of states."""

    values: torch.Tensor
    """``V(s)``, shape ``(n,)``."""
    features: torch.Tensor
    """``x(s)`` without the constant, shape ``(n, n_features)``."""


def evaluate_states(policy: ActorCriticPolicy, observations: PyTorchObs) -> Values:
    """Return the values of states together with the features that they are linear in.

    :param policy: with SB3's own critic: ``value_net`` on top of ``mlp_extractor``.
    :param observations: a batch of ``n``.
    """
    extracted = BaseModel.extract_features(policy, observations, policy.vf_features_extractor)
    features = policy.mlp_extractor.forward_critic(extracted)
    return Values(policy.value_net(features).squeeze(-1), features)


def critic_only_parameters(policy: ActorCriticPolicy) -> list[nn.Parameter]:
    """Return the parameters that the values depend on and the actions do not."""
    modules: list[nn.Module] = [policy.mlp_extractor.value_net, policy.value_net]
    if not policy.share_features_extractor:
        modules.append(policy.vf_features_extractor)
    return [parameter for module in modules for parameter in module.parameters()]
