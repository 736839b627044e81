"""What the learner tells its workers, in shared memory: one writer per entry, no lock."""

from __future__ import annotations

from multiprocessing.context import BaseContext
from typing import Any

import numpy as np

__all__ = ["Control"]


class Control:
    """Permissions, the learning rate and the wish to stop.

    Hand it to a process as an argument. The learner writes; a worker reads.

    :param context: of the processes to come.
    :param n_workers: how many.
    """

    def __init__(self, context: BaseContext, n_workers: int) -> None:
        self._raw: tuple[Any, Any, Any] = (
            context.RawArray("q", n_workers),
            context.RawArray("d", 1),
            context.RawArray("b", 1),
        )
        self._map()

    def _map(self) -> None:
        raw_granted, raw_learning_rate, raw_stop = self._raw
        self.granted = np.frombuffer(raw_granted, np.int64)
        """Segments that each worker may have run in all."""
        self._learning_rate = np.frombuffer(raw_learning_rate, np.float64)
        self._stop = np.frombuffer(raw_stop, np.int8)

    def __getstate__(self) -> dict[str, Any]:
        return {"_raw": self._raw}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next pushes."""
        return float(self._learning_rate[0])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate[0] = value

    @property
    def is_stopping(self) -> bool:
        """Whether the workers are to end."""
        return bool(self._stop[0])

    def stop(self) -> None:
        """Ask the workers to end at their next step."""
        self._stop[0] = 1
