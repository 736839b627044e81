"""Kullback-Leibler divergence between two policies' action distributions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributions import Distribution, kl_divergence

__all__ = ["ActionDistribution", "mean_kl", "take_states"]

ActionDistribution = Distribution | Sequence[Distribution]
"""One distribution whose trailing dimensions are independent actions, or one per sub-action."""


def mean_kl(old: ActionDistribution, new: ActionDistribution) -> torch.Tensor:
    """Return the mean over states of ``KL(old ‖ new)``, in that order, in nats.

    The order is the one TRPO constrains (Schulman et al. 2015, arXiv:1502.05477, eq. 14): the
    expectation is taken under ``old``, the policy that collected the data.

    :param old: distributions of batch shape ``(N,)`` or ``(N, n_actions)``, or a sequence of such.
    :param new: the same structure.
    :return: a scalar.
    """
    if isinstance(old, Distribution) and isinstance(new, Distribution):
        divergence = kl_divergence(old, new)
        if divergence.dim() > 1:
            divergence = divergence.flatten(start_dim=1).sum(dim=1)
        return divergence.mean()
    if isinstance(old, Distribution) or isinstance(new, Distribution):
        raise ValueError(f"cannot compare {type(old).__name__} with {type(new).__name__}")
    parts = [mean_kl(before, after) for before, after in zip(old, new, strict=True)]
    return torch.stack(parts).sum()


def take_states(distribution: ActionDistribution, index: torch.Tensor) -> ActionDistribution:
    """Return the distributions of the states at ``index``.

    :param distribution: of batch shape ``(N,)`` or ``(N, n_actions)``, or a sequence of such; any
        of torch's that is made from its ``arg_constraints``.
    :param index: shape ``(B,)``.
    """
    if not isinstance(distribution, Distribution):
        return [_take(part, index) for part in distribution]
    return _take(distribution, index)


def _take(distribution: Distribution, index: torch.Tensor) -> Distribution:
    names = set(distribution.arg_constraints)
    if "logits" in names:  # the same as the probabilities, which would be one argument too many
        names.discard("probs")
    parameters = {name: getattr(distribution, name)[index] for name in names}
    return type(distribution)(**parameters, validate_args=False)
