"""What the log says about updates."""

from __future__ import annotations

from agents.a3c.reports import UpdateReport

__all__ = ["UpdateLog"]


class UpdateLog:
    """The last update's losses, and the staleness of all since the last row of the log."""

    def __init__(self) -> None:
        self._last: UpdateReport | None = None
        self.reset()

    def reset(self) -> None:
        """Begin a new row."""
        self._n_updates = 0
        self._total_staleness = 0
        self._largest_staleness = 0

    def add(self, update: UpdateReport) -> None:
        """Take an update in."""
        self._last = update
        self._n_updates += 1
        self._total_staleness += update.staleness
        self._largest_staleness = max(self._largest_staleness, update.staleness)

    def metrics(self) -> dict[str, float]:
        """Return the values to log, empty before the first update."""
        if self._last is None:
            return {}
        return {
            "policy_loss": self._last.policy_loss,
            "value_loss": self._last.value_loss,
            "entropy_loss": self._last.entropy_loss,
            "gradient_norm": self._last.gradient_norm,
            "explained_variance": self._last.explained_variance,
            "staleness": self._total_staleness / max(self._n_updates, 1),
            "staleness_max": self._largest_staleness,
        }
