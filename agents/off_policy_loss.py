"""Off-PAC's losses on one batch of trajectories, for any policy of SB3's actor-critic kind."""

from __future__ import annotations

from typing import NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from agents.functional.gradient_td import gtd_weights
from agents.functional.off_policy import (
    effective_sample_size,
    emphatic_weights,
    importance_ratios,
    off_policy_advantages,
)
from agents.gradient_critic import SecondaryCritic, evaluate_states
from agents.trajectory_buffer import TrajectoryBatch

__all__ = ["OffPolicyLoss", "OffPolicySettings", "off_policy_loss"]


class OffPolicySettings(NamedTuple):
    """What decides the losses; see :class:`agents.off_pac.OffPAC` for each of them."""

    gamma: float
    gae_lambda: float
    max_ratio: float | None
    emphasis: float
    normalize_advantage: bool
    gradient_correction: bool


class OffPolicyLoss(NamedTuple):
    """Losses of actor, critic and secondary weights, and what to log about the batch."""

    policy_loss: torch.Tensor
    """``−mean(M ρ A log π)``; its gradient is minus Off-PAC's actor step."""
    entropy: torch.Tensor
    """Mean entropy of the target policy in the batch's states."""
    critic_loss: torch.Tensor
    """Its gradient by the critic's parameters is minus GTD(λ)'s step; the value means nothing."""
    secondary_loss: torch.Tensor
    """``½ mean((ρ A − h)²)``."""
    metrics: dict[str, float]


def off_policy_loss(
    policy: ActorCriticPolicy,
    secondary: SecondaryCritic,
    batch: TrajectoryBatch,
    settings: OffPolicySettings,
) -> OffPolicyLoss:
    """Return the losses whose gradients are Off-PAC's updates, averaged over the batch's steps.

    :param policy: the target policy and its critic.
    :param secondary: GTD(λ)'s secondary weights.
    :param batch: trajectories of the behaviour policy.
    :param settings: of the algorithm.
    """
    shape = batch.rewards.shape
    log_probs, entropy = _evaluate_actions(policy, batch)
    ratios = importance_ratios(
        log_probs.detach(), batch.behavior_log_probs, max_ratio=settings.max_ratio
    )
    critic = evaluate_states(policy, _joined(batch.observations, batch.bootstrap_observations))
    n_steps = batch.rewards.numel()
    values, bootstraps = critic.values[:n_steps].reshape(shape), critic.values[n_steps:]
    advantages = off_policy_advantages(
        batch.rewards,
        values.detach(),
        _next_values(values.detach(), bootstraps.detach(), batch.truncated),
        batch.terminated,
        batch.truncated,
        ratios,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
    )
    secondary_values = secondary(critic.features[:n_steps]).reshape(shape)
    gtd = gtd_weights(
        advantages,
        secondary_values.detach(),
        ratios,
        batch.terminated,
        batch.truncated,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
    )
    ascent = gtd.on_values * values
    if settings.gradient_correction:
        ascent = ascent + gtd.on_next_values * _next_values(values, bootstraps, batch.truncated)
    errors = gtd.secondary_targets - secondary_values
    weights = emphatic_weights(
        ratios,
        batch.terminated | batch.truncated,
        gamma=settings.gamma,
        emphasis=settings.emphasis,
    )
    scaled = _normalized(advantages, ratios) if settings.normalize_advantage else advantages
    return OffPolicyLoss(
        -(weights * ratios * scaled * log_probs).mean(),
        entropy,
        -ascent.mean(),
        0.5 * errors.square().mean(),
        _metrics(log_probs.detach(), batch, ratios, values.detach(), advantages)
        | _critic_metrics(secondary_values.detach(), gtd.secondary_targets),
    )


def _critic_metrics(values: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    errors = targets - values
    # The saddle-point form of the error: equal to it where w is at its optimum.
    mspbe = float((values * (errors + targets)).mean())
    return {"mspbe": mspbe, "secondary_loss": float(errors.square().mean()) / 2.0}


def _evaluate_actions(
    policy: ActorCriticPolicy, batch: TrajectoryBatch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log π of each step's action, and the mean entropy."""
    distribution = policy.get_distribution(batch.observations)
    log_probs = distribution.log_prob(_actions(policy, batch.actions)).reshape(batch.rewards.shape)
    entropy = distribution.entropy()
    if entropy is None:  # a squashed Gaussian's has no closed form
        entropy = -log_probs
    return log_probs, entropy.mean()


def _actions(policy: ActorCriticPolicy, actions: torch.Tensor) -> torch.Tensor:
    """Return actions as the distribution takes them."""
    return actions.long().flatten() if isinstance(policy.action_space, spaces.Discrete) else actions


def _joined(first: PyTorchObs, second: PyTorchObs) -> PyTorchObs:
    if isinstance(first, dict) and isinstance(second, dict):
        return {key: torch.cat([values, second[key]]) for key, values in first.items()}
    return torch.cat([first, second])  # type: ignore[list-item]


def _next_values(
    values: torch.Tensor, bootstraps: torch.Tensor, truncated: torch.Tensor
) -> torch.Tensor:
    """Return ``V(s_{t+1})``: the next row, or ``bootstraps`` where the trajectory is cut off."""
    following = torch.cat([values[1:], torch.zeros_like(values[:1])])
    return following.masked_scatter(truncated, bootstraps)


def _normalized(advantages: torch.Tensor, ratios: torch.Tensor) -> torch.Tensor:
    """Return advantages of mean 0 and standard deviation 1 under the target policy."""
    weights = ratios / ratios.sum().clamp_min(1e-8)
    centered = advantages - (weights * advantages).sum()
    spread = (weights * centered.square()).sum().sqrt()
    # What is left of equal advantages is rounding.
    if spread <= 1e-6 * advantages.abs().max():
        return torch.zeros_like(advantages)
    return centered / (spread + 1e-8)


def _metrics(
    log_probs: torch.Tensor,
    batch: TrajectoryBatch,
    ratios: torch.Tensor,
    values: torch.Tensor,
    advantages: torch.Tensor,
) -> dict[str, float]:
    log_ratios = log_probs - batch.behavior_log_probs
    unexplained = float(advantages.var(correction=0))
    total = float((advantages + values).var(correction=0))
    return {
        "ratio_mean": float(ratios.mean()),
        "ratio_max": float(log_ratios.max().exp()),
        "clipped_ratios": float((log_ratios.exp() > ratios).float().mean()),
        "effective_sample_size": effective_sample_size(ratios),
        # E_b[ρ − 1 − log ρ] = KL(b ‖ π), each term of which is positive.
        "behavior_kl": float((log_ratios.exp() - 1.0 - log_ratios).mean()),
        "value_loss": float((ratios * advantages).square().mean()),
        "explained_variance": 1.0 - unexplained / total if total > 0.0 else 0.0,
    }
