"""What may stand for Ψ in the policy gradient ``E[Σ_t Ψ_t ∇log π(a_t|s_t)]``.

Returns of whole episodes for REINFORCE, a critic's judgement for actor-critic. Each is an entry of
a table; the algorithms only look it up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from stable_baselines3.common.type_aliases import RolloutBufferSamples

__all__ = ["CRITIC_ESTIMATORS", "RETURN_ESTIMATORS", "CriticEstimator", "ReturnEstimator"]


class ReturnEstimator(NamedTuple):
    """Ψ by the returns of whole episodes."""

    psi: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    """Maps rewards-to-go, whole returns and the baseline's values, each of one sample per entry, to
    Ψ; all of the same shape."""
    has_baseline: bool
    """Whether there is a baseline ``V(s)``, which then also stands in after a time limit."""


RETURN_ESTIMATORS: Mapping[str, ReturnEstimator] = MappingProxyType(
    {
        "return": ReturnEstimator(
            psi=lambda returns_to_go, whole_returns, values: whole_returns,
            has_baseline=False,
        ),
        "reward_to_go": ReturnEstimator(
            psi=lambda returns_to_go, whole_returns, values: returns_to_go,
            has_baseline=False,
        ),
        "baseline": ReturnEstimator(
            psi=lambda returns_to_go, whole_returns, values: returns_to_go - values,
            has_baseline=True,
        ),
    }
)
"""By the name that :class:`~agents.reinforce.REINFORCE` knows it by."""


class CriticEstimator(NamedTuple):
    """Ψ by a critic, from a rollout whose values and advantages have been computed."""

    psi: Callable[[RolloutBufferSamples], torch.Tensor]
    """Maps a batch to Ψ of its samples, shape ``(N,)``."""
    trace_decay: Callable[[float], float]
    """Maps the algorithm's λ to that of the rollout's advantages and targets."""
    values_actions: bool
    """Whether the critic is ``Q(s, a)`` and not ``V(s)``."""


CRITIC_ESTIMATORS: Mapping[str, CriticEstimator] = MappingProxyType(
    {
        "advantage": CriticEstimator(
            psi=lambda batch: batch.advantages,
            trace_decay=lambda gae_lambda: gae_lambda,
            values_actions=False,
        ),
        "td_residual": CriticEstimator(
            psi=lambda batch: batch.advantages,  # with λ = 0 they are the TD residuals
            trace_decay=lambda gae_lambda: 0.0,
            values_actions=False,
        ),
        "q": CriticEstimator(
            psi=lambda batch: batch.old_values,  # the rollout's values are Q(s_t, a_t)
            trace_decay=lambda gae_lambda: gae_lambda,
            values_actions=True,
        ),
    }
)
"""By the name that :class:`~agents.actor_critic.ActorCritic` knows it by."""
