"""The policy's surrogate objective, its gradient and its Fisher matrix on one batch."""

from __future__ import annotations

import torch
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from agents.errors import ConfigError
from agents.functional.divergence import ActionDistribution, mean_kl
from agents.functional.fisher import (
    MatVec,
    dependent_parameters,
    fisher_vector_product,
    flatten,
    write_flat,
)
from agents.functional.output_metric import (
    bernoulli_metric,
    categorical_metric,
    gaussian_mean_metric,
)
from agents.mlp_structure import MLPStructure, actor_mlp

__all__ = ["Surrogate"]


class Surrogate:
    """``L(θ) = E[π_θ(a|s) / π_old(a|s) · A(s, a)]`` around the policy that collected the batch.

    Made at θ_old. :meth:`evaluate` writes candidates into the policy, so whoever uses it writes
    the parameters it decides on afterwards.

    :param policy: any SB3 actor-critic policy, at θ_old.
    :param observations: as the policy takes them, batch of N.
    :param actions: shape ``(N, …)`` as ``Distribution.log_prob`` takes them.
    :param advantages: ``A``, shape ``(N,)``.
    :raises ConfigError: no parameter of the policy can be trained.

    Ref: Kakade & Langford 2002; Schulman et al. 2015, arXiv:1502.05477, eq. 14.
    """

    def __init__(
        self,
        policy: ActorCriticPolicy,
        observations: PyTorchObs,
        actions: torch.Tensor,
        advantages: torch.Tensor,
    ) -> None:
        self._policy = policy
        self._observations = observations
        self._actions = actions
        self._advantages = advantages
        with torch.no_grad():
            self._old: ActionDistribution = policy.get_distribution(observations).distribution
        distribution = policy.get_distribution(observations)
        log_prob = distribution.log_prob(actions)
        self._old_log_prob = log_prob.detach()
        self.entropy = _mean_entropy(distribution.entropy(), self._old_log_prob)
        """Mean entropy of the action distributions at θ_old, in nats."""
        self._objective = (torch.exp(log_prob - self._old_log_prob) * advantages).mean()
        self._mlp = actor_mlp(policy)
        self._kl: torch.Tensor | None = None
        if self._mlp is not None and _log_std_is_trained(policy):
            self.parameters = [*_log_stds(policy), *self._mlp.parameters]
        else:
            self._mlp = None
            self._kl = mean_kl(self._old, distribution.distribution)
            self.parameters = dependent_parameters(self._kl, policy.parameters())
            if not self.parameters:
                raise ConfigError(
                    "Every parameter of the policy is frozen; set requires_grad of those that "
                    "are to be trained."
                )

    def point(self) -> torch.Tensor:
        """Return the policy's present parameters as one new vector of shape ``(n,)``."""
        return flatten(parameter.detach() for parameter in self.parameters)

    def gradient(self) -> torch.Tensor:
        """Return ``∇L`` at θ_old, shape ``(n,)``."""
        return flatten(torch.autograd.grad(self._objective, self.parameters, retain_graph=True))

    def fisher_vector_product(self, damping: float) -> MatVec:
        """Return ``v ↦ (F + damping · I) v`` at θ_old.

        The common MLP multiplies by hand, everything else differentiates the KL twice; both give
        the same vector.
        """
        if self._mlp is not None:
            return _mlp_fisher(self._policy, self._mlp, self._observations, damping)
        if self._kl is None:
            raise RuntimeError("a surrogate without an MLP has its KL graph")
        return fisher_vector_product(self._kl, self.parameters, damping)

    @torch.no_grad()
    def evaluate(self, candidate: torch.Tensor) -> tuple[float, float]:
        """Write ``candidate`` into the policy and measure it.

        :param candidate: shape ``(n,)``.
        :return: the gain ``L(candidate) − L(θ_old)`` and the mean ``KL(π_old ‖ π_candidate)``;
            both NaN if the candidate's distributions are not even defined.
        """
        write_flat(candidate, self.parameters)
        try:
            distribution = self._policy.get_distribution(self._observations)
        except ValueError:  # torch refuses distributions with NaN parameters
            return float("nan"), float("nan")
        ratio = torch.exp(distribution.log_prob(self._actions) - self._old_log_prob)
        gain = ((ratio - 1.0) * self._advantages).mean()
        return float(gain), float(mean_kl(self._old, distribution.distribution))


def _mean_entropy(entropy: torch.Tensor | None, log_prob: torch.Tensor) -> float:
    """Return the mean entropy; a squashed Gaussian has no closed form and is estimated."""
    return float(-log_prob.mean() if entropy is None else entropy.detach().mean())


def _log_stds(policy: ActorCriticPolicy) -> list[nn.Parameter]:
    return [policy.log_std] if isinstance(policy.action_dist, DiagGaussianDistribution) else []


def _log_std_is_trained(policy: ActorCriticPolicy) -> bool:
    return all(
        isinstance(log_std, nn.Parameter) and log_std.requires_grad for log_std in _log_stds(policy)
    )


def _mlp_fisher(
    policy: ActorCriticPolicy, mlp: MLPStructure, observations: PyTorchObs, damping: float
) -> MatVec:
    """Return the Gauss-Newton form ``Jᵀ M J v / N + damping · v`` on cached activations."""
    network = mlp.linearize(policy, observations)
    n_states = len(network.outputs)
    log_stds = [log_std.detach() for log_std in _log_stds(policy)]
    n_log_stds = sum(log_std.numel() for log_std in log_stds)
    shapes = [parameter.shape for parameter in mlp.parameters]
    sizes = [shape.numel() for shape in shapes]

    def metric(tangent: torch.Tensor) -> torch.Tensor:
        distribution = policy.action_dist
        if isinstance(distribution, DiagGaussianDistribution):
            return gaussian_mean_metric(tangent, log_stds[0])
        if isinstance(distribution, BernoulliDistribution):
            return bernoulli_metric(tangent, network.outputs)
        if isinstance(distribution, MultiCategoricalDistribution):
            return categorical_metric(tangent, network.outputs, distribution.action_dims)
        if isinstance(distribution, CategoricalDistribution):
            return categorical_metric(tangent, network.outputs, [distribution.action_dim])
        raise TypeError(f"no metric for {type(distribution).__name__}")

    def product(vector: torch.Tensor) -> torch.Tensor:
        parts = torch.split(vector[n_log_stds:], sizes)
        tangents = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        rows = network.vjp(metric(network.jvp(tangents)) / n_states)
        return flatten([2.0 * vector[:n_log_stds], *rows]).add_(vector, alpha=damping)

    return product
