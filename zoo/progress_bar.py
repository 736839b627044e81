"""Progress on standard error, for training and for everything else that takes long."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

__all__ = ["ProgressBar", "progress_bar"]


class _Bar(tqdm):  # type: ignore[type-arg]
    monitor_interval = 0  # no thread that watches the bar


def progress_bar(total: int, name: str, unit: str, *, initial: int = 0) -> tqdm[Any]:
    """Return a bar on standard error; in a file it writes a line now and then."""
    return _Bar(
        total=total,
        initial=initial,
        desc=name,
        unit=unit,
        unit_scale=True,
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=_bar_period(),
        miniters=1,
    )


def _bar_period() -> float:
    return 0.2 if sys.stderr.isatty() else 15.0


class ProgressBar(BaseCallback):
    """A bar on standard error: steps, steps/s, time left and the mean training return."""

    def __init__(self, n_timesteps: int, name: str) -> None:
        super().__init__()
        self._n_timesteps = n_timesteps
        self._name = name
        self._bar: tqdm[Any] | None = None
        self._next_update = 0.0

    def _on_training_start(self) -> None:
        self._bar = progress_bar(
            self._n_timesteps, self._name, "step", initial=self.model.num_timesteps
        )

    def _on_step(self) -> bool:
        if time.monotonic() >= self._next_update:
            self._update()
        return True

    def close(self) -> None:
        """Leave the bar as it stands, also after an error."""
        if self._bar is not None:
            self._update()
            self._bar.close()
            self._bar = None

    def _update(self) -> None:
        if self._bar is None:
            return
        episodes = self.model.ep_info_buffer
        if episodes:
            mean = np.mean([episode["r"] for episode in episodes])
            self._bar.set_postfix_str(f"return {mean:.1f}", refresh=False)
        # A stopped run has gone back to its last whole update.
        done = min(self.model.num_timesteps, self._n_timesteps)
        self._bar.update(max(done - self._bar.n, 0))
        self._next_update = time.monotonic() + _bar_period()
