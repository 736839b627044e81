"""The policy's surrogate objective, its gradient and its Fisher matrix on one batch."""

from __future__ import annotations

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from agents.functional.divergence import ActionDistribution, mean_kl
from agents.functional.fisher import MatVec, flatten, write_flat
from agents.policy_model import policy_model

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
        self._actions = actions
        self._advantages = advantages
        self._model = policy_model(policy, observations)
        self.parameters = self._model.parameters
        distribution = self._model.distribution()
        # SB3 keeps one object per policy and changes it; torch's own inside stays as it is.
        self._old: ActionDistribution = distribution.distribution
        log_prob = distribution.log_prob(actions)
        self._old_log_prob = log_prob.detach()
        self.entropy = _mean_entropy(distribution.entropy(), self._old_log_prob)
        """Mean entropy of the action distributions at θ_old, in nats."""
        self._objective = (torch.exp(log_prob - self._old_log_prob) * advantages).mean()

    def point(self) -> torch.Tensor:
        """Return the policy's present parameters as one new vector of shape ``(n,)``."""
        return flatten(parameter.detach() for parameter in self.parameters)

    def gradient(self) -> torch.Tensor:
        """Return ``∇L`` at θ_old, shape ``(n,)``."""
        return self._model.gradient(self._objective)

    def fisher_vector_product(self, damping: float, subsampling: int = 1) -> MatVec:
        """Return ``v ↦ (F + damping · I) v`` at θ_old.

        :param subsampling: ``F`` is averaged over every so many-th state of the batch.
        """
        return self._model.fisher_vector_product(damping, subsampling)

    @torch.no_grad()
    def evaluate(self, candidate: torch.Tensor) -> tuple[float, float]:
        """Write ``candidate`` into the policy and measure it.

        :param candidate: shape ``(n,)``.
        :return: the gain ``L(candidate) − L(θ_old)`` and the mean ``KL(π_old ‖ π_candidate)``;
            both NaN if the candidate's distributions are not even defined.
        """
        write_flat(candidate, self.parameters)
        try:
            distribution = self._model.candidate()
        except ValueError:  # torch refuses distributions with NaN parameters
            return float("nan"), float("nan")
        ratio = torch.exp(distribution.log_prob(self._actions) - self._old_log_prob)
        gain = ((ratio - 1.0) * self._advantages).mean()
        return float(gain), float(mean_kl(self._old, distribution.distribution))


def _mean_entropy(entropy: torch.Tensor | None, log_prob: torch.Tensor) -> float:
    """Return the mean entropy; a squashed Gaussian has no closed form and is estimated."""
    return float(-log_prob.mean() if entropy is None else entropy.detach().mean())
