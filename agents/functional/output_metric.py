"""Fisher information of a distribution with respect to its own parameters.

With ``J`` the Jacobian of those parameters (a network's outputs), the Fisher matrix of the network
is ``Jᵀ M J``. Each function here returns ``M u`` for each state of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["bernoulli_metric", "categorical_metric", "gaussian_mean_metric"]


def gaussian_mean_metric(tangent: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Return ``u / σ²``: the metric of the mean of a diagonal Gaussian.

    The metric of a log standard deviation is the constant 2, whatever its value.

    :param tangent: ``u``, shape ``(N, n_actions)``.
    :param log_std: ``log σ``, shape ``(n_actions,)``.
    """
    return tangent * torch.exp(-2.0 * log_std)


def categorical_metric(
    tangent: torch.Tensor, logits: torch.Tensor, sizes: Sequence[int]
) -> torch.Tensor:
    """Return ``(diag(p) − ppᵀ) u`` for each block of logits, with ``p = softmax(logits)``.

    :param tangent: ``u``, shape ``(N, sum(sizes))``.
    :param logits: same shape.
    :param sizes: number of choices of each independent categorical action.
    """
    blocks = []
    for u, z in zip(
        torch.split(tangent, list(sizes), 1), torch.split(logits, list(sizes), 1), strict=True
    ):
        p = torch.softmax(z, dim=1)
        weighted = p * u
        blocks.append(weighted - p * weighted.sum(dim=1, keepdim=True))
    return torch.cat(blocks, dim=1)


def bernoulli_metric(tangent: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return ``p (1 − p) u`` with ``p = sigmoid(logits)``.

    :param tangent: ``u``, shape ``(N, n_bits)``.
    :param logits: same shape.
    """
    p = torch.sigmoid(logits)
    return tangent * p * (1.0 - p)
