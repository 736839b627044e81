"""Returns and advantages, with time limits told apart from real ends.

An episode can end in two ways. A real end (``terminated``) has no future, so nothing is added. At
a time limit (``truncated``) the future was only cut off, so its value estimate stands in for it.
Both cut the trace: what follows belongs to another episode.
"""

from __future__ import annotations

import torch

__all__ = ["discounted_returns", "generalized_advantages", "standardized", "whole_returns"]


def generalized_advantages(
    rewards: torch.Tensor,
    values: torch.Tensor,
    next_values: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> torch.Tensor:
    """Return the generalised advantage estimates ``A_t = Σ_l (γλ)^l δ_{t+l}``.

    ``δ_t = r_t + γ V(s_{t+1}) − V(s_t)``, with ``V(s_{t+1}) = 0`` after a real end; the sum stops
    at the end of the episode. λ = 0 gives the TD residual, λ = 1 the Monte-Carlo advantage.

    :param rewards: ``r_t``, shape ``(n_steps, n_envs)``.
    :param values: ``V(s_t)``, same shape.
    :param next_values: ``V(s_{t+1})`` of the state that followed ``s_t`` *before* any reset, same
        shape; ignored where ``terminated``.
    :param terminated: bool, same shape: the episode really ended after step ``t``.
    :param truncated: bool, same shape: it was cut off after step ``t``.
    :param gamma: discount γ in [0, 1].
    :param gae_lambda: trace decay λ in [0, 1].
    :return: shape ``(n_steps, n_envs)``.

    Ref: Schulman et al. 2015, arXiv:1506.02438, eq. 16.
    """
    zero = rewards.new_zeros(())  # chosen, not multiplied by: 0 · NaN would be NaN
    residuals = rewards + gamma * torch.where(terminated, zero, next_values) - values
    ends = terminated | truncated
    advantages = torch.empty_like(residuals)
    following = torch.zeros_like(residuals[0])
    for step in range(len(residuals) - 1, -1, -1):
        following = residuals[step] + gamma * gae_lambda * torch.where(ends[step], zero, following)
        advantages[step] = following
    return advantages


def discounted_returns(
    rewards: torch.Tensor,
    next_values: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    *,
    gamma: float,
) -> torch.Tensor:
    """Return the reward-to-go ``G_t = r_t + γ G_{t+1}``, bootstrapped where the data is cut off.

    :param rewards: ``r_t``, shape ``(n_steps, n_envs)``.
    :param next_values: ``V(s_{t+1})``, same shape; used where ``truncated`` and in the last row
        (pass zeros for a method without a value function).
    :param terminated: bool, same shape: the episode really ended after step ``t``.
    :param truncated: bool, same shape: it was cut off after step ``t``.
    :param gamma: discount γ in [0, 1].
    :return: shape ``(n_steps, n_envs)``.
    """
    zeros = torch.zeros_like(next_values)
    return generalized_advantages(
        rewards,
        zeros,
        _bootstraps(next_values, truncated),
        terminated,
        truncated,
        gamma=gamma,
        gae_lambda=1.0,
    )


def _bootstraps(next_values: torch.Tensor, truncated: torch.Tensor) -> torch.Tensor:
    """Return ``next_values`` where the data is cut off and zero elsewhere."""
    cut_off = truncated.clone()
    cut_off[-1] = True
    return torch.where(cut_off, next_values, torch.zeros_like(next_values))


def whole_returns(returns_to_go: torch.Tensor, episode_starts: torch.Tensor) -> torch.Tensor:
    """Return for each step the return of its whole episode: the reward-to-go of its first step.

    :param returns_to_go: ``G_t``, shape ``(n_steps, n_envs)``; the first row begins an episode.
    :param episode_starts: bool, same shape: an episode began with step ``t``.
    :return: shape ``(n_steps, n_envs)``.
    """
    steps = torch.arange(len(returns_to_go), device=returns_to_go.device).unsqueeze(1)
    starts = torch.where(episode_starts, steps, 0).cummax(dim=0).values
    return returns_to_go.gather(0, starts)


def standardized(weights: torch.Tensor) -> torch.Tensor:
    """Return ``(weights − mean) / standard deviation`` of a batch; zeros if they are all equal.

    :param weights: such as advantages, shape ``(N,)``.
    """
    spread = weights.std()
    # What is left of equal weights is rounding, which must not be blown up to size one.
    if spread <= 1e-6 * weights.abs().max():
        return torch.zeros_like(weights)
    return (weights - weights.mean()) / (spread + 1e-8)
