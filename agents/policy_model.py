"""A policy on one batch of observations, as a function of its parameters.

Two kinds with one interface: :class:`MLPModel` differentiates the common MLP by hand,
:class:`AutogradModel` any policy automatically. Both give the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import torch
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from agents.errors import ConfigError
from agents.functional.divergence import mean_kl
from agents.functional.fisher import (
    MatVec,
    dependent_parameters,
    fisher_vector_product,
    flatten,
)
from agents.functional.output_metric import (
    bernoulli_metric,
    categorical_metric,
    gaussian_mean_metric,
)
from agents.mlp_structure import MLPStructure, actor_mlp

__all__ = ["AutogradModel", "MLPModel", "PolicyModel", "action_distribution", "policy_model"]


class PolicyModel(Protocol):
    """The action distributions in the states of a batch."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the distributions depend on, ``n`` entries in all."""

    def distribution(self) -> Distribution:
        """Return the distributions at the parameters this was made with, differentiable."""

    def candidate(self) -> Distribution:
        """Return the distributions at the policy's present parameters."""

    def gradient(self, objective: torch.Tensor) -> torch.Tensor:
        """Return the gradient of a function of :meth:`distribution`, shape ``(n,)``."""

    def fisher_vector_product(self, damping: float, subsampling: int = 1) -> MatVec:
        """Return ``v ↦ (F + damping · I) v`` at the parameters this was made with.

        :param subsampling: ``F`` is averaged over every so many-th state of the batch.
        """


def policy_model(policy: ActorCriticPolicy, observations: PyTorchObs) -> PolicyModel:
    """Return the model that suits ``policy``.

    :raises ConfigError: no parameter of the policy can be trained.
    """
    mlp = actor_mlp(policy)
    if mlp is not None and _log_std_is_trained(policy):
        return MLPModel(policy, mlp, observations)
    return AutogradModel(policy, observations)


class AutogradModel:
    """Any policy of SB3, differentiated automatically.

    :raises ConfigError: no parameter of the policy can be trained.
    """

    def __init__(self, policy: ActorCriticPolicy, observations: PyTorchObs) -> None:
        self._policy = policy
        self._observations = observations
        old = self.candidate().distribution
        self._distribution = policy.get_distribution(observations)
        self._kl = mean_kl(old, self._distribution.distribution)
        self.parameters = dependent_parameters(self._kl, policy.parameters())
        if not self.parameters:
            raise ConfigError(
                "Every parameter of the policy is frozen; set requires_grad of those that "
                "are to be trained."
            )

    def distribution(self) -> Distribution:
        """Return the distributions at the parameters this was made with, differentiable."""
        return self._distribution

    @torch.no_grad()
    def candidate(self) -> Distribution:
        """Return the distributions at the policy's present parameters."""
        return self._policy.get_distribution(self._observations)

    def gradient(self, objective: torch.Tensor) -> torch.Tensor:
        """Return the gradient of a function of :meth:`distribution`, shape ``(n,)``."""
        return flatten(torch.autograd.grad(objective, self.parameters, retain_graph=True))

    def fisher_vector_product(self, damping: float, subsampling: int = 1) -> MatVec:
        """Return ``v ↦ (F + damping · I) v`` by differentiating the KL divergence twice."""
        kl = self._kl if subsampling == 1 else self._kl_to_itself(subsampling)
        return fisher_vector_product(kl, self.parameters, damping)

    def _kl_to_itself(self, subsampling: int) -> torch.Tensor:
        observations = _every(self._observations, subsampling)
        with torch.no_grad():
            old = self._policy.get_distribution(observations).distribution
        return mean_kl(old, self._policy.get_distribution(observations).distribution)


class MLPModel:
    """The common MLP, differentiated by hand; autograd sees the last layer's outputs only."""

    def __init__(
        self, policy: ActorCriticPolicy, mlp: MLPStructure, observations: PyTorchObs
    ) -> None:
        self._policy = policy
        self._mlp = mlp
        self._network = mlp.linearize(mlp.inputs(policy, observations))
        self._outputs = self._network.outputs.requires_grad_()
        gaussian = isinstance(policy.action_dist, DiagGaussianDistribution)
        self._log_stds = [policy.log_std] if gaussian else []
        self.parameters: list[nn.Parameter] = [*self._log_stds, *mlp.parameters]

    def distribution(self) -> Distribution:
        """Return the distributions at the parameters this was made with, differentiable."""
        return action_distribution(self._policy, self._outputs)

    @torch.no_grad()
    def candidate(self) -> Distribution:
        """Return the distributions at the policy's present parameters."""
        return action_distribution(self._policy, self._mlp.outputs(self._network.inputs))

    def gradient(self, objective: torch.Tensor) -> torch.Tensor:
        """Return the gradient of a function of :meth:`distribution`, shape ``(n,)``."""
        *d_log_stds, d_outputs = torch.autograd.grad(
            objective, [*self._log_stds, self._outputs], retain_graph=True
        )
        return flatten([*d_log_stds, *self._network.vjp(d_outputs)])

    def fisher_vector_product(self, damping: float, subsampling: int = 1) -> MatVec:
        """Return ``v ↦ (Jᵀ M J / N + damping · I) v`` on cached activations."""
        network = self._network.every(subsampling)
        n_states = len(network.outputs)
        n_log_stds = sum(log_std.numel() for log_std in self._log_stds)
        shapes = [parameter.shape for parameter in self._mlp.parameters]
        sizes = [shape.numel() for shape in shapes]

        metric = self._metric(network.outputs)

        @torch.no_grad()
        def product(vector: torch.Tensor) -> torch.Tensor:
            parts = torch.split(vector[n_log_stds:], sizes)
            tangents = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
            rows = network.vjp(metric(network.jvp(tangents)).div_(n_states))
            return flatten([2.0 * vector[:n_log_stds], *rows]).add_(vector, alpha=damping)

        return product

    def _metric(self, outputs: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return ``u ↦ M u`` where the last layer says ``outputs``."""
        distribution = self._policy.action_dist
        if isinstance(distribution, DiagGaussianDistribution):
            return functools.partial(
                gaussian_mean_metric, log_std=self._policy.log_std.detach().clone()
            )
        if isinstance(distribution, BernoulliDistribution):
            return functools.partial(bernoulli_metric, logits=outputs)
        if isinstance(distribution, MultiCategoricalDistribution):
            sizes = distribution.action_dims
        elif isinstance(distribution, CategoricalDistribution):
            sizes = [distribution.action_dim]
        else:
            raise TypeError(f"no metric for {type(distribution).__name__}")
        return functools.partial(categorical_metric, logits=outputs, sizes=sizes)


def action_distribution(policy: ActorCriticPolicy, outputs: torch.Tensor) -> Distribution:
    """Return the distributions that a common actor makes of its last layer's outputs.

    :param policy: one that :func:`~agents.mlp_structure.actor_mlp` recognises.
    :param outputs: means or logits, shape ``(N, n_outputs)``.
    """
    distribution = policy.action_dist
    if isinstance(distribution, DiagGaussianDistribution):
        return distribution.proba_distribution(outputs, policy.log_std)
    return distribution.proba_distribution(outputs)


def _every(observations: PyTorchObs, subsampling: int) -> PyTorchObs:
    if isinstance(observations, dict):
        return {key: value[::subsampling] for key, value in observations.items()}
    return observations[::subsampling]


def _log_std_is_trained(policy: ActorCriticPolicy) -> bool:
    if not isinstance(policy.action_dist, DiagGaussianDistribution):
        return True
    return isinstance(policy.log_std, nn.Parameter) and policy.log_std.requires_grad
