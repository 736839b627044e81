"""Names of agents in a hub: ``ORG/NAME[@REVISION]`` and ``folder:PATH[@REVISION]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "FolderName", "RemoteName", "default_name", "parse_agent_name"]

FOLDER = "folder:"
_REVISION = r"(?:@(\w[\w./-]*))?"
_REMOTE = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)" + _REVISION, re.ASCII)
_LOCAL = re.compile(r"(.+?)" + _REVISION, re.DOTALL)


@dataclass(frozen=True)
class RemoteName:
    """An agent of the Hub.

    :param repo: ``ORG/NAME``.
    :param revision: a branch, a tag or a commit; None for the latest.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class FolderName:
    """An agent of a folder, or the folder itself.

    :param path: of the hub with the agent's name at its end, or of the hub.
    :param revision: a branch, a number or an id; None for the latest.
    """

    path: Path
    revision: str | None = None

    def __str__(self) -> str:
        name = f"{FOLDER}{self.path}"
        return name if self.revision is None else f"{name}@{self.revision}"


def parse_agent_name(text: str) -> RemoteName | FolderName | None:
    """Return what ``text`` names in a hub, None if it is no such name."""
    if text.startswith(FOLDER):
        path = text.removeprefix(FOLDER)
        match = _LOCAL.fullmatch(path)
        # A folder may have the sign in its own name.
        if match is None or match[2] is None or Path(path).exists():
            return FolderName(Path(path)) if path else None
        return FolderName(Path(match[1]), match[2])
    match = _REMOTE.fullmatch(text)
    return RemoteName(match[1], match[2]) if match else None


def default_name(algo: str, env_id: str) -> str:
    """Return the name of an agent's repository, as RL Zoo makes it: ``npg-Walker2d-v4``."""
    return f"{algo}-{env_id.rpartition(':')[2].replace('/', '-')}"
