"""The files of a bundle on disk: read without trust, written whole or not at all."""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from agents.errors import BundleError
from hub.bundle_format.strict_json import shown

__all__ = [
    "AGENT",
    "CARD",
    "FILES",
    "MAX_AGENT_BYTES",
    "NORMALIZER",
    "OPTIMIZER",
    "POLICY",
    "SOURCE",
    "FileRecord",
    "check_listing",
    "digest_bytes",
    "digest_file",
    "read_file",
    "write_folder",
]

AGENT = "agent.json"
CARD = "README.md"
SOURCE = ".source.json"
"""Where a bundle was fetched from; never part of it."""
POLICY = "policy.safetensors"
NORMALIZER = "normalizer.safetensors"
OPTIMIZER = "optimizer.safetensors"

MAX_AGENT_BYTES = 8 * 2**20
_MIB = 2**20
#: The files that agent.json may list, with the largest size in bytes of each.
FILES: dict[str, int] = {
    POLICY: 256 * _MIB,
    NORMALIZER: 64 * _MIB,
    OPTIMIZER: 1024 * _MIB,
    "policy.onnx": 512 * _MIB,
    "policy.f64.onnx": 512 * _MIB,
    "evaluation.json": 16 * _MIB,
    "curve.csv": 64 * _MIB,
    "curve.png": 64 * _MIB,
    "config.yml": _MIB,
    "command.txt": _MIB,
    "replay.mp4": 512 * _MIB,
}
_CHUNK = 2**20
# Not on every system: Windows has neither, and its text mode would change bytes.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)


class FileRecord(NamedTuple):
    """What agent.json says about a file."""

    size: int
    """In bytes."""
    sha256: str
    """64 lower-case hexadecimal digits."""


# --- Reading ------------------------------------------------------------------------------------


def check_listing(folder: Path, listed: Mapping[str, FileRecord]) -> None:
    """Refuse a folder that holds links, or visible entries other than those listed.

    The model card may be there although it is not listed: the Hub's web page lets people edit it,
    and nothing here reads it. Hidden entries (``.git``, ``.cache``) are not looked at.

    :raises BundleError: there is such an entry, or the folder is a link or none.
    """
    try:
        if folder.is_symlink():
            raise BundleError(f"{folder} is a link; give the folder itself: {os.readlink(folder)}")
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    _check_entry(folder, entry, listed)
    except OSError as error:
        raise BundleError(f"{folder} is no folder to read: {error.strerror or error}.") from error


def _check_entry(folder: Path, entry: os.DirEntry[str], listed: Mapping[str, FileRecord]) -> None:
    if entry.is_symlink():
        raise BundleError(
            f"{folder} holds the link {shown(entry.name)}; a bundle holds its files themselves. "
            "Copy it with `cp -rL`."
        )
    if entry.name not in (AGENT, CARD, *listed):
        raise BundleError(
            f"{folder} holds {shown(entry.name)}, which its {AGENT} does not list: delete it, or "
            "get the bundle again."
        )
    if not entry.is_file(follow_symlinks=False):
        raise BundleError(f"{folder} holds {shown(entry.name)}, which is not a regular file.")


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[tuple[int, int]]:
    """Open a regular file that is no link; gives its descriptor and size."""
    path = folder / name
    try:
        if path.is_symlink():
            raise BundleError(f"{path} is a link; a bundle holds its files themselves.")
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError as error:
        raise BundleError(f"{folder} lacks {name}; it is no bundle or not a whole one.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path} cannot be read: {reason}.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a regular file.")
        yield descriptor, status.st_size
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}.") from error
    finally:
        os.close(descriptor)


def read_file(folder: Path, name: str, most: int) -> bytes:
    """Return a file's content if it is a regular file of at most ``most`` bytes.

    :raises BundleError: it is missing, a link, no regular file, too large or unreadable.
    """
    with _opened(folder, name) as (descriptor, size):
        if size > most:
            raise BundleError(f"{folder / name} has {size} bytes; at most {most} are allowed.")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            content = file.read(most + 1)
    if len(content) > most:
        raise BundleError(f"{folder / name} grows while it is read.")
    return content


def digest_file(folder: Path, name: str, most: int) -> FileRecord:
    """Return size and SHA-256 of a file, read in pieces; conditions as of :func:`read_file`."""
    digest, length = hashlib.sha256(), 0
    with _opened(folder, name) as (descriptor, size):
        if size > most:
            raise BundleError(f"{folder / name} has {size} bytes; at most {most} are allowed.")
        while chunk := os.read(descriptor, _CHUNK):
            length += len(chunk)
            if length > most:
                raise BundleError(f"{folder / name} grows while it is read.")
            digest.update(chunk)
    return FileRecord(length, digest.hexdigest())


def digest_bytes(content: bytes) -> FileRecord:
    """Return size and SHA-256 of ``content``."""
    return FileRecord(len(content), hashlib.sha256(content).hexdigest())


# --- Writing ------------------------------------------------------------------------------------


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make ``path`` a folder of exactly these files; an older bundle there is replaced.

    Readers see the old folder or the new one, never a mixture; what fails leaves the old one.

    :raises BundleError: the place cannot be written, or holds what is not a bundle.
    """
    path = Path(os.path.abspath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, content in files.items():
            _write_file(temporary / name, content)
        _sync_folder(temporary)
        _take_place(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise BundleError(
            f"Cannot write the bundle {path}: {reason}. Free space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(path: Path) -> None:
    """Let nothing be deleted that this project has not written."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        raise BundleError(f"{path} exists and is not a folder; choose another name.")
    names = sorted(os.listdir(path))
    foreign = [name for name in names if name not in (AGENT, CARD, SOURCE, *FILES)]
    if names and (foreign or AGENT not in names):
        raise BundleError(
            f"{path} exists and is not a bundle: it holds {shown((foreign or names)[0])}. Choose "
            "another name."
        )


def _write_file(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    with suppress(OSError):  # not every file system can
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _take_place(new: Path, path: Path) -> None:
    """Put the folder ``new`` where ``path`` is; what was there is gone or at ``new`` afterwards."""
    if not path.exists():
        new.rename(path)
        return
    if _exchange(new, path):
        return
    # Two steps where the system has no exchange; if the second fails the first is undone.
    old = new.with_suffix(".old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, if the system can (Linux)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if renameat2 is None:
        return False
    at_fdcwd, rename_exchange = -100, 2
    failed: int = renameat2(
        at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange
    )
    return failed == 0
