"""Download, upload and list over HTTP, and what is said when that does not work."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agents.errors import AccessDenied, AgentNotFound, HubError, HubUnreachable
from hub import remote
from hub.agent_name import FolderName, RemoteName, default_name, parse_agent_name

OLD = {"agent.json": b'{"version": 1}', "policy.onnx": b"\0old", "replay.mp4": b"\0film"}
NEW = {"agent.json": b'{"version": 2}', "policy.onnx": b"\0new"}
OWNED = ("agent.json", "policy.onnx", "replay.mp4", "*.zip")


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:60].strip("-[]")
    return f"zoo-lab/{name}"


def contents(snapshot: remote.Snapshot) -> dict[str, bytes]:
    files = (path for path in snapshot.folder.rglob("*") if path.is_file())
    found = {path.relative_to(snapshot.folder).as_posix(): path.read_bytes() for path in files}
    found.pop(".gitattributes", None)
    return found


def test_upload_and_download(at_hub: Any, repo: str) -> None:
    first, is_new = remote.upload(repo, OLD, message="Old")
    assert is_new
    assert remote.upload(repo, OLD, message="Again") == (first, False)
    snapshot = remote.download(repo, ["agent.json"])
    assert contents(snapshot) == {"agent.json": OLD["agent.json"]}
    assert set(snapshot.names) == {*OLD, ".gitattributes"}
    assert snapshot.pinned == f"{repo}@{first}"
    second, _ = remote.upload(repo, NEW, message="New", owned=OWNED)
    assert contents(remote.download(repo, ["*"])) == NEW  # the film of the old one is gone
    assert contents(remote.download(repo, ["*"], first)) == OLD
    assert [c.title for c in at_hub.api().list_repo_commits(repo)][:2] == ["New", "Old"]
    assert second != first


@pytest.mark.slow
def test_files_of_others_stay(at_hub: Any, repo: str) -> None:
    remote.upload(repo, {"LICENSE": b"mine", "npg.zip": b"\0"}, message="By hand")
    remote.upload(repo, NEW, message="New", owned=OWNED)
    assert contents(remote.download(repo, ["*"])) == {**NEW, "LICENSE": b"mine"}


def test_branches(at_hub: Any, repo: str) -> None:
    remote.upload(repo, OLD, message="Old")
    commit, _ = remote.upload(repo, NEW, message="Try", branch="smaller", owned=OWNED)
    assert contents(remote.download(repo, ["*"])) == OLD
    snapshot = remote.download(repo, ["*"], "smaller")
    assert (contents(snapshot), snapshot.commit) == (NEW, commit)


def test_private_repositories_stay_private(
    at_hub: Any, repo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remote.upload(repo, OLD, message="Old", private=True)
    assert at_hub.api().model_info(repo).private
    for token in ("hf_bob", None):
        monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(AgentNotFound, match=r"or it is private and the token, if any"):
            remote.download(repo, ["*"])


def test_errors_say_what_to_do(at_hub: Any, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AgentNotFound, match="There is no agent zoo-lab/nothing"):
        remote.download("zoo-lab/nothing", ["*"])
    with pytest.raises(AgentNotFound, match="cannot be the name of a repository"):
        remote.download("zoo-lab/a--b..", ["*"])
    remote.upload(repo, OLD, message="Old")
    with pytest.raises(AgentNotFound, match=f"{repo} has no revision 'v9'"):
        remote.download(repo, ["*"], "v9")
    with pytest.raises(AccessDenied, match=r"no right to do this with bob/x .*namespace 'bob'"):
        remote.upload("bob/x", OLD, message="Old")
    with pytest.raises(HubError, match=r"refuses this: Invalid metadata in README\.md"):
        remote.upload(repo, {"README.md": b"---\ntags: x\n---\n"}, message="Bad card")
    at_hub.api().update_repo_settings(repo, gated="manual")
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    with pytest.raises(AccessDenied, match=f"{repo} is gated. Ask for access"):
        remote.download(repo, ["*"])
    monkeypatch.setenv("HF_TOKEN", "hf_ada_read")
    with pytest.raises(AccessDenied, match="token may only read"):
        remote.upload(repo, NEW, message="New")
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    with pytest.raises(AccessDenied, match="does not know the token"):
        remote.user_name()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(AccessDenied, match=r"There is no token for the Hub.*hf auth login"):
        remote.upload(repo, NEW, message="New")


def test_without_connection_the_cache_answers(
    at_hub: Any, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, _ = remote.upload(repo, OLD, message="Old")
    remote.download(repo, ["agent.json", "*.onnx"])
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for revision in (None, "main", commit):
        snapshot = remote.download(repo, ["agent.json", "*.onnx"], revision)
        assert snapshot.commit == commit
        assert (snapshot.folder / "policy.onnx").read_bytes() == OLD["policy.onnx"]
    for missing, patterns in ((repo, ["*.mp4"]), ("zoo-lab/never-seen", ["*"])):
        with pytest.raises(HubUnreachable, match=f"cannot be reached, and {missing} is not"):
            remote.download(missing, patterns)
    for call in (
        lambda: remote.upload(repo, NEW, message="New"),
        lambda: remote.list_repositories(None, [], limit=1),
        remote.user_name,
    ):
        with pytest.raises(HubUnreachable, match=r"cannot be reached\. Connect and try again"):
            call()


@pytest.mark.slow
def test_offline_by_choice(at_hub: Any, repo: str, tmp_path: Path) -> None:
    """The variable is read when huggingface_hub is imported: another process."""
    commit, _ = remote.upload(repo, OLD, message="Old")
    code = f"""
