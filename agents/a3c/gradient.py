"""The gradient of one segment: what a worker pushes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from torch.nn.functional import mse_loss

from agents.a3c.lstm_policy import LstmPolicy, LstmState
from agents.functional.advantages import standardized
from agents.functional.fisher import flatten
from agents.gaussian_mlp import GaussianMLP, find_gaussian_mlp
from agents.rollout_batch import whole_batch

__all__ = ["LossWeights", "SegmentGradient", "SegmentLoss"]


@dataclass(frozen=True)
class LossWeights:
    """How the terms of the loss are weighed.

    :param ent_coef: ``β``, weight of the entropy bonus.
    :param vf_coef: weight of the value loss.
    :param max_grad_norm: longest gradient that is pushed; a longer one is scaled down.
    :param normalize_advantage: scale the segment's advantages to mean 0, standard deviation 1.
    :param correct_exploration: weigh each sample by ``min(1, π/b)``, ``b`` the policy that acted.
    """

    ent_coef: float
    vf_coef: float
    max_grad_norm: float
    normalize_advantage: bool = False
    correct_exploration: bool = False


@dataclass(frozen=True)
class SegmentGradient:
    """The gradient of the loss and the loss's parts."""

    gradient: torch.Tensor
    """Clipped, shape ``(n,)``, in the order of :attr:`SegmentLoss.parameters`."""
    norm: float
    """Before clipping."""
    policy_loss: float
    value_loss: float
    entropy_loss: float

    @property
    def is_finite(self) -> bool:
        """Whether the gradient can be used."""
        return math.isfinite(self.norm)


class SegmentLoss:
    """``−mean(A log π) + vf_coef · mean((R − V)²) − ent_coef · mean(H)`` and its gradient.

    The common Gaussian MLP is differentiated by hand, any other policy automatically. Which of
    the two is found out once: changes of the policy's structure need a new object.

    :param policy: whose parameters are trained.
    :param weights: of the loss.

    Ref: Mnih et al. 2016, arXiv:1602.01783, algorithm S3. Differs from it: means over the
    segment, not sums, so that the learning rate does not depend on the segment's length.
    """

    def __init__(self, policy: ActorCriticPolicy, weights: LossWeights) -> None:
        self._policy = policy
        self._weights = weights
        self._networks = find_gaussian_mlp(policy)
        self.parameters: list[nn.Parameter] = (
            [parameter for parameter in policy.parameters() if parameter.requires_grad]
            if self._networks is None
            else self._networks.parameters
        )
        """What the gradient is about, in its order: the same in each process."""

    def gradient(
        self, buffer: RolloutBuffer, start_state: LstmState | None = None
    ) -> SegmentGradient:
        """Differentiate the loss of one segment.

        :param buffer: full; the policy is at the parameters that collected it.
        :param start_state: of a recurrent policy when the segment began.
        """
        self._policy.set_training_mode(True)
        if self._networks is not None and type(buffer) is RolloutBuffer:
            return self._by_hand(self._networks, buffer)
        return self._by_autograd(buffer, start_state)

    @torch.no_grad()
    def _by_hand(self, networks: GaussianMLP, buffer: RolloutBuffer) -> SegmentGradient:
        weights = self._weights
        batch = whole_batch(buffer, networks)
        sweep = networks.sweep(networks.parameters, batch.inputs, batch.actions)
        advantages = self._advantages(batch.advantages, sweep.log_prob, batch.old_log_prob)
        n_samples = len(advantages)
        errors = sweep.values - batch.returns
        gradient = sweep.gradient(
            advantages / -n_samples, errors * (2.0 * weights.vf_coef / n_samples), -weights.ent_coef
        )
        return self._clipped(
            gradient,
            policy_loss=-float((advantages * sweep.log_prob).mean()),
            value_loss=float(errors @ errors) / n_samples,
            entropy_loss=-sweep.entropy,
        )

    def _by_autograd(self, buffer: RolloutBuffer, start_state: LstmState | None) -> SegmentGradient:
        weights = self._weights
        samples = _evaluate(self._policy, buffer, start_state)
        log_prob, entropy = samples.log_prob, samples.entropy
        advantages = self._advantages(samples.advantages, log_prob.detach(), samples.old_log_prob)
        policy_loss = -(advantages * log_prob).mean()
        value_loss = mse_loss(samples.returns, samples.values.flatten())
        # Without a closed form the sampled log-probability stands in for the entropy, as in SB3.
        entropy_loss = log_prob.mean() if entropy is None else -entropy.mean()
        loss = policy_loss + weights.ent_coef * entropy_loss + weights.vf_coef * value_loss
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        flat = flatten(
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(self.parameters, gradients, strict=True)
        )
        return self._clipped(flat, policy_loss.item(), value_loss.item(), entropy_loss.item())

    def _advantages(
        self, advantages: torch.Tensor, log_prob: torch.Tensor, old_log_prob: torch.Tensor
    ) -> torch.Tensor:
        """Return what each sample's ``log π`` is weighed by."""
        if self._weights.normalize_advantage:
            advantages = standardized(advantages)
        if self._weights.correct_exploration:
            advantages = advantages * torch.exp(log_prob - old_log_prob).clamp(max=1.0)
        return advantages

    def _clipped(
        self, gradient: torch.Tensor, policy_loss: float, value_loss: float, entropy_loss: float
    ) -> SegmentGradient:
        norm = float(torch.linalg.vector_norm(gradient))
        gradient = gradient * min(1.0, self._weights.max_grad_norm / (norm + 1e-6))
        return SegmentGradient(gradient, norm, policy_loss, value_loss, entropy_loss)


class _Samples(NamedTuple):
    """A segment's samples, the first three with their graphs."""

    values: torch.Tensor
    log_prob: torch.Tensor
    entropy: torch.Tensor | None
    old_log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


def _evaluate(
    policy: ActorCriticPolicy, buffer: RolloutBuffer, start_state: LstmState | None
) -> _Samples:
    if isinstance(policy, LstmPolicy):
        if start_state is None:
            raise RuntimeError("a recurrent policy needs the state that its segment began with")
        held = (buffer.log_probs, buffer.advantages, buffer.returns)
        return _Samples(
            *policy.evaluate_segment(buffer, start_state),
            *(torch.as_tensor(array, device=policy.device).flatten() for array in held),
        )
    batch = next(iter(buffer.get(batch_size=None)))
    actions = batch.actions
    if isinstance(policy.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    return _Samples(
        *policy.evaluate_actions(batch.observations, actions),
        old_log_prob=batch.old_log_prob,
        advantages=batch.advantages,
        returns=batch.returns,
    )
