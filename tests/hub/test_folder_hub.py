"""A folder as a hub: whole revisions, concurrent writers, killed writers, damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from agents.errors import AgentNotFound, ConfigError, HubError
from hub.folder_hub import MARKER, FolderHub, find_folder_hub

AGENT = "npg-Walker2d-v4"
OLD = {"agent.json": b'{"version": 1}', "policy.onnx": b"old", "logs/curve.csv": b"1,2\n"}
NEW = {"agent.json": b'{"version": 2}', "policy.onnx": b"new"}


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    return FolderHub.create(tmp_path / "agents")


def contents(hub: FolderHub, agent: str = AGENT, revision: str | None = None) -> dict[str, bytes]:
    found = hub.resolve(agent, revision)
    found.check()
    return {name: (found.path / name).read_bytes() for name in found.files}


def test_what_was_pushed_comes_back(hub: FolderHub, tmp_path: Path) -> None:
    source = tmp_path / "policy.onnx"
    source.write_bytes(b"old")
    first = hub.commit(AGENT, {**OLD, "policy.onnx": source}, message="First")
    second = hub.commit(AGENT, NEW, message="Second")
    assert (first.number, second.number) == (1, 2)
    assert contents(hub) == NEW
    for revision in ("1", first.id, first.id[:7]):
        assert contents(hub, revision=revision) == OLD
    assert [r.message for r in hub.history(AGENT)] == ["Second", "First"]
    assert json.loads((second.path / "revision.json").read_text())["parent"] == first.id
    assert sorted(p.name for p in first.path.iterdir()) == [
        *("agent.json", "logs", "policy.onnx", "revision.json")
    ]


def test_same_files_make_no_revision(hub: FolderHub) -> None:
    first = hub.commit(AGENT, OLD, message="First")
    assert hub.commit(AGENT, OLD, message="Again") == first
    hub.commit(AGENT, NEW, message="Second")
    assert hub.commit(AGENT, OLD, message="Back").number == 3


def test_branches_have_their_own_latest(hub: FolderHub) -> None:
    hub.commit(AGENT, OLD, message="First")
    other = hub.commit(AGENT, NEW, message="Try", branch="smaller/network")
    assert contents(hub) == OLD
    assert contents(hub, revision="smaller/network") == NEW
    assert other.number == 2
    assert [r.number for r in hub.history(AGENT, "main")] == [1]


def test_namespaces_and_finding(hub: FolderHub) -> None:
    hub.commit(AGENT, OLD, message="x")
    hub.commit(f"lab/{AGENT}", NEW, message="x")
    assert hub.agents() == [f"lab/{AGENT}", AGENT]
    for name in ("", AGENT, f"lab/{AGENT}"):
        found, rest = find_folder_hub(hub.root / name)
        assert (found.root, rest) == (hub.root.resolve(), name)


def test_missing_agents_and_revisions_are_named(hub: FolderHub, tmp_path: Path) -> None:
    with pytest.raises(AgentNotFound, match=r"has no agent 'npg-Ant-v4'. It has: nothing yet"):
        hub.resolve("npg-Ant-v4")
    hub.commit(AGENT, OLD, message="x")
    for revision in ("2", "exp", "0123456", "../1"):
        with pytest.raises(AgentNotFound, match=r"It has: main, 1 … 1, and their ids"):
            hub.resolve(AGENT, revision)
    with pytest.raises(AgentNotFound, match="has no agent"):
        hub.resolve("../agents")
    with pytest.raises(AgentNotFound, match="is no hub"):
        FolderHub(tmp_path)
    with pytest.raises(AgentNotFound, match="no hub and in none"):
        find_folder_hub(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["", "..", "a/b/c", "../x", "a b", ".hidden", "revisions", "a//b", "x" * 97]
)
def test_names_that_leave_the_hub_are_refused(hub: FolderHub, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of an agent"):
        hub.commit(name, OLD, message="x")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", "C:x", "", "a/", "revision.json"]
)
def test_paths_that_leave_the_agent_are_refused(hub: FolderHub, path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the path"):
        hub.commit(AGENT, {path: b""}, message="x")
    assert hub.agents() == []


@pytest.mark.parametrize("branch", ["7", "abcdef0", "", "-x", "a b"])
def test_branches_that_look_like_revisions_are_refused(hub: FolderHub, branch: str) -> None:
    with pytest.raises(ConfigError, match="name of a branch"):
        hub.commit(AGENT, OLD, message="x", branch=branch)


def test_a_folder_with_other_things_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(HubError, match=r"not empty and no hub; it holds 'thesis.tex'"):
        FolderHub.create(tmp_path)
    assert not (tmp_path / MARKER).exists()


def test_newer_format_is_refused(hub: FolderHub) -> None:
    (hub.root / MARKER).write_text('{"format": 2}')
    with pytest.raises(HubError, match="has format 2; this version reads 1"):
        FolderHub(hub.root)


def test_damage_is_found(hub: FolderHub, tmp_path: Path) -> None:
    def damaged(change: str) -> str:
        revision = hub.commit(change, OLD, message="x")
        file = revision.path / "policy.onnx"
        if change == "changed":
            file.write_bytes(b"OLD")
        elif change == "longer":
            file.write_bytes(b"older")
        elif change == "missing":
            file.unlink()
        else:
            file.unlink()
            (tmp_path / "elsewhere").write_bytes(b"old")
            file.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(HubError) as error:
            revision.check()
        return str(error.value)

    assert "has changed since it was pushed" in damaged("changed")
    for change in ("longer", "missing", "link"):
        assert "missing or has another size" in damaged(change)
    first = hub.commit(AGENT, OLD, message="x")
    (first.path / "revision.json").write_text('{"format": 1, "files": {"../../x": ["0", 1]}}')
    with pytest.raises(HubError, match="cannot be read: a file outside"):
        hub.resolve(AGENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_hub_says_so(hub: FolderHub) -> None:
    hub.root.chmod(0o500)
    with pytest.raises(HubError, match="Ask its owner"):
        hub.commit(AGENT, OLD, message="x")


def test_eight_writers_lose_nothing(tmp_path: Path) -> None:
    """Processes, as on several machines: nothing but the file system lies between them."""
    code = """
