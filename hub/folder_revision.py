"""One revision of an agent in a folder hub: its manifest and its files, read and written.

The files lie in the revision's folder as they were pushed, with ``revision.json`` beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.errors import HubError

__all__ = [
    "MANIFEST",
    "Contents",
    "Revision",
    "is_inside",
    "read_revision",
    "sync_folder",
    "write_files",
    "write_manifest",
]

MANIFEST = "revision.json"
FORMAT = 1
Contents = dict[str, tuple[str, int]]
"""SHA-256 and size in bytes of each file by its path."""


@dataclass(frozen=True)
class Revision:
    """What was pushed at one time.

    :param agent: name in the hub, with its namespace if it has one.
    :param number: 1, 2, … over all branches of the agent.
    :param id: SHA-256 of the manifest, which holds the SHA-256 of every file.
    :param path: the folder with the files.
    :param branch: where it was pushed to.
    :param message: what the author said.
    :param created: UTC, ISO 8601.
    :param files: SHA-256 and size in bytes of each file by its path.
    """

    agent: str
    number: int
    id: str
    path: Path
    branch: str
    message: str
    created: str
    files: Contents

    def check(self) -> None:
        """Read every file once.

        :raises HubError: one is missing, longer, shorter or changed.
        """
        for name, (digest, size) in self.files.items():
            file = self.path / name
            if file.is_symlink() or not file.is_file() or file.stat().st_size != size:
                raise HubError(
                    f"{file} is missing or has another size than was pushed. Push the agent again, "
                    "or give an earlier revision: NAME@NUMBER."
                )
            if _digest(file) != digest:
                raise HubError(
                    f"{file} has changed since it was pushed. Push the agent again, or give an "
                    "earlier revision: NAME@NUMBER."
                )


def read_revision(agent: str, path: Path) -> Revision:
    """Return the revision in ``path``, a folder named by its number; the files are not read.

    :raises HubError: its manifest is missing or damaged.
    """
    try:
        content = (path / MANIFEST).read_bytes()
        manifest: dict[str, Any] = json.loads(content)
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}")
        files = {str(n): (str(d), int(s)) for n, (d, s) in manifest["files"].items()}
        if not all(map(is_inside, files)):
            raise ValueError("a file outside")
        return Revision(
            agent=agent,
            number=int(path.name),
            id=hashlib.sha256(content).hexdigest(),
            path=path,
            branch=str(manifest["branch"]),
            message=str(manifest["message"]),
            created=str(manifest["created"]),
            files=files,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubError(
            f"{path / MANIFEST} cannot be read: {error}. Remove the folder {path} to go back "
            "to the revision before it."
        ) from error


def write_manifest(folder: Path, contents: Contents, **about: str | None) -> None:
    """Write the manifest of the files in ``folder``.

    :param about: branch, parent, message and time.
    """
    files = {name: list(facts) for name, facts in sorted(contents.items())}
    manifest = {"format": FORMAT, **about, "files": files}
    _write(folder / MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
    sync_folder(folder)


def is_inside(name: str) -> bool:
    """Return whether a relative path in POSIX form names a file below its folder anywhere."""
    parts = name.split("/")
    return not ("\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts))


def write_files(folder: Path, files: Mapping[str, Path | bytes]) -> Contents:
    """Write ``files`` below ``folder``; returns the digest and size of each."""
    folder.mkdir()
    contents = {}
    for name, source in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = source if isinstance(source, bytes) else source.read_bytes()
        _write(target, content)
        contents[name] = (hashlib.sha256(content).hexdigest(), len(content))
        if target.parent != folder:
            sync_folder(target.parent)
    return contents


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Let the names in a folder outlive a power failure, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems
        pass
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
