"""Backtracking line search under a constraint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

__all__ = ["LineSearchResult", "backtracking_line_search"]


class LineSearchResult(NamedTuple):
    """What :func:`backtracking_line_search` chose."""

    point: torch.Tensor
    """The accepted candidate; the very ``start`` that was given if none passed."""
    fraction: float
    """Fraction of the full step that was taken; 0 if none passed."""
    n_backtracks: int
    """How often the step was shortened."""
    gain: float
    """Gain at ``point``; 0 if none passed."""
    constraint: float
    """Constraint at ``point``; 0 if none passed."""
    accepted: bool


def backtracking_line_search(
    evaluate: Callable[[torch.Tensor], tuple[float, float]],
    start: torch.Tensor,
    full_step: torch.Tensor,
    *,
    predicted_gain: float,
    max_constraint: float,
    shrink: float = 0.8,
    max_backtracks: int = 10,
    accept_ratio: float = 0.1,
) -> LineSearchResult:
    """Take the first of ``start + shrinkᵏ · full_step``, k = 0, 1, …, that is good enough.

    Good enough is ``gain ≥ accept_ratio · shrinkᵏ · predicted_gain`` and ``constraint ≤
    max_constraint``. The bar is linear in the fraction: after three backtracks with ``shrink`` 0.5
    it is 1/8 of the first, not 1/64. A gain or constraint that is not finite fails.

    :param evaluate: maps a candidate of shape ``(n,)`` to its gain over ``start`` and its
        constraint value.
    :param start: shape ``(n,)``.
    :param full_step: shape ``(n,)``.
    :param predicted_gain: first-order gain of the full step, ``gradient · full_step``.
    :param max_constraint: largest constraint value that is accepted.
    :param shrink: factor in (0, 1) from one candidate to the next.
    :param max_backtracks: try at most ``1 + max_backtracks`` candidates.
    :param accept_ratio: share of the predicted gain that is asked for; 0 asks for no loss.
    :return: the choice; if no candidate passes, ``start`` itself, untouched.

    Ref: Schulman et al. 2015, arXiv:1502.05477, appendix C (the constraint); the bar is Armijo's
    condition.
    """
    fraction = 1.0
    for n_backtracks in range(max_backtracks + 1):
        candidate = start + fraction * full_step
        gain, constraint = evaluate(candidate)
        if (
            math.isfinite(gain)
            and math.isfinite(constraint)
            and gain >= accept_ratio * fraction * predicted_gain
            and constraint <= max_constraint
        ):
            return LineSearchResult(candidate, fraction, n_backtracks, gain, constraint, True)
        fraction *= shrink
    return LineSearchResult(start, 0.0, max_backtracks, 0.0, 0.0, False)
