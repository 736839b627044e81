"""The KL-penalised surrogate of PPO-KL: its loss, its gradient and its penalty coefficient.

``L(θ) = −E[π_θ/π_old · A] + β · E[KL(π_old ‖ π_θ)] + vf_coef · E[(V − return)²] − ent_coef · H``,
minimised by minibatch steps. Two learners with one interface: :class:`HandLearner` differentiates
the common Gaussian MLP by hand, :class:`AutogradLearner` any policy automatically. Both take the
same steps, up to rounding.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from agents.flat_adam import FlatAdam
from agents.functional.divergence import ActionDistribution, mean_kl, take_states
from agents.gaussian_mlp import GaussianMLP, GaussianSweep, find_gaussian_mlp

__all__ = [
    "KL_COEF_RANGE",
    "AutogradLearner",
    "Coefficients",
    "HandLearner",
    "Learner",
    "Losses",
    "PenalizedBatch",
    "adapted_kl_coef",
    "make_learner",
]

KL_COEF_RANGE = (1e-4, 1e4)
"""What an adaptive ``β`` stays within, so that it comes back in a few updates."""


def adapted_kl_coef(kl_coef: float, mean_kl: float, target_kl: float) -> float:
    """Return the penalty coefficient of the next update.

    ``β/2`` if the measured KL is below ``target_kl / 1.5``, ``2β`` if it is above
    ``1.5 · target_kl``, else ``β``; within :data:`KL_COEF_RANGE`.

    :param kl_coef: ``β`` of the update that was made.
    :param mean_kl: ``E[KL(π_old ‖ π_new)]`` that it led to, in nats.
    :param target_kl: ``d_targ``, in nats.

    Ref: Schulman et al. 2017, arXiv:1707.06347, section 4. Differs from it: the range. After a
    long stretch of small steps an unbounded ``β`` would need as many updates to grow again.
    """
    lowest, highest = KL_COEF_RANGE
    if mean_kl < target_kl / 1.5:
        return max(kl_coef / 2.0, lowest)
    if mean_kl > 1.5 * target_kl:
        return min(2.0 * kl_coef, highest)
    return kl_coef


class Coefficients(NamedTuple):
    """The weights of the loss's terms."""

    kl: float
    """``β``."""
    entropy: float
    value: float


class Losses(NamedTuple):
    """The terms of the loss on one minibatch, before the step that it led to."""

    surrogate: float
    """``E[π_θ/π_old · A]``."""
    mean_kl: float
    """``E[KL(π_old ‖ π_θ)]``."""
    value: float
    """``E[(V − return)²]``."""
    entropy: float
    total: float


class PenalizedBatch(NamedTuple):
    """N samples of the policy that is to be improved."""

    observations: PyTorchObs
    actions: torch.Tensor
    """As ``Distribution.log_prob`` takes them."""
    old_log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    """The last three of shape ``(N,)``."""


class Learner(Protocol):
    """Takes steps on one batch; made at θ_old."""

    def step(
        self, index: torch.Tensor, coefficients: Coefficients, max_grad_norm: float
    ) -> Losses | None:
        """Step along the gradient on the samples at ``index``; None if it is not finite."""

    def finish(self) -> float:
        """Leave the policy as the steps made it; return ``E[KL(π_old ‖ π_θ)]`` of the batch."""


def make_learner(policy: ActorCriticPolicy, batch: PenalizedBatch) -> Learner:
    """Return the learner that suits ``policy``."""
    networks = find_gaussian_mlp(policy)
    if networks is not None and FlatAdam.can_take_over(policy.optimizer, networks.parameters):
        return HandLearner(networks, batch)
    return AutogradLearner(policy, batch)


