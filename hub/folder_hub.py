"""A folder, also a network share, as a hub: agents, their revisions and their history.

::

    /srv/agents/natural-zoo-hub.json            says that this folder is a hub
    /srv/agents/npg-Walker2d-v4/revisions/1/    the first revision: its files as they were pushed
    /srv/agents/npg-Walker2d-v4/revisions/2/    the next one, with revision.json in each
    /srv/agents/ORG/npg-Walker2d-v4/revisions/  a namespace is a folder more

A revision is written beside the others under a temporary name and appears by one rename of its
folder. That rename fails where the number is taken, on every system this runs on and over NFS and
SMB, so that of several writers one gets the number and the others the next ones: no lock, nothing
lost. Whoever reads, or dies while writing, never meets half a revision. Its id is a digest of
everything in it, of its message and of its parent, so that damage is found and a pinned id means
the same bytes for ever.
"""

from __future__ import annotations

import datetime
import errno
import json
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agents.errors import AgentNotFound, ConfigError, HubError
from hub.folder_revision import (
    MANIFEST,
    Contents,
    Revision,
    is_inside,
    read_revision,
    sync_folder,
    write_files,
    write_manifest,
)

__all__ = ["MAIN", "MARKER", "FolderHub", "find_folder_hub"]

MAIN = "main"
MARKER = "natural-zoo-hub.json"
_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,95}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_ID = re.compile(r"[0-9a-f]{7,64}")
_SECONDS_BEFORE_CLEANING = 24 * 3600
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.EACCES)  # the last is Windows' answer