import sys
from pathlib import Path
from hub.folder_hub import FolderHub
hub = FolderHub.create(Path(sys.argv[1]))
for number in range(5):
    name = f"{sys.argv[2]}-{number}"
    hub.commit("shared", {"who": name.encode(), "blob": name.encode() * 20_000}, message=name)
"""
    root = tmp_path / "agents"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(root), str(writer)])
        for writer in range(8)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 8
    hub = FolderHub(root)
    history = hub.history("shared")
    assert [r.number for r in history] == list(range(40, 0, -1))
    names = {f"{writer}-{number}" for writer in range(8) for number in range(5)}
    assert {r.message for r in history} == names
    for revision in history:
        revision.check()
        assert (revision.path / "who").read_text() == revision.message
    parents = [json.loads((r.path / "revision.json").read_text())["parent"] for r in history]
    assert parents == [r.id for r in history[1:]] + [None]
    assert not list(root.rglob("*.tmp"))


def test_readers_never_see_a_part(hub: FolderHub) -> None:
    hub.commit(AGENT, {"a": b"0", "b": b"0"}, message="0")
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            found = contents(hub)
            assert found["a"] == found["b"]
            seen.add(found["a"])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 30):
        hub.commit(AGENT, {name: b"%d" % number for name in "ab"}, message=str(number))
    stop.set()
    for reader in readers:
        reader.join()
    assert len(seen) > 1


# Ends the process at the n-th thing that it does to the file system below the hub.
KILLED = """
import os, signal, sys
from pathlib import Path
from hub.folder_hub import FolderHub

root, wanted = sys.argv[1], int(sys.argv[2])
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "open"}
hub = FolderHub.create(Path(root))
count = 0

def hook(event, arguments):
    global count
    if event in CHANGES and str(arguments[0]).startswith(root):
        count += 1
        if count == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
hub.commit("npg-Walker2d-v4", {"agent.json": b"new", "policy.onnx": b"new"}, message="New")
"""


def test_killed_at_every_step_leaves_old_or_new(tmp_path: Path) -> None:
    """Forked from one process that has everything imported: a step costs milliseconds."""
    old = {"agent.json": b"old", "policy.onnx": b"old"}
    new = {"agent.json": b"new", "policy.onnx": b"new"}
    outcomes = []
    for step in range(1, 100):
        root = tmp_path / str(step)
        hub = FolderHub.create(root)
        hub.commit(AGENT, old, message="Old")
        is_done = _killed(str(root), step)
        found = contents(FolderHub(root))
        outcomes.append(found == new)
        assert found in (old, new), step
        # Whatever was left behind, the next push succeeds.
        assert contents_after_push(root, b"next") == b"next"
        if is_done:
            break
    assert is_done
    assert outcomes == sorted(outcomes)  # old until one step, new from there on
    assert len(outcomes) > 10
    assert not outcomes[0]


def contents_after_push(root: Path, content: bytes) -> bytes:
    hub = FolderHub(root)
    hub.commit(AGENT, {"agent.json": content}, message="Next")
    return contents(hub)["agent.json"]


def _killed(root: str, step: int) -> bool:
    """Run the push above in a child; returns whether it came to its end."""
    with warnings.catch_warnings():  # newer Pythons warn of threads, which the child does not use
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            sys.argv = ["", root, str(step)]
            exec(KILLED, {})
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def test_leavings_of_killed_writers_are_removed_after_a_day(hub: FolderHub) -> None:
    revisions = hub.commit(AGENT, OLD, message="x").path.parent
    for name, age in ((".old.tmp", 2 * 86400), (".new.tmp", 60)):
        (revisions / name).mkdir()
        os.utime(revisions / name, (time.time() - age,) * 2)
    hub.commit(AGENT, NEW, message="y")
    assert sorted(p.name for p in revisions.iterdir()) == [".new.tmp", "1", "2"]
