import errno
import os

import pytest

from agents.errors import RunFolderError
from hub.atomic import atomic_write, write_bytes, write_text


def test_content_is_replaced(tmp_path):
    path = tmp_path / "file"
    write_text(path, "α")
    assert path.read_bytes() == "α".encode()
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_old_content_is_seen_until_the_end(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_full_disk_leaves_the_old_content_alone(tmp_path, monkeypatch, failing):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    write_text(path, "old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(RunFolderError, match=r"file: No space left on device\. Free space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_error_of_the_writer_is_passed_on(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "file"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["missing/file", "regular/file"])
def test_folder_that_is_none(tmp_path, place):
    (tmp_path / "regular").write_text("kept")
    with pytest.raises(RunFolderError, match="Cannot write"):
        write_text(tmp_path / place, "new")
    assert (tmp_path / "regular").read_text() == "kept"
