"""What a campaign tells on standard error while it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

from zoo.campaign.attempts import Attempt
from zoo.campaign.cells import Cell
from zoo.campaign.planning import Task
from zoo.campaign.progress import Forecast, duration
from zoo.campaign.results import Result

__all__ = ["Reporter"]

_N_LOG_LINES = 10
_SECONDS_BETWEEN_LINES = 300.0  # where standard error is a file


class Reporter:
    """A line for every event; in a terminal, a last line that is kept up to date.

    :param earlier: results of earlier sessions, from which the time left is told.
    """

    def __init__(self, earlier: Iterable[Result] = ()) -> None:
        self._forecast = Forecast(earlier)
        self._is_terminal = sys.stderr.isatty()
        self._status = ""
        self._shown = time.monotonic()
        self._n_tasks = 0
        self._n_finished = 0

    def begin(self, *, n_tasks: int, n_finished: int) -> None:
        """Tell what is to be done."""
        self._n_tasks, self._n_finished = n_tasks, n_finished
        done = f", {n_finished} of them done already" if n_finished else ""
        self._say(f"{n_tasks} run{'s' * (n_tasks != 1)}{done}")

    def started(self, attempt: Attempt) -> None:
        """Tell that a run begins or goes on."""
        how = f"goes on after {attempt.steps_before} steps" if attempt.steps_before else "begins"
        self._say(f"{attempt.task.cell} {how}: {attempt.run.path}")

    def finished(self, result: Result) -> None:
        """Tell a run's result."""
        self._forecast.learn(result)
        self._n_finished += 1
        self._say(
            f"[{self._n_finished}/{self._n_tasks}] {result.cell}: return "
            f"{result.mean_return:.2f} ± {result.std_return:.2f} over {len(result.returns)} "
            f"episodes after {result.n_timesteps} steps in {duration(result.seconds)}"
        )

    def failed(self, attempt: Attempt, error: str, *, is_last: bool) -> None:
        """Tell why a run failed, with the end of its log."""
        next_step = "giving it up" if is_last else "it is tried again later"
        self._say(f"FAILED: {attempt.task.cell}, {next_step}: {error}")
        for line in attempt.last_lines(_N_LOG_LINES):
            self._say(f"    | {line}")

    def elsewhere(self, cell: Cell) -> None:
        """Tell that another process trains a run."""
        self._say(f"{cell} is being trained by another process")

    def show(
        self, waiting: Sequence[Task], running: Sequence[Attempt], n_jobs: int, n_failed: int
    ) -> None:
        """Bring the status up to date: in a terminal at once, in a file every five minutes."""
        progress = [(run.task, run.steps_before, run.steps(), run.seconds) for run in running]
        seconds = self._forecast.seconds_left(waiting, progress, n_jobs)
        parts = [f"{self._n_finished}/{self._n_tasks} done", f"{len(running)} running"]
        parts += [f"{n_failed} failed"] if n_failed else []
        parts += [f"about {duration(seconds)} left"] if seconds and (waiting or running) else []
        self._status = ", ".join(parts)
        if self._is_terminal:
            self._draw_status()
        elif time.monotonic() - self._shown > _SECONDS_BETWEEN_LINES:
            self._say(self._status)

    def close(self) -> None:
        """Leave the terminal with a clean line."""
        self._status = ""
        self._draw_status()

    def _say(self, line: str) -> None:
        erase = "\r\x1b[K" if self._is_terminal else ""
        print(f"{erase}{line}", file=sys.stderr, flush=True)
        self._shown = time.monotonic()
        self._draw_status()

    def _draw_status(self) -> None:
        if self._is_terminal:
            print(f"\r\x1b[K{self._status}", end="", file=sys.stderr, flush=True)
