"""What a worker sends to the learner: a segment as callbacks and logs need it, or its failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.a3c.gradient import SegmentGradient
from agents.a3c.shared_normalizer import Moments

__all__ = ["SegmentReport", "UpdateReport", "WorkerFailure"]


@dataclass(frozen=True)
class UpdateReport:
    """One gradient and what became of it."""

    policy_loss: float
    value_loss: float
    entropy_loss: float
    gradient_norm: float
    explained_variance: float
    staleness: int
    """Updates by other workers between the pull and the push of this gradient."""
    skipped: bool
    """Whether the gradient was not finite and nothing was pushed."""

    @classmethod
    def of(
        cls, segment: SegmentGradient, explained_variance: float, staleness: int
    ) -> UpdateReport:
        """Return the report of a gradient."""
        return cls(
            policy_loss=segment.policy_loss,
            value_loss=segment.value_loss,
            entropy_loss=segment.entropy_loss,
            gradient_norm=segment.norm,
            explained_variance=explained_variance,
            staleness=staleness,
            skipped=not segment.is_finite,
        )


@dataclass(frozen=True)
class SegmentReport:
    """A segment of ``n_steps`` steps in each of a worker's ``n_envs`` environments."""

    worker: int
    rewards: np.ndarray[Any, Any]
    """Shape ``(n_steps, n_envs)``; so are the ends."""
    dones: np.ndarray[Any, Any]
    infos: dict[tuple[int, int], dict[str, Any]]
    """By step and environment: what there is to know about an episode that ended."""
    update: UpdateReport
    moments: Moments | None
    """Of the raw observations and rewards, if they are normalised."""


@dataclass(frozen=True)
class WorkerFailure:
    """An exception in a worker, in words."""

    message: str
    """The exception in one line."""
    traceback: str
