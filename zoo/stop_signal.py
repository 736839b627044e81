"""Ending training cleanly when the process is asked to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stable_baselines3.common.callbacks import BaseCallback

__all__ = ["StopSignal"]


class StopSignal(BaseCallback):
    """Ends training between two steps when the process is asked to stop.

    The first Ctrl-C (or SIGTERM, as a scheduler sends) lets the policy stay what the last whole
    update made it; a second one ends the process at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested = False
        self.cut_short = False
        """Whether the request came early enough to end training before its time."""

    def _on_step(self) -> bool:
        self.cut_short = self.requested
        return not self.requested

    def arrives_within(self, seconds: float) -> bool:
        """Return whether the process is asked to stop, now or in a moment."""
        deadline = time.monotonic() + seconds
        while not self.requested and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.requested

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM inside the block (in the main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, self._request) for number in signals}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
