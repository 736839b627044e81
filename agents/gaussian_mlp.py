"""Actor and critic of the common Gaussian MLP policy, with their gradients by hand.

First-order methods take hundreds of tiny steps per rollout, in which building and walking an
autograd graph costs several times the arithmetic. Here a minibatch is one forward and one backward
sweep of matrix products over parameters that lie in one flat vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from agents.functional.fisher import flatten
from agents.functional.mlp import MLPLinearization
from agents.mlp_structure import MLPStructure, actor_mlp, critic_mlp

__all__ = ["GaussianMLP", "GaussianSweep", "find_gaussian_mlp"]

_LOG_2PI = math.log(2.0 * math.pi)


class GaussianSweep(NamedTuple):
    """One forward sweep over a minibatch of B samples."""

    actor: MLPLinearization
    critic: MLPLinearization
    noise: torch.Tensor
    """``z = (a − μ) / σ``, shape ``(B, n_actions)``."""
    inverse_std: torch.Tensor
    log_prob: torch.Tensor
    """Shape ``(B,)``."""
    values: torch.Tensor
    """Shape ``(B,)``."""
    entropy: float
    """Of the action distribution, in nats; the same in every state."""

    def gradient(
        self, log_prob_weights: torch.Tensor, value_weights: torch.Tensor, entropy_weight: float
    ) -> torch.Tensor:
        """Return the gradient of ``Σ w_i log π_i + Σ u_i V_i + c H`` as one flat vector.

        :param log_prob_weights: ``w``, derivative of the loss by each log-probability, ``(B,)``.
        :param value_weights: ``u``, derivative of the loss by each value, shape ``(B,)``.
        :param entropy_weight: ``c``, derivative of the loss by the entropy.
        :return: in the order of :attr:`GaussianMLP.parameters`.
        """
        d_means, d_log_std = self.output_gradients(log_prob_weights, entropy_weight)
        return self.backward(d_means, d_log_std, value_weights)

    def output_gradients(
        self, log_prob_weights: torch.Tensor, entropy_weight: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the derivatives of ``Σ w_i log π_i + c H`` by the means and by ``log σ``.

        :return: shapes ``(B, n_actions)`` and ``(n_actions,)``.
        """
        weighted = log_prob_weights.unsqueeze(1) * self.noise
        d_log_std = (weighted * self.noise).sum(dim=0)
        d_log_std += entropy_weight - log_prob_weights.sum()
        return weighted.mul_(self.inverse_std), d_log_std

    def backward(
        self, d_means: torch.Tensor, d_log_std: torch.Tensor, value_weights: torch.Tensor
    ) -> torch.Tensor:
        """Return the gradient of a loss with these derivatives by the networks' outputs.

        :param d_means: by the means, shape ``(B, n_actions)``.
        :param d_log_std: by the log standard deviations, shape ``(n_actions,)``.
        :param value_weights: by the values, shape ``(B,)``.
        :return: in the order of :attr:`GaussianMLP.parameters`.
        """
        return flatten(
            [
                d_log_std,
                *self.actor.vjp(d_means),
                *self.critic.vjp(value_weights.unsqueeze(1)),
            ]
        )


class GaussianMLP(NamedTuple):
    """The structure of a policy whose gradients can be taken by hand."""

    policy: ActorCriticPolicy
    actor: MLPStructure
    critic: MLPStructure

    @property
    def parameters(self) -> list[nn.Parameter]:
        """``log σ``, then the actor's weights and biases, then the critic's."""
        log_std = self.policy.log_std
        if not isinstance(log_std, nn.Parameter):
            raise TypeError("a Gaussian policy has a parameter log_std")
        return [log_std, *self.actor.parameters, *self.critic.parameters]

    def sweep(
        self,
        parameters: Sequence[torch.Tensor],
        inputs: torch.Tensor,
        actions: torch.Tensor,
    ) -> GaussianSweep:
        """Run both networks.

        :param parameters: tensors in the place of :attr:`parameters`.
        :param inputs: features of the observations, shape ``(B, n_in)``.
        :param actions: shape ``(B, n_actions)``.
        """
        log_std = parameters[0].detach()
        split = 1 + 2 * len(self.actor.layers)
        weights = parameters[1:split]
        actor = MLPLinearization(weights[0::2], weights[1::2], self.actor.activation, inputs)
        weights = parameters[split:]
        critic = MLPLinearization(weights[0::2], weights[1::2], self.critic.activation, inputs)
        inverse_std = torch.exp(-log_std)
        noise = (actions - actor.outputs).mul_(inverse_std)
        sum_log_std, n_actions = float(log_std.sum()), len(log_std)
        log_prob = (noise * noise).sum(dim=1).mul_(-0.5)
        log_prob -= sum_log_std + 0.5 * n_actions * _LOG_2PI
        entropy = sum_log_std + 0.5 * n_actions * (1.0 + _LOG_2PI)
        return GaussianSweep(
            actor, critic, noise, inverse_std, log_prob, critic.outputs.flatten(), entropy
        )


def find_gaussian_mlp(policy: ActorCriticPolicy) -> GaussianMLP | None:
    """Return the policy's networks if their gradients can be taken by hand, else None.

    Actor and critic must be common MLPs on the same parameterless features, the distribution a
    diagonal Gaussian, and every parameter of the policy one of theirs. A policy that evaluates
    actions in a way of its own is for autograd.
    """
    if type(policy).evaluate_actions is not ActorCriticPolicy.evaluate_actions:
        return None
    actor, critic = actor_mlp(policy), critic_mlp(policy)
    if actor is None or critic is None or type(policy.action_dist) is not DiagGaussianDistribution:
        return None
    if actor.extractor is not critic.extractor:
        return None
    if not (isinstance(policy.log_std, nn.Parameter) and policy.log_std.requires_grad):
        return None
    networks = GaussianMLP(policy, actor, critic)
    covered = {id(parameter) for parameter in networks.parameters}
    return networks if covered == {id(parameter) for parameter in policy.parameters()} else None
