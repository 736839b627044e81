"""One attempt to train a cell: its run folder made ready, its process, what became of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from agents.errors import NaturalZooError
from hub.atomic import write_text
from zoo import train
from zoo.campaign.cells import Places
from zoo.campaign.planning import Task
from zoo.campaign.progress import steps_done
from zoo.campaign.results import Result, collect, failure
from zoo.jobs import Job, failure_reason, last_lines
from zoo.locks import FileLock
from zoo.provenance import source_commit
from zoo.runs import RunFolder, make_run

__all__ = ["Attempt", "lock_cell"]

_SECONDS_TO_DIE = 10.0  # of the processes of a campaign that was killed


def lock_cell(task: Task, places: Places) -> FileLock | None:
    """Return the lock that makes a cell ours, None if another campaign has it.

    A process that a killed campaign has left is given the time to notice and end.
    """
    path = places.lock(task.cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    lock = FileLock(path)
    if not lock.acquire():
        return None
    run = places.run(task.cell)
    deadline = time.monotonic() + _SECONDS_TO_DIE
    while run.path.exists():
        probe = FileLock(run.path)
        if probe.acquire():
            probe.release()
            break
        if time.monotonic() > deadline:
            lock.release()
            return None
        time.sleep(0.05)
    return lock


class Attempt:
    """A process that trains one cell, beginning or going on with it; it holds the cell's lock.

    :param task: what to train.
    :param places: the campaign's folders.
    :param lock: from :func:`lock_cell`.
    :param n_failures: how often it failed before. The second attempt goes on from the last
        checkpoint, later ones start over, in case the checkpoint is what is wrong.
    """

    def __init__(self, task: Task, places: Places, lock: FileLock, *, n_failures: int = 0) -> None:
        self.task = task
        self.lock = lock
        self.run = places.run(task.cell)
        self._log = places.log(task.cell)
        self._started = time.monotonic()
        afresh = n_failures > 1 or (n_failures == 1 and self.is_finished)
        if afresh:
            self.run.remove()
        make_run(self.run, task.config)
        self._commits = _read_attempts(self.run)
        self.steps_before = steps_done(self.run.monitor)
        self.job = None if self.is_finished else self._start()

    @property
    def is_finished(self) -> bool:
        """Whether the run has made its final evaluation."""
        return (self.run.finished_timesteps() or 0) >= self.task.config.n_timesteps

    @property
    def exit_code(self) -> int | None:
        """0 for success, negative for a signal, None while it runs."""
        return 0 if self.job is None else self.job.exit_code

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self._started

    def steps(self) -> int:
        """Return the steps trained so far, earlier attempts included."""
        return steps_done(self.run.monitor)

    def result(self) -> Result:
        """Return what the run came to, once the process has ended.

        :raises NaturalZooError: it failed; the message is one line that names no folder.
        """
        if self.exit_code == 0:
            return collect(self.run, self.task.config, self._commits)
        raise NaturalZooError(_without_folders(failure_reason(self.exit_code, self._log)))

    def failure(self, error: str) -> Result:
        """Return the result of a run that is given up."""
        return failure(self.task.config, self._commits, error)

    def last_lines(self, n_lines: int) -> list[str]:
        """Return what the process said last."""
        return last_lines(self._log, n_lines)

    def stop(self) -> None:
        """End the process, if it still runs, and let go of the cell.

        The run stays as its last checkpoint left it, so that it can be resumed bit for bit.
        """
        if self.job is not None and self.job.exit_code is None:
            self.job.kill()
        self.lock.release()

    def _start(self) -> Job:
        self._commits.append(source_commit())
        write_text(_attempts_file(self.run), json.dumps(self._commits) + "\n")
        arguments = ["--resume", str(self.run.path), "--no-progress"]
        return Job(train.main, [arguments], self._log)


def _attempts_file(run: RunFolder) -> Path:
    return run.settings / "attempts.json"


def _read_attempts(run: RunFolder) -> list[str | None]:
    try:
        return list(json.loads(_attempts_file(run).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return []


def _without_folders(line: str) -> str:
    """Return a line fit for a file that is published."""
    for folder, shown in ((Path.cwd(), "."), (Path.home(), "~")):
        line = line.replace(str(folder), shown)
    return line
