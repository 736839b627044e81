"""One repository on disk: a bare git repository, read and written with dulwich.

A commit writes its objects first and moves the branch last, by compare and swap: whoever reads or
dies in between sees the old commit or the new one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dulwich.object_store import commit_tree_changes
from dulwich.objects import Blob, Commit, Tree
from dulwich.repo import Repo

from hub_server.errors import Refusal, revision_not_found

__all__ = ["MAIN", "Entry", "GitStorage", "Pointer", "make_pointer"]

MAIN = "main"
_SHA = re.compile(r"[0-9a-f]{40}")
_SHORT_SHA = re.compile(r"[0-9a-f]{7,39}")
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n"
)
_FILE_MODE = 0o100644


@dataclass(frozen=True)
class Pointer:
    """A git LFS pointer: what git keeps in place of a large file."""

    oid: str
    size: int
    pointer_size: int


@dataclass(frozen=True)
class Entry:
    """A file in a commit.

    :param blob: git's sha1 of the content, or of the pointer.
    :param size: of the file itself, in bytes.
    """

    path: str
    blob: str
    size: int
    pointer: Pointer | None

    @property
    def etag(self) -> str:
        return self.pointer.oid if self.pointer else self.blob


def make_pointer(oid: str, size: int) -> bytes:
    """Return the pointer that git keeps for an LFS object."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()


class GitStorage:
    """Reads and writes the git repository in ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def create(cls, path: Path) -> GitStorage:
        Repo.init_bare(path, mkdir=True, default_branch=MAIN.encode()).close()
        return cls(path)

    @contextmanager
    def _open(self) -> Iterator[Repo]:
        repo = Repo(str(self._path))
        try:
            yield repo
        finally:
            repo.close()

    def resolve(self, revision: str) -> str:
        """Return the commit of a branch, a tag, or a whole or shortened hash.

        :raises Refusal: there is none.
        """
        with self._open() as repo:
            for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
                if name.startswith("refs/") and name.encode() in repo.refs:
                    return repo.refs[name.encode()].decode()
            commits = [entry.commit.id.decode() for entry in repo.get_walker(_heads(repo))]
        if _SHA.fullmatch(revision) or _SHORT_SHA.fullmatch(revision):
            found = [commit for commit in commits if commit.startswith(revision)]
            if len(found) == 1:
                return found[0]
        raise revision_not_found(revision)

    def references(self, kind: str) -> dict[str, str]:
        """Return the commits of all branches (``kind="heads"``) or tags (``"tags"``)."""
        prefix = f"refs/{kind}/".encode()
        with self._open() as repo:
            names = [name for name in repo.refs.allkeys() if name.startswith(prefix)]
            return {name[len(prefix) :].decode(): repo.refs[name].decode() for name in names}

    def add_reference(self, kind: str, name: str, commit: str) -> None:
        with self._open() as repo:
            if not repo.refs.add_if_new(f"refs/{kind}/{name}".encode(), commit.encode()):
                raise Refusal(409, f"Reference {name} already exists")

    def remove_reference(self, kind: str, name: str) -> None:
        with self._open() as repo:
            reference = f"refs/{kind}/{name}".encode()
            if reference not in repo.refs:
                raise revision_not_found(name)
            repo.refs.remove_if_equals(reference, None)

    def entries(self, commit: str) -> dict[str, Entry]:
        """Return every file of a commit by its path, in the order of paths."""
        with self._open() as repo:
            tree = repo[repo[commit.encode()].tree]
            found = {entry.path: entry for entry in _walk(str(self._path), repo, tree, "")}
        return dict(sorted(found.items()))

    def read(self, blob: str) -> bytes:
        with self._open() as repo:
            content: bytes = repo[blob.encode()].data
            return content

    def history(self, commit: str) -> list[Commit]:
        """Return ``commit`` and all before it, newest first."""
        with self._open() as repo:
            return [entry.commit for entry in repo.get_walker([commit.encode()])]

    def commit(
        self,
        branch: str,
        changes: Mapping[str, bytes | None],
        *,
        author: str,
        message: str,
        expected: str | None = None,
    ) -> str:
        """Add a commit to ``branch`` and return its hash.

        :param changes: the new content of each path, None to remove it.
        :param expected: the commit that ``branch`` has to point at, if it matters to the caller.
        :raises Refusal: it points elsewhere (412), or has moved just now (409).
        """
        reference = f"refs/heads/{branch}".encode()
        with self._open() as repo:
            parent = repo.refs.read_ref(reference)
            if expected is not None and (parent is None or parent.decode() != expected):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            new = self._write(repo, parent, changes, author, message)
            moved = (
                repo.refs.add_if_new(reference, new)
                if parent is None
                else repo.refs.set_if_equals(reference, parent, new)
            )
            if not moved:
                raise Refusal(409, "Another commit is in progress. Please try again.")
            return new.decode()

    @staticmethod
    def _write(
        repo: Repo,
        parent: bytes | None,
        changes: Mapping[str, bytes | None],
        author: str,
        message: str,
    ) -> bytes:
        store = repo.object_store
        if parent is None:
            tree = Tree()
            store.add_object(tree)
            tree_id = tree.id
        else:
            tree_id = repo[parent].tree
        edits = []
        for path, content in changes.items():
            if content is None:
                edits.append((path.encode(), None, None))
                continue
            blob = Blob.from_string(content)
            store.add_object(blob)
            edits.append((path.encode(), _FILE_MODE, blob.id))
        commit = Commit()
        commit.tree = commit_tree_changes(store, tree_id, edits)
        commit.parents = [] if parent is None else [parent]
        commit.author = commit.committer = f"{author} <{author}@localhost>".encode()
        commit.author_time = commit.commit_time = int(time.time())
        commit.author_timezone = commit.commit_timezone = 0
        commit.encoding = b"UTF-8"
        commit.message = message.encode()
        store.add_object(commit)
        return commit.id


def _heads(repo: Repo) -> list[bytes]:
    names = [
        name for name in repo.refs.allkeys() if name.startswith((b"refs/heads/", b"refs/tags/"))
    ]
    return [repo.refs[name] for name in names]


def _walk(folder: str, repo: Repo, tree: Tree, prefix: str) -> Iterator[Entry]:
    for item in tree.items():
        path = f"{prefix}{item.path.decode()}"
        if item.mode == 0o040000:
            yield from _walk(folder, repo, repo[item.sha], f"{path}/")
        else:
            size, pointer = _describe_blob(folder, item.sha.decode())
            yield Entry(path, item.sha.decode(), size, pointer)


@lru_cache(maxsize=10_000)
def _describe_blob(folder: str, blob: str) -> tuple[int, Pointer | None]:
    """Return the size of the file and its pointer; a blob never changes."""
    repo = Repo(folder)
    try:
        content = repo[blob.encode()].data
    finally:
        repo.close()
    match = _POINTER.fullmatch(content) if len(content) < 200 else None
    if match is None:
        return len(content), None
    return int(match[2]), Pointer(match[1].decode(), int(match[2]), len(content))