class FolderHub:
    """A hub in ``root``.

    :raises AgentNotFound: there is no hub; :meth:`create` makes one.
    """

    def __init__(self, root: Path) -> None:
        marker = root / MARKER
        try:
            version = json.loads(marker.read_text(encoding="utf-8"))["format"]
        except FileNotFoundError as error:
            raise AgentNotFound(
                f"'{root}' is no hub: it has no {MARKER}. The first push makes it one: "
                f"python -m hub.push RUN folder:{root}"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HubError(f"{marker} cannot be read: {error}.") from error
        if version != _FORMAT:
            raise HubError(
                f"{marker} has format {version}; this version reads {_FORMAT}. Upgrade natural-zoo."
            )
        self.root = root

    @classmethod
    def create(cls, root: Path) -> FolderHub:
        """Return the hub in ``root``, which becomes one if it is empty or missing.

        :raises HubError: it holds something else, or cannot be written.
        """
        with _write_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            if not (root / MARKER).exists():
                # The marker of another writer who is just as fast does not count.
                others = [p for p in root.iterdir() if not p.name.startswith((".", MARKER))]
                if others and not (root / MARKER).exists():
                    raise HubError(
                        f"'{root}' is not empty and no hub; it holds '{others[0].name}'. Give an "
                        f"empty folder: folder:{root / 'agents'}"
                    )
                temporary = root / f".{MARKER}.{uuid.uuid4().hex}"
                temporary.write_text(json.dumps({"format": _FORMAT}) + "\n", encoding="utf-8")
                temporary.replace(root / MARKER)
        return cls(root)

    def agents(self) -> list[str]:
        """Return the names of all agents, sorted."""
        folders = [*self.root.glob("*/revisions"), *self.root.glob("*/*/revisions")]
        names = [folder.parent.relative_to(self.root).as_posix() for folder in folders]
        return sorted(name for name in names if self.history(name))

    def history(self, agent: str, branch: str | None = None) -> list[Revision]:
        """Return the revisions of ``agent``, newest first; none if there is no such agent.

        :param branch: only those; None for all.
        :raises HubError: a manifest is damaged.
        """
        numbers = sorted(self._numbers(agent), reverse=True)
        folder = self.root / agent / "revisions"
        found = [read_revision(agent, folder / str(number)) for number in numbers]
        return [revision for revision in found if branch in (None, revision.branch)]

    def resolve(self, agent: str, revision: str | None = None) -> Revision:
        """Return one revision.

        :param revision: a branch, a number, or an id of at least 7 digits; None for ``main``.
        :raises AgentNotFound: there is none.
        """
        history = self.history(agent)
        if not history:
            known = ", ".join(self.agents()) or "nothing yet"
            raise AgentNotFound(f"{self.root} has no agent '{agent}'. It has: {known}.")
        wanted = revision or MAIN
        matches = [r for r in history if r.branch == wanted][:1]
        if not matches and _NUMBER.fullmatch(wanted):
            matches = [r for r in history if r.number == int(wanted)]
        if not matches and _ID.fullmatch(wanted):
            matches = [r for r in history if r.id.startswith(wanted)]
        if len(matches) != 1:
            branches = ", ".join(sorted({r.branch for r in history}))
            raise AgentNotFound(
                f"'{agent}' in {self.root} has no revision '{wanted}'. It has: {branches}, "
                f"1 … {history[0].number}, and their ids."
            )
        return matches[0]

    def commit(
        self,
        agent: str,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        branch: str = MAIN,
    ) -> Revision:
        """Add a revision that holds exactly ``files``, whole or not at all.

        Files equal to those of the branch's latest revision make no new one.

        :param files: content, or the file to copy, by path inside the agent.
        :raises ConfigError: a name cannot be used.
        :raises HubError: the folder cannot be written.
        """
        _check_names(agent, branch, files)
        revisions = self.root / agent / "revisions"
        with _write_errors(self.root):
            revisions.mkdir(parents=True, exist_ok=True)
            _clean(revisions)
            temporary = revisions / f".{uuid.uuid4().hex}.tmp"
            try:
                contents = write_files(temporary, files)
                return self._publish(agent, temporary, contents, message, branch)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _publish(
        self,
        agent: str,
        temporary: Path,
        contents: Contents,
        message: str,
        branch: str,
    ) -> Revision:
        while True:
            # The number comes first: whatever is published from now on takes it away.
            number = max(self._numbers(agent), default=0) + 1
            latest = next(iter(self.history(agent, branch)), None)
            if latest is not None and latest.files == contents:
                return latest
            write_manifest(
                temporary,
                contents,
                branch=branch,
                parent=latest.id if latest else None,
                message=message,
                created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            )
            target = temporary.parent / str(number)
            try:
                temporary.rename(target)
            except OSError as error:
                if error.errno not in _TAKEN or not target.exists():
                    raise
                continue  # another writer has the number: stand on that revision
            sync_folder(target.parent)
            return read_revision(agent, target)

    def _numbers(self, agent: str) -> Iterator[int]:
        if not all(_NAME.fullmatch(part) for part in agent.split("/")):
            return
        folder = self.root / agent / "revisions"
        for path in folder.iterdir() if folder.is_dir() else ():
            if _NUMBER.fullmatch(path.name):
                yield int(path.name)


def find_folder_hub(path: Path) -> tuple[FolderHub, str]:
    """Return the hub that ``path`` lies in and the rest, the agent's name (empty for the hub).

    :raises AgentNotFound: neither ``path`` nor a folder above it is a hub.
    """
    path = path.resolve()
    for folder in (path, *path.parents):
        if (folder / MARKER).is_file():
            return FolderHub(folder), path.relative_to(folder).as_posix().removeprefix(".")
    raise AgentNotFound(
        f"'{path}' is no hub and in none: no {MARKER} there or above. The first push makes a hub: "
        f"python -m hub.push RUN folder:{path}"
    )


def _check_names(agent: str, branch: str, files: Mapping[str, object]) -> None:
    parts = agent.split("/")
    if len(parts) > 2 or not all(_NAME.fullmatch(p) for p in parts) or "revisions" in parts:
        raise ConfigError(
            f"'{agent}' cannot be the name of an agent. Allowed: NAME or ORG/NAME of letters, "
            "digits, '-', '_' and '.', such as npg-Walker2d-v4."
        )
    if not _BRANCH.fullmatch(branch) or _NUMBER.fullmatch(branch) or _ID.fullmatch(branch):
        raise ConfigError(
            f"'{branch}' cannot be the name of a branch. Allowed: letters, digits, '-', '_', '.' "
            "and '/', not a number or what looks like an id; such as main or smaller-network."
        )
    for name in files:
        if not is_inside(name) or name == MANIFEST:
            raise ConfigError(f"'{name}' cannot be the path of a file in an agent.")


def _clean(revisions: Path) -> None:
    """Remove what writers that were killed long ago have left."""
    for path in revisions.glob(".*.tmp"):
        try:
            is_old = time.time() - path.stat().st_mtime > _SECONDS_BEFORE_CLEANING
        except OSError:  # gone: somebody has published it
            continue
        if is_old:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _write_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HubError(
            f"Cannot write to the hub {root}: {error.strerror or error}. Ask its owner for the "
            "right to write, or push to another folder."
        ) from error
