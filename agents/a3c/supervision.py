"""Starting the workers, listening to them, and seeing to it that none is left."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

from agents.a3c.reports import SegmentReport, WorkerFailure
from agents.a3c.worker import Assignment, Shared, run_worker
from agents.errors import WorkerCrashed

__all__ = ["CRASH_POLICIES", "WorkerPool", "worker_context"]

CRASH_POLICIES = ("raise", "continue")

_MAX_UNREPORTED = 8
"""How far a worker may run ahead of a learner that is busy, in segments."""
_GRACE_SECONDS = 5.0
# torch imports the last of these when the first optimiser is made.
_PRELOADED = ["__main__", run_worker.__module__, "torch._dynamo"]

_log = logging.getLogger(__name__)


def worker_context() -> BaseContext:
    """Return how processes are started: never by forking this one.

    A fork would copy torch's locks in whatever state its threads hold them. ``forkserver`` imports
    everything once and forks from there; where it does not exist each process imports it anew.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)  # in vain if the server is running already
    return context


@dataclass
class _Member:
    """A worker as the learner sees it."""

    index: int
    process: Any
    reports: connection.Connection
    n_reported: int = 0
    failure: WorkerFailure | None = None


@dataclass
class _Tally:
    """Segments of the whole run."""

    wanted: int
    granted: int = 0
    crashed: list[str] = field(default_factory=list)


class WorkerPool:
    """The processes of one call of ``learn``.

    Together they run exactly ``n_segments`` segments. A worker runs only what it was granted, at
    most eight segments more than the learner has taken in: what it has done and not reported is
    lost when it dies, and others are granted it instead.

    :param context: from :func:`worker_context`.
    :param assignments: one per worker, in order.
    :param shared: memory of the same context.
    :param n_segments: of all workers together.
    :param on_crash: ``"raise"`` or ``"continue"`` with those that are left.
    """

    def __init__(
        self,
        context: BaseContext,
        assignments: Sequence[Assignment],
        shared: Shared,
        *,
        n_segments: int,
        on_crash: str,
    ) -> None:
        self._shared = shared
        self._on_crash = on_crash
        self._tally = _Tally(n_segments)
        self._inbox: deque[SegmentReport] = deque()
        self._members: dict[int, _Member] = {}
        self._n_members = len(assignments)
        try:
            with _interrupts_blocked():
                for assignment in assignments:
                    self._start(context, assignment)
        except BaseException:
            self.close(grace_seconds=0.0)
            raise
        self._grant()

    def _start(self, context: BaseContext, assignment: Assignment) -> None:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(  # type: ignore[attr-defined]
            target=run_worker,
            args=(assignment.to_bytes(), self._shared, theirs),
            name=f"A3C-worker-{assignment.worker}",
            daemon=True,
        )
        process.start()
        theirs.close()  # so that the pipe ends when the worker does
        self._members[assignment.worker] = _Member(assignment.worker, process, ours)

    @property
    def n_workers(self) -> int:
        """Workers that are alive."""
        return len(self._members)

    @property
    def n_crashed(self) -> int:
        """Workers that have died."""
        return len(self._tally.crashed)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are alive, in order."""
        return tuple(member.process.pid for member in self._members.values())

    def next_report(self) -> SegmentReport:
        """Return the next segment that a worker has finished; waits for it.

        :raises WorkerCrashed: a worker has died and that was to be raised, or none is left.
        """
        while not self._inbox:
            if not self._members:
                raise WorkerCrashed(f"No worker is left. {self._tally.crashed[-1]}")
            self._listen()
        report = self._inbox.popleft()
        member = self._members.get(report.worker)
        if member is not None:
            member.n_reported += 1
            self._grant()
        return report

    def _listen(self) -> None:
        """Wait until a worker has something to say, or has died."""
        members = list(self._members.values())
        ready = set(
            connection.wait([*(m.reports for m in members), *(m.process.sentinel for m in members)])
        )
        for member in members:
            if member.reports in ready:
                is_dead = not self._receive(member)
            else:
                is_dead = member.process.sentinel in ready
            if is_dead:
                self._bury(member)

    def _receive(self, member: _Member) -> bool:
        """Take in one message; False if the worker will not send another."""
        try:
            message = member.reports.recv()
        except (EOFError, OSError):
            return False
        if isinstance(message, WorkerFailure):
            member.failure = message
            return False
        self._inbox.append(message)
        return True

    def _bury(self, member: _Member) -> None:
        """Take a dead worker off the list and say so.

        :raises WorkerCrashed: if that was asked for, or nobody can go on.
        """
        del self._members[member.index]
        _end(member, grace_seconds=_GRACE_SECONDS if member.failure else 1.0)
        # Its last reports may lie in the inbox still; they count as done.
        n_done = member.n_reported + sum(r.worker == member.index for r in self._inbox)
        lost = int(self._shared.control.granted[member.index]) - n_done
        self._tally.granted -= lost
        message = f"Worker {member.index} of {self._n_members} {_cause(member)}."
        self._tally.crashed.append(message)
        self._raise_if_asked_to(message, member.failure)
        _log.warning("%s %d of %d go on.", message, len(self._members), self._n_members)
        self._grant()

    def _raise_if_asked_to(self, message: str, failure: WorkerFailure | None) -> None:
        if not self._shared.optimizer.is_finite():
            advice = "The parameters are no longer finite: training has diverged. Lower "
            advice += "learning_rate or max_grad_norm."
        elif self._on_crash == "raise":
            advice = "Correct what ended it, or pass on_worker_crash='continue' to go on with the "
            advice += "others."
        else:
            return
        error = WorkerCrashed(f"{message} {advice}")
        if failure is not None:
            error.add_note(failure.traceback)
        raise error

    def _grant(self) -> None:
        """Let each worker go on, as far as it may run ahead and segments are left."""
        granted = self._shared.control.granted
        for member in self._members.values():
            ahead = int(granted[member.index]) - member.n_reported
            more = min(_MAX_UNREPORTED - ahead, self._tally.wanted - self._tally.granted)
            if more > 0:
                self._tally.granted += more
                granted[member.index] += more

    def close(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        """End all workers and wait until they are gone.

        :param grace_seconds: how long they may take to finish a step; then they are killed.
        """
        self._shared.control.stop()
        for member in self._members.values():
            member.reports.close()  # whoever is about to send finds out
        deadline = time.monotonic() + grace_seconds
        try:
            for member in self._members.values():
                member.process.join(max(deadline - time.monotonic(), 0.0))
        finally:
            for member in self._members.values():
                _end(member, grace_seconds=0.0)
            self._members.clear()


def _end(member: _Member, grace_seconds: float) -> None:
    member.process.join(grace_seconds)
    if member.process.is_alive():
        member.process.kill()
        member.process.join()
    member.reports.close()


def _cause(member: _Member) -> str:
    if member.failure is not None:
        return f"failed with {member.failure.message.rstrip('.')}"
    code = member.process.exitcode
    if code is not None and code < 0:
        return f"(process {member.process.pid}) was ended by {signal.Signals(-code).name}"
    return (
        f"(process {member.process.pid}) ended with exit code {code}; its own message, if any, is "
        "above"
    )


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let the processes that are started inside inherit that Ctrl-C is not for them.

    One that arrives meanwhile is delivered to this process when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
