"""Functions in processes of their own, each with a log file; none outlives this process.

Every child is forked from a server that has imported torch and Stable-Baselines3 once, so that it
starts within a fraction of a second. It watches a pipe from this process and kills itself when that
breaks: however this process ends, nothing goes on training in the background. It has a session of
its own, so that Ctrl-C reaches this process alone, which then decides.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

__all__ = ["Job", "failure_reason", "last_lines", "wait_for_any"]

_PRELOADED = [
    "zoo.train",
    *("mujoco", "gymnasium.envs.mujoco", "torch._dynamo"),  # what a first training imports
]
_N_LINES_SEARCHED = 200
# "error: …" of our own commands, or the head of an exception's message, which may go on for lines.
_TOLD = re.compile(r"error: |[A-Za-z_][\w.]*(Error|Exception|Fault|Interrupt|Exit)\b")
# Libraries read these when they are loaded; a job is meant for one core.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Job:
    """A function that runs in a process of its own.

    :param function: importable, as multiprocessing wants it; what it returns is the exit code.
    :param arguments: of the function, picklable.
    :param log: standard output and standard error are appended to it.
    """

    def __init__(
        self, function: Callable[..., int | None], arguments: Iterable[Any], log: Path
    ) -> None:
        self.log = log
        self._process = _context().Process(  # type: ignore[attr-defined]
            target=_child, args=(function, tuple(arguments), str(log))
        )
        self._process.start()

    @property
    def exit_code(self) -> int | None:
        """0 for success, negative for a signal, None while it runs."""
        code: int | None = self._process.exitcode
        return code

    @property
    def sentinel(self) -> Any:
        """What :func:`wait_for_any` waits for."""
        return self._process.sentinel

    def kill(self) -> None:
        """End the process and all it has started at once, and wait until it is gone."""
        if sys.platform != "win32":
            with suppress(ProcessLookupError):  # too young to have a session of its own
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()


def wait_for_any(jobs: Iterable[Job], seconds: float) -> None:
    """Return when one of ``jobs`` has ended, at the latest after ``seconds``."""
    multiprocessing.connection.wait([job.sentinel for job in jobs], timeout=seconds)


def last_lines(log: Path, n_lines: int) -> list[str]:
    """Return the last lines of a log that are not empty; of an overwritten line what stood last."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            lines = (line.rstrip().rpartition("\r")[2] for line in file)
            return list(deque((line for line in lines if line), maxlen=n_lines))
    except FileNotFoundError:
        return []


def failure_reason(exit_code: int | None, log: Path) -> str:
    """Return in one line why a process failed: its known error, or the exception it died of."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        memory = ", maybe for lack of memory" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{memory}"
    lines = last_lines(log, _N_LINES_SEARCHED)
    told = [line for line in lines if _TOLD.match(line)] or lines
    return told[-1].removeprefix("error: ") if told else f"exit code {exit_code}"


def _context() -> BaseContext:
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _child(function: Callable[..., int | None], arguments: tuple[Any, ...], log: str) -> None:
    if sys.platform != "win32":
        os.setsid()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    sys.exit(function(*arguments))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    # Not a polite signal: it would make an extra checkpoint, and the resumed run would differ.
    if sys.platform == "win32":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        os.killpg(0, signal.SIGKILL)  # the processes of environments and workers, too
