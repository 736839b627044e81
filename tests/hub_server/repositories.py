"""The repositories of this hub: where they are on disk, and who sees them.

::

    ROOT/models/ORG/NAME/settings.json    visibility      repository.git/    git    lfs/    objects
"""

from __future__ import annotations

import datetime
import json
import re
import shutil
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from hub_server.accounts import Account
from hub_server.errors import Refusal, bad_request, repo_not_found
from hub_server.git_storage import MAIN, GitStorage

__all__ = ["KINDS", "Repositories", "Repository", "now"]

KINDS = ("models", "datasets", "spaces")
_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9._-]{0,94}[A-Za-z0-9_]|[A-Za-z0-9_]")
_VISIBILITIES = ("public", "private")
# The types of files that a new repository on the Hub keeps in LFS, as far as agents have them.
_LARGE_TYPES = ("bin", "h5", "mp4", "npz", "onnx", "pkl", "pt", "pth", "safetensors", "zip")
_ATTRIBUTES = "".join(f"*.{t} filter=lfs diff=lfs merge=lfs -text\n" for t in _LARGE_TYPES)


def now() -> str:
    """Return the time as the API writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass
class Repository:
    """A repository; ``lock`` is held while it is written."""

    kind: str
    id: str
    folder: Path
    private: bool
    gated: str | bool
    created_at: str
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def namespace(self) -> str:
        return self.id.partition("/")[0]

    @property
    def git(self) -> GitStorage:
        return GitStorage(self.folder / "repository.git")

    @property
    def lfs(self) -> Path:
        return self.folder / "lfs"

    def save(self) -> None:
        """Write the settings, whole or not at all."""
        settings = {name: getattr(self, name) for name in ("id", "private", "gated", "created_at")}
        temporary = self.folder / f"settings.{uuid.uuid4().hex}.tmp"
        temporary.write_text(json.dumps(settings))
        temporary.replace(self.folder / "settings.json")


class Repositories:
    """Finds, makes and removes repositories below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Repository] = {}
        for kind in KINDS:
            for path in sorted(root.glob(f"{kind}/*/*/settings.json")):
                repository = Repository(kind, folder=path.parent, **json.loads(path.read_text()))
                self._known[kind, repository.id.lower()] = repository

    def lookup(self, kind: str, repo_id: str) -> Repository | None:
        """Return a repository whoever asks; upper and lower case count as the same."""
        return self._known.get((kind, repo_id.lower()))

    def find(self, kind: str, repo_id: str, user: Account | None) -> Repository:
        """Return a repository that ``user`` may see.

        :raises Refusal: there is none.
        """
        repository = self.lookup(kind, repo_id)
        if repository is None or not _is_visible(repository, user):
            raise repo_not_found(is_known_user=user is not None)
        return repository

    def find_writable(self, kind: str, repo_id: str, user: Account | None) -> Repository:
        """Return a repository that ``user`` may write to.

        :raises Refusal: there is none, or the user has no right to.
        """
        repository = self.find(kind, repo_id, user)
        _check_right(user, repository.namespace)
        return repository

    def visible(self, kind: str, user: Account | None) -> list[Repository]:
        """Return all repositories that ``user`` may see."""
        with self._lock:
            known = list(self._known.items())
        return [r for (k, _), r in known if k == kind and _is_visible(r, user)]

    def create(self, kind: str, repo_id: str, visibility: str, user: Account | None) -> Repository:
        """Make an empty repository with the usual first commit.

        :raises Refusal: it exists (409), the name is none (400), the user may not (401, 403).
        """
        namespace, _, name = repo_id.partition("/")
        if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name)) or name.endswith(".git"):
            raise bad_request(f"Invalid repo name: {repo_id}")
        if visibility not in _VISIBILITIES:
            raise bad_request(f"Visibility {visibility} is not one of {', '.join(_VISIBILITIES)}")
        user = _check_right(user, namespace)
        with self._lock:
            key = kind, repo_id.lower()
            if key in self._known:
                raise Refusal(409, f"You already created this {kind[:-1]} repo: {repo_id}")
            folder = self._root / kind / namespace.lower() / name.lower()
            shutil.rmtree(folder, ignore_errors=True)  # what a killed server had begun
            folder.mkdir(parents=True)
            repository = Repository(kind, repo_id, folder, visibility == "private", False, now())
            GitStorage.create(folder / "repository.git").commit(
                MAIN,
                {".gitattributes": _ATTRIBUTES.encode()},
                author=user.name,
                message="initial commit",
            )
            repository.save()
            self._known[key] = repository
            return repository

    def remove(self, kind: str, repo_id: str, user: Account | None) -> None:
        repository = self.find_writable(kind, repo_id, user)
        with self._lock, repository.lock:
            self._known.pop((kind, repo_id.lower()), None)
            (repository.folder / "settings.json").unlink(missing_ok=True)
            shutil.rmtree(repository.folder, ignore_errors=True)


def _is_visible(repository: Repository, user: Account | None) -> bool:
    return not repository.private or (user is not None and user.belongs_to(repository.namespace))


def _check_right(user: Account | None, namespace: str) -> Account:
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    if not user.may_write(namespace):
        reason = (
            "this token may only read"
            if user.belongs_to(namespace)
            else f"you don't have the rights to write under the namespace {namespace!r}"
        )
        raise Refusal(403, f"Forbidden: {reason}")
    return user
