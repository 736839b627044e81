"""The folder on disk: read without trust, written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.errors import BundleError
from hub.bundle_format import bundle_folder
from hub.bundle_format.bundle_folder import (
    FileRecord,
    check_listing,
    digest_bytes,
    digest_file,
    read_file,
    write_folder,
)

OLD = {"agent.json": b"old", "policy.safetensors": b"old weights", "curve.csv": b"1,2"}
NEW = {"agent.json": b"new", "policy.safetensors": b"new weights"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    write_folder(tmp_path / "a" / "b" / "agent", NEW)
    assert content(tmp_path / "a" / "b" / "agent") == NEW
    assert os.listdir(tmp_path / "a" / "b") == ["agent"]


def test_an_older_bundle_is_replaced_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "agent", OLD)
    write_folder(tmp_path / "agent", NEW)
    assert content(tmp_path / "agent") == NEW
    assert os.listdir(tmp_path) == ["agent"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    write_folder(tmp_path / "agent", NEW)
    assert content(tmp_path / "agent") == NEW


@pytest.mark.parametrize("name", ["thesis.tex", ".git", "policy.pt"])
def test_what_is_not_ours_is_not_deleted(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "agent", OLD)
    (tmp_path / "agent" / name).write_bytes(b"years of work")
    with pytest.raises(BundleError, match="is not a bundle: it holds"):
        write_folder(tmp_path / "agent", NEW)
    assert content(tmp_path / "agent") == OLD | {name: b"years of work"}


def test_a_file_or_a_link_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "dangling"):
        with pytest.raises(BundleError, match="exists and is not a folder"):
            write_folder(tmp_path / name, NEW)
    assert (tmp_path / "file").read_bytes() == b"kept"
    assert os.listdir(tmp_path / "target") == []


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("failing", ["fsync", "rename"])
@pytest.mark.parametrize("before", [None, OLD])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, before: Any
) -> None:
    if before:
        write_folder(tmp_path / "agent", before)
    monkeypatch.setattr(bundle_folder, "_exchange", lambda *_: False)
    monkeypatch.setattr(bundle_folder, "_sync_folder", lambda _: None)
    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "rename")), full_disk)
    with pytest.raises(BundleError, match=r"agent: No space left on device\. Free space"):
        write_folder(tmp_path / "agent", NEW)
    assert os.listdir(tmp_path) == (["agent"] if before else [])
    if before:
        assert content(tmp_path / "agent") == before


def test_two_steps_where_the_system_cannot_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_folder, "_exchange", lambda *_: False)
    write_folder(tmp_path / "agent", OLD)
    write_folder(tmp_path / "agent", NEW)
    assert content(tmp_path / "agent") == NEW
    assert os.listdir(tmp_path) == ["agent"]


def test_the_second_of_two_steps_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "agent", OLD)
    rename, calls = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            full_disk()
        return rename(self, target)

    monkeypatch.setattr(bundle_folder, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(BundleError, match="No space left"):
        write_folder(tmp_path / "agent", NEW)
    assert len(calls) == 3
    assert content(tmp_path / "agent") == OLD
    assert os.listdir(tmp_path) == ["agent"]


def test_there_is_a_bundle_at_every_moment(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    if not bundle_folder._exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this system cannot exchange two folders in one step")
    folder = tmp_path / "agent"
    write_folder(folder, OLD)
    missing, looks, stop = [], [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            looks.append(1)
            if not folder.exists():
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        write_folder(folder, NEW)
        write_folder(folder, OLD)
    stop.set()
    watcher.join()
    assert looks
    assert not missing


def test_a_killed_writer_leaves_the_old_bundle(tmp_path: Path) -> None:
    write_folder(tmp_path / "agent", OLD)
    script = f"""
import os, signal
from pathlib import Path
from hub.bundle_format import bundle_folder
write, count = bundle_folder._write_file, []
def killed_at_the_second(path, content):
    write(path, content)
    count.append(1)
    if len(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
bundle_folder._write_file = killed_at_the_second
bundle_folder.write_folder(Path({str(tmp_path / "agent")!r}), {NEW!r})
"""
    root = str(Path(bundle_folder.__file__).parents[2])
    finished = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": root}, check=False
    )
    assert finished.returncode == -9
    assert content(tmp_path / "agent") == OLD


def test_reading_one_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_file(tmp_path, "f", 5) == b"12345"
    assert digest_file(tmp_path, "f", 5) == digest_bytes(b"12345")
    assert digest_bytes(b"").sha256 == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


READERS: list[Callable[..., Any]] = [read_file, digest_file]


@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_of_a_bounded_size_are_read(
    tmp_path: Path, reader: Callable[..., Any]
) -> None:
    (tmp_path / "large").write_bytes(b"123456")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "large")
    os.mkfifo(tmp_path / "pipe")
    cases = {
        "large": "6 bytes; at most 5",
        "folder": "not a regular file|cannot be read",
        "link": "is a link",
        "pipe": "not a regular file",
        "missing": "lacks missing",
        "zero\0byte": "cannot be read",
    }
    for name, reason in cases.items():
        with pytest.raises(BundleError, match=reason):
            reader(tmp_path, name, 5)
    with pytest.raises(BundleError, match=r"cannot be read|lacks"):
        reader(tmp_path / "large", "f", 5)


def test_an_endless_file_is_left_alone() -> None:
    """A device is no regular file, however small it says it is."""
    with pytest.raises(BundleError, match="not a regular file"):
        read_file(Path("/dev"), "zero", 10)


LISTED = {"policy.safetensors": FileRecord(0, "0" * 64)}


def test_the_listing_of_a_bundle(tmp_path: Path) -> None:
    for name in ("agent.json", "policy.safetensors", "README.md", ".gitattributes"):
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    check_listing(tmp_path, LISTED)
    for name in ("policy.pth", "policy.onnx", "pickle.py", "AGENT.JSON", "readme.md"):
        (tmp_path / name).touch()
        with pytest.raises(BundleError, match=f"'{name}', which its agent.json does not list"):
            check_listing(tmp_path, LISTED)
        (tmp_path / name).unlink()
    (tmp_path / "sub").mkdir()
    with pytest.raises(BundleError, match="'sub', which its"):
        check_listing(tmp_path, LISTED)


def test_names_that_would_play_tricks_on_a_terminal_are_shown_escaped(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2Jb\nc").touch()
    with pytest.raises(BundleError) as caught:
        check_listing(tmp_path, LISTED)
    assert r"'a\x1b[2Jb\nc'" in str(caught.value)
    with pytest.raises(BundleError) as caught:
        write_folder(tmp_path, NEW)
    assert str(caught.value).isprintable()


def test_links_and_odd_entries_are_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "README.md").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="holds the link"):
        check_listing(bundle, LISTED)
    (bundle / "README.md").unlink()
    (bundle / "policy.safetensors").mkdir()
    with pytest.raises(BundleError, match="not a regular file"):
        check_listing(bundle, LISTED)
    (tmp_path / "link").symlink_to(bundle)
    with pytest.raises(BundleError, match="is a link; give the folder itself"):
        check_listing(tmp_path / "link", LISTED)
    with pytest.raises(BundleError, match="no folder to read"):
        check_listing(tmp_path / "missing", LISTED)