class HandLearner:
    """Steps the common Gaussian MLP with gradients by hand on one flat vector.

    :param networks: of a policy whose optimiser is plain Adam.
    :param batch: with actions of shape ``(N, n_actions)``.
    """

    def __init__(self, networks: GaussianMLP, batch: PenalizedBatch) -> None:
        self._networks = networks
        self._batch = batch
        self._adam = FlatAdam(networks.policy.optimizer, networks.parameters)
        with torch.no_grad():
            self._inputs = networks.actor.inputs(networks.policy, batch.observations)
            self._old_means = networks.actor.outputs(self._inputs)
            self._old_log_std = self._adam.views[0].clone()

    @torch.no_grad()
    def step(
        self, index: torch.Tensor, coefficients: Coefficients, max_grad_norm: float
    ) -> Losses | None:
        """Step along the gradient on the samples at ``index``; None if it is not finite."""
        batch, n_samples = self._batch, len(index)
        sweep = self._networks.sweep(self._adam.views, self._inputs[index], batch.actions[index])
        weighted = torch.exp(sweep.log_prob - batch.old_log_prob[index]) * batch.advantages[index]
        kl, d_means, d_log_std = self._divergence(sweep, index)
        errors = sweep.values - batch.returns[index]
        d_means_policy, d_log_std_policy = sweep.output_gradients(
            weighted / -n_samples, -coefficients.entropy
        )
        gradient = sweep.backward(
            d_means_policy.add_(d_means, alpha=coefficients.kl),
            d_log_std_policy.add_(d_log_std, alpha=coefficients.kl),
            errors * (2.0 * coefficients.value / n_samples),
        )
        norm = float(torch.linalg.vector_norm(gradient))
        if not math.isfinite(norm):
            return None
        surrogate = float(weighted.mean())
        value_loss = float(errors @ errors) / n_samples
        self._adam.step(gradient.mul_(min(1.0, max_grad_norm / (norm + 1e-6))))
        return _losses(coefficients, surrogate, kl, value_loss, sweep.entropy)

    def _divergence(
        self, sweep: GaussianSweep, index: torch.Tensor
    ) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Return ``E[KL(π_old ‖ π_θ)]`` and its derivatives by the means and by ``log σ``.

        ``KL = Σ_j log σ_j − log σ_old,j + (σ_old,j² + (μ_j − μ_old,j)²) / 2σ_j² − ½``.
        """
        log_std = self._adam.views[0]
        shift = (sweep.actor.outputs - self._old_means[index]).mul_(sweep.inverse_std)
        spread = torch.exp(2.0 * (self._old_log_std - log_std))
        second_moment = spread + (shift * shift).mean(dim=0)
        kl = float((log_std - self._old_log_std + 0.5 * (second_moment - 1.0)).sum())
        return kl, shift.mul_(sweep.inverse_std / len(index)), 1.0 - second_moment

    @torch.no_grad()
    def finish(self) -> float:
        """Leave the policy as the steps made it; return ``E[KL(π_old ‖ π_θ)]`` of the batch."""
        self._adam.write_back()
        networks, batch = self._networks, self._batch
        sweep = networks.sweep(self._adam.views, self._inputs, batch.actions)
        everything = torch.arange(len(self._inputs), device=self._inputs.device)
        return self._divergence(sweep, everything)[0]


class AutogradLearner:
    """Steps any policy of SB3 with its own optimiser.

    :param policy: at θ_old.
    :param batch: of its samples.
    """

    def __init__(self, policy: ActorCriticPolicy, batch: PenalizedBatch) -> None:
        self._policy = policy
        self._batch = batch
        with torch.no_grad():
            self._old = policy.get_distribution(batch.observations).distribution

    def step(
        self, index: torch.Tensor, coefficients: Coefficients, max_grad_norm: float
    ) -> Losses | None:
        """Step along the gradient on the samples at ``index``; None if it is not finite."""
        policy, batch = self._policy, self._batch
        log_prob, values, entropy, distribution = _evaluate(
            policy, _take(batch.observations, index), batch.actions[index]
        )
        ratio = torch.exp(log_prob - batch.old_log_prob[index])
        surrogate = (ratio * batch.advantages[index]).mean()
        kl = mean_kl(take_states(self._old, index), distribution)
        value_loss = nn.functional.mse_loss(values, batch.returns[index])
        loss = (
            coefficients.kl * kl
            - surrogate
            + coefficients.value * value_loss
            - coefficients.entropy * entropy
        )
        policy.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm)
        if not torch.isfinite(norm):
            policy.optimizer.zero_grad()
            return None
        policy.optimizer.step()
        return _losses(coefficients, surrogate.item(), kl.item(), value_loss.item(), entropy.item())

    @torch.no_grad()
    def finish(self) -> float:
        """Leave the policy as the steps made it; return ``E[KL(π_old ‖ π_θ)]`` of the batch."""
        new = self._policy.get_distribution(self._batch.observations).distribution
        return float(mean_kl(self._old, new))


def _losses(
    coefficients: Coefficients, surrogate: float, kl: float, value_loss: float, entropy: float
) -> Losses:
    total = (
        coefficients.kl * kl
        - surrogate
        + coefficients.value * value_loss
        - coefficients.entropy * entropy
    )
    return Losses(surrogate, kl, value_loss, entropy, total)


def _evaluate(
    policy: ActorCriticPolicy, observations: PyTorchObs, actions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, ActionDistribution]:
    """Return log-probabilities, values, the mean entropy and the distributions themselves."""
    values, log_prob, entropy = policy.evaluate_actions(observations, actions)
    if type(policy).evaluate_actions is ActorCriticPolicy.evaluate_actions:
        distribution = policy.action_dist.distribution  # those that were just evaluated
    else:
        distribution = policy.get_distribution(observations).distribution
    # A squashed Gaussian's entropy has no closed form.
    mean_entropy = -log_prob.mean() if entropy is None else entropy.mean()
    return log_prob, values.flatten(), mean_entropy, distribution


def _take(observations: PyTorchObs, index: torch.Tensor) -> PyTorchObs:
    if isinstance(observations, dict):
        return {key: value[index] for key, value in observations.items()}
    return observations[index]
