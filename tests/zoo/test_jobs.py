"""What a log tells of a process that failed, and locks between processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from zoo.jobs import Job, failure_reason, last_lines
from zoo.locks import FileLock

TRACEBACK = """\
npg on CartPole-v1
Traceback (most recent call last):
  File "a.py", line 3, in f
ValueError: Expected parameter loc to be finite, but found:
tensor([[nan, nan],
        [nan, nan]])
"""


@pytest.mark.parametrize(
    ("exit_code", "log", "reason"),
    [
        (1, "training\nerror: There is no such thing.\n", "There is no such thing."),
        (1, TRACEBACK, "ValueError: Expected parameter loc to be finite, but found:"),
        (1, "something\nSegmentation fault\n\n", "Segmentation fault"),
        (7, "", "exit code 7"),
        (-9, "half a li", "the process was ended by SIGKILL, maybe for lack of memory"),
        (-15, "", "the process was ended by SIGTERM"),
    ],
)
def test_failure_in_a_line(tmp_path: Path, exit_code: int, log: str, reason: str) -> None:
    path = tmp_path / "log"
    path.write_text(log)
    assert failure_reason(exit_code, path) == reason


def test_a_job_ends_with_all_it_has_started(tmp_path: Path) -> None:
    job = Job(os.system, ["sleep 60 & echo $!; wait"], tmp_path / "log")
    while not last_lines(tmp_path / "log", 1):
        assert job.exit_code is None
        time.sleep(0.005)
    grandchild = int(last_lines(tmp_path / "log", 1)[0])
    os.kill(grandchild, 0)
    job.kill()
    assert job.exit_code == -9
    deadline = time.monotonic() + 10
    while _is_alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not _is_alive(grandchild)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a zombie waits for whoever adopted it


def test_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n\n 10%|#  \r100%|###\ntwo\xff\n")
    assert last_lines(path, 2) == ["100%|###", "two�"]
    assert last_lines(tmp_path / "missing", 2) == []


def test_lock_has_one_owner(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path), FileLock(tmp_path)
    assert one.acquire()
    assert not two.acquire()
    two.release()  # releases nothing
    assert not two.acquire()
    one.release()
    assert two.acquire()
    two.release()
