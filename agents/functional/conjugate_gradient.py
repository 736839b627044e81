"""Conjugate gradient for symmetric positive-definite systems known only through products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

__all__ = ["CGResult", "NotPositiveDefinite", "conjugate_gradient"]


class NotPositiveDefinite(ValueError):
    """A direction ``d`` with ``dᵀAd ≤ 0``, or one that is not a number, was met."""


class CGResult(NamedTuple):
    """What :func:`conjugate_gradient` found."""

    solution: torch.Tensor
    """Shape ``(n,)``."""
    n_iters: int
    """Products with ``A`` that were used."""
    relative_residual: float
    """``‖A x − rhs‖ / ‖rhs‖`` as the recurrence tracks it; 0 for a zero ``rhs``."""
    curvature: float
    """``xᵀ A x = xᵀ (rhs − residual)``, which costs no further product."""


def conjugate_gradient(
    matvec: Callable[[torch.Tensor], torch.Tensor],
    rhs: torch.Tensor,
    *,
    max_iters: int = 10,
    rtol: float = 1e-6,
) -> CGResult:
    """Solve ``A x = rhs`` for symmetric positive-definite ``A`` given only products with it.

    Deterministic, starts from zero, one ``matvec`` per iteration. The system is solved for
    ``rhs / ‖rhs‖`` and the solution scaled back, so that a tiny or a huge ``rhs`` is solved as
    accurately as one of length 1.

    :param matvec: maps a vector of shape ``(n,)`` to ``A`` times it, shape ``(n,)``.
    :param rhs: shape ``(n,)``; a zero vector returns zero at once.
    :param max_iters: at most so many products with ``A``.
    :param rtol: stop when ``‖A x − rhs‖ ≤ rtol · ‖rhs‖`` (dimensionless); no less than the
        rounding error of one operation is asked for.
    :return: the solution, the iterations used and the relative residual reached.
    :raises ValueError: ``rhs`` is not a vector, or not finite.
    :raises NotPositiveDefinite: a direction ``d`` with ``dᵀAd ≤ 0`` or not finite is met.

    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradient(lambda v: A @ v, torch.tensor([1.0, 2.0])).solution
    tensor([0.0909, 0.6364])

    Ref: Hestenes & Stiefel 1952; its use for policies: Schulman et al. 2015, arXiv:1502.05477,
    appendix C. Differs from the common implementations by the relative tolerance, the scaling and
    the zero start: with an absolute tolerance a zero ``rhs`` divides 0 by 0, and a small one is
    left unsolved.
    """
    largest = _largest_entry(rhs)
    if largest == 0.0:
        return CGResult(torch.zeros_like(rhs), 0, 0.0, 0.0)
    residual = rhs / largest  # first, since the squares of tiny or huge entries leave float32
    length = float(torch.linalg.vector_norm(residual))
    residual.div_(length)
    unit_rhs = residual.clone()
    # Below the rounding error the recurrence shrinks on until the curvature underflows to zero.
    tolerance = max(rtol, torch.finfo(rhs.dtype).eps)
    solution = torch.zeros_like(rhs)
    direction = unit_rhs.clone()
    squared_residual = float(residual @ residual)
    n_iters = 0
    while n_iters < max_iters and squared_residual > tolerance * tolerance:
        product = matvec(direction)
        curvature = float(direction @ product)
        if not 0.0 < curvature < math.inf:
            raise NotPositiveDefinite(f"direction with curvature {curvature:.3g} in step {n_iters}")
        step = squared_residual / curvature
        solution.add_(direction, alpha=step)
        residual.sub_(product, alpha=step)
        previous, squared_residual = squared_residual, float(residual @ residual)
        direction.mul_(squared_residual / previous).add_(residual)
        n_iters += 1
    curvature = float(solution @ unit_rhs.sub_(residual)) * length * length * largest * largest
    return CGResult(solution.mul_(length).mul_(largest), n_iters, squared_residual**0.5, curvature)


def _largest_entry(rhs: torch.Tensor) -> float:
    if rhs.dim() != 1:
        raise ValueError(f"rhs must be a vector, got shape {tuple(rhs.shape)}")
    largest = float(rhs.abs().max()) if len(rhs) else 0.0
    if not math.isfinite(largest):
        raise ValueError("rhs is not finite")
    return largest
