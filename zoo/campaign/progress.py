"""How far the runs of a campaign have come and how long the rest will take."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from zoo.campaign.cells import Cell
from zoo.campaign.planning import Task
from zoo.campaign.results import Result

__all__ = ["Forecast", "duration", "steps_done"]

_TAIL_BYTES = 4096


def steps_done(monitor: Path) -> int:
    """Return the steps that a run under way had trained when its last episode ended.

    :param monitor: its ``0.monitor.csv``, whose last column counts the steps of training.
    """
    try:
        with monitor.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            rows = file.read().split(b"\n")[:-1]
        return int(rows[-1].rpartition(b",")[2])
    except (OSError, ValueError, IndexError):
        return 0


class Forecast:
    """Tells the time that is left from the runs that are finished and those under way.

    Seconds per step are known for an algorithm on a task after its first run, here or in earlier
    sessions of the campaign; until then they are taken from the run that is under way, and where
    there is none, from the mean of all that is known.
    """

    def __init__(self, results: Iterable[Result] = ()) -> None:
        self._paces: dict[tuple[str, str], list[float]] = {}
        for result in results:
            self.learn(result)

    def learn(self, result: Result) -> None:
        """Take a finished run into account."""
        if result.error is None and result.n_timesteps > 0 and result.seconds > 0:
            key = (result.cell.algo, result.cell.env_id)
            self._paces.setdefault(key, []).append(result.seconds / result.n_timesteps)

    def seconds_left(
        self,
        waiting: Sequence[Task],
        running: Sequence[tuple[Task, int, int, float]],
        n_jobs: int,
    ) -> float | None:
        """Return the time until all is done, None while nothing is known.

        :param running: run, its steps when this session took it up and now, and the seconds since.
        :param n_jobs: runs side by side.
        """
        paces = {key: sum(values) / len(values) for key, values in self._paces.items()}
        for task, before, now, seconds in running:
            if now > before:
                paces.setdefault((task.cell.algo, task.cell.env_id), seconds / (now - before))
        if not paces:
            return None
        usual = sum(paces.values()) / len(paces)

        def pace(cell: Cell) -> float:
            return paces.get((cell.algo, cell.env_id), usual)

        left = [
            pace(task.cell) * max(task.config.n_timesteps - now, 0) for task, _, now, _ in running
        ]
        total = sum(left) + sum(pace(task.cell) * task.config.n_timesteps for task in waiting)
        return max([total / max(n_jobs, 1), *left])


def duration(seconds: float) -> str:
    """Return a time for people: ``45 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
