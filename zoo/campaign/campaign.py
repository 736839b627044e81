"""Running a campaign: what is done is skipped, what failed is tried again, nothing runs twice."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.errors import NaturalZooError
from zoo.campaign.attempts import Attempt, lock_cell
from zoo.campaign.cells import Cell, Places
from zoo.campaign.planning import State, Task, result_state, state_of
from zoo.campaign.reporter import Reporter
from zoo.campaign.results import save_result
from zoo.jobs import wait_for_any

__all__ = ["Outcome", "run_campaign"]

_POLL_SECONDS = 1.0


@dataclass
class Outcome:
    """What a session of a campaign came to.

    :param finished: cells that have a result, from this session or before it.
    :param failed: cells that failed in every attempt, with the reason.
    :param elsewhere: cells that another campaign is training.
    """

    finished: list[Cell] = field(default_factory=list)
    failed: dict[Cell, str] = field(default_factory=dict)
    elsewhere: list[Cell] = field(default_factory=list)


def run_campaign(
    tasks: Sequence[Task], places: Places, *, n_jobs: int, n_retries: int, reporter: Reporter
) -> Outcome:
    """Train every task that has no result yet.

    However this process ends, its runs end, too, and the next call goes on with them; a run that
    was interrupted gives the result, bit for bit, of one that was not.

    :param n_jobs: runs side by side, one core each.
    :param n_retries: further attempts at a run that fails: the first goes on from its last
        checkpoint, later ones start over.
    :raises NaturalZooError: a file or folder cannot be read or written.
    """
    session = _Session(tasks, places, n_retries, reporter)
    try:
        while session.go_on(n_jobs):
            pass
    finally:
        session.stop()
        reporter.close()
    return session.outcome


class _Session:
    """The queue of one call of :func:`run_campaign`."""

    def __init__(
        self, tasks: Sequence[Task], places: Places, n_retries: int, reporter: Reporter
    ) -> None:
        self.outcome = Outcome()
        self._places = places
        self._n_retries = n_retries
        self._reporter = reporter
        self._waiting: deque[Task] = deque()
        self._running: list[Attempt] = []
        self._failures: Counter[Cell] = Counter()
        for task in tasks:
            if state_of(task, places) is State.FINISHED:
                self.outcome.finished.append(task.cell)
            else:
                self._waiting.append(task)
        reporter.begin(n_tasks=len(tasks), n_finished=len(self.outcome.finished))

    def go_on(self, n_jobs: int) -> bool:
        """Start what there is room for and wait a moment; returns whether anything is left."""
        while self._waiting and len(self._running) < n_jobs:
            self._start(self._waiting.popleft())
        if not self._running:
            return bool(self._waiting)
        if all(run.exit_code is None for run in self._running):
            wait_for_any([run.job for run in self._running if run.job is not None], _POLL_SECONDS)
        for attempt in [run for run in self._running if run.exit_code is not None]:
            self._running.remove(attempt)
            try:
                self._end(attempt)
            finally:
                attempt.stop()
        self._reporter.show(self._waiting, self._running, n_jobs, len(self.outcome.failed))
        return True

    def stop(self) -> None:
        """End everything that still runs."""
        for attempt in self._running:
            attempt.stop()

    def _start(self, task: Task) -> None:
        lock = lock_cell(task, self._places)
        if lock is None:
            self.outcome.elsewhere.append(task.cell)
            self._reporter.elsewhere(task.cell)
            return
        try:
            if result_state(task, self._places) is State.FINISHED:  # another campaign's meanwhile
                lock.release()
                self.outcome.finished.append(task.cell)
                return
            n_failures = self._failures[task.cell]
            self._running.append(Attempt(task, self._places, lock, n_failures=n_failures))
        except BaseException:
            lock.release()
            raise
        self._reporter.started(self._running[-1])

    def _end(self, attempt: Attempt) -> None:
        cell = attempt.task.cell
        try:
            result = attempt.result()
        except NaturalZooError as error:
            self._failures[cell] += 1
            is_last = self._failures[cell] > self._n_retries
            self._reporter.failed(attempt, str(error), is_last=is_last)
            if not is_last:
                self._waiting.append(attempt.task)
                return
            save_result(self._places.result(cell), attempt.failure(str(error)))
            self.outcome.failed[cell] = str(error)
            return
        save_result(self._places.result(cell), result)
        self.outcome.finished.append(cell)
        self._reporter.finished(result)