from agents.errors import HubUnreachable
from hub import remote
print(remote.download({repo!r}, ["agent.json"]).commit)
try:
    remote.download("zoo-lab/never-seen", ["*"])
except HubUnreachable as error:
    print(error)
"""
    environment = at_hub.environment(tmp_path)
    for variables in ({}, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = subprocess.run(
            [sys.executable, "-c", code if variables else code.partition("try:")[0]],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == commit
    assert done.stdout.splitlines()[1].startswith("HF_HUB_OFFLINE is set, and zoo-lab/never-seen")


@pytest.mark.slow
def test_eight_writers_leave_no_mixture(at_hub: Any, repo: str) -> None:
    """Every commit is one writer's files, all of them; nobody's push is lost."""

    def write(writer: int) -> None:
        for number in range(2):
            name = f"{writer}-{number}".encode()
            files = {"agent.json": b"{}", "policy.onnx": b"\0" + name, "note.txt": name}
            remote.upload(repo, files, message=name.decode())

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    commits = at_hub.api().list_repo_commits(repo)
    names = {f"{writer}-{number}" for writer in range(8) for number in range(2)}
    assert sorted(c.title for c in commits[:-1]) == sorted(names)
    for commit in commits[:-1]:
        found = contents(remote.download(repo, ["*"], commit.commit_id))
        assert found["note.txt"] == commit.title.encode()
        assert found["policy.onnx"] == b"\0" + commit.title.encode()


# Ends the process at the n-th request, before it is sent or once it has been answered.
KILLED = """
import os, signal, sys
import huggingface_hub, httpx2
from hub import remote
wanted, after = int(sys.argv[1]), sys.argv[2] == "after"
original, count = httpx2.Client.send, 0

def send(self, request, *args, **kwargs):
    global count
    count += 1
    if count == wanted and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    response = original(self, request, *args, **kwargs)
    if count == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
    return response

httpx2.Client.send = send
new = {"agent.json": b'{"version": 2}', "policy.onnx": sys.argv[3].encode() + b"\\0"}
remote.upload(REPO, new, message="New", owned=OWNED)
"""


@pytest.mark.slow
def test_killed_at_every_request_leaves_old_or_new(at_hub: Any, repo: str) -> None:
    code = KILLED.replace("REPO", repr(repo)).replace("OWNED", repr(OWNED))
    outcomes: list[list[bool]] = []
    for when in ("before", "after"):
        outcomes.append([])
        for step in range(1, 40):
            remote.upload(repo, OLD, message="Old", owned=OWNED)
            mark = f"{when} {step}"  # content that no attempt before has uploaded
            new = {"agent.json": b'{"version": 2}', "policy.onnx": mark.encode() + b"\0"}
            is_done = _run_killed(code, step, when, mark)
            found = contents(remote.download(repo, ["*"]))
            assert found in (OLD, new), mark
            outcomes[-1].append(found == new)
            if is_done:
                break
        assert is_done
        assert len(outcomes[-1]) > 7
        assert outcomes[-1] == sorted(outcomes[-1])  # old up to one request, new from there on
        assert outcomes[-1][0] is False


def _run_killed(code: str, step: int, when: str, mark: str) -> bool:
    """Run ``code`` in a child that is forked with everything imported; True if it ends itself."""
    import os
    import warnings

    with warnings.catch_warnings():  # newer Pythons warn of threads, which the child does not use
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            import huggingface_hub

            huggingface_hub.close_session()
            sys.argv = ["", str(step), when, mark]
            exec(code, {})
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def test_nothing_is_imported_before_it_is_used() -> None:
    code = "import sys, hub.remote, hub.agent_name; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lab/npg-Walker2d-v4", RemoteName("lab/npg-Walker2d-v4")),
        ("lab/npg-Walker2d-v4@v1.0", RemoteName("lab/npg-Walker2d-v4", "v1.0")),
        ("lab/npg@refs/pr/1", RemoteName("lab/npg", "refs/pr/1")),
        ("folder:/srv/agents/npg", FolderName(Path("/srv/agents/npg"))),
        ("folder:hub/lab/npg@3", FolderName(Path("hub/lab/npg"), "3")),
        ("folder:../hub", FolderName(Path("../hub"))),
        ("npg-Walker2d-v4", None),
        ("a/b/c", None),
        ("../x", None),
        ("lab/npg@", None),
        ("lab/npg@../x", None),
        ("https://huggingface.co/lab/npg", None),
        ("folder:", None),
    ],
)
def test_names(text: str, expected: object) -> None:
    assert parse_agent_name(text) == expected
    if expected is not None:
        assert str(expected) == text


def test_default_names() -> None:
    assert default_name("npg", "Walker2d-v4") == "npg-Walker2d-v4"
    assert default_name("ppo", "ALE/Pong-v5") == "ppo-ALE-Pong-v5"
    assert default_name("npg", "my_package:My-v0") == "npg-My-v0"
