"""The Hugging Face Hub, or a server that speaks its language: download, upload, list.

``huggingface_hub`` is imported when it is first used, not before: it costs time that a command
which stays at home should not pay. What it raises becomes one line of ours.

Read from the environment: ``HF_ENDPOINT`` (another server), ``HF_TOKEN``, ``HF_HOME`` and
``HF_HUB_CACHE``, ``HF_HUB_OFFLINE``. ``HF_HUB_DISABLE_XET=1`` is set here unless it is set already:
agents are small, and servers other than huggingface.co do not speak Xet. It counts only if
``huggingface_hub`` has not been imported before; uploads avoid Xet either way.
"""

from __future__ import annotations

import fnmatch
import io
import os
import random
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.errors import AccessDenied, HubError, MissingDependency
from hub.remote_errors import explain

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = [
    "Snapshot",
    "download",
    "endpoint",
    "list_repositories",
    "require_token",
    "upload",
    "user_name",
]

_PUBLIC = "https://huggingface.co"
_ATTEMPTS = 30
_STALE = (409, 412)


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository at one commit, in the local cache.

    :param repo: ``ORG/NAME``.
    :param commit: the whole hash.
    :param folder: where the files are; others may be missing there.
    :param names: every file of the commit; empty if the cache does not know.
    """

    repo: str
    commit: str
    folder: Path
    names: tuple[str, ...]

    @property
    def pinned(self) -> str:
        """The name that means these bytes for ever."""
        return f"{self.repo}@{self.commit}"


def endpoint() -> str:
    """Return the address of the server."""
    return (os.environ.get("HF_ENDPOINT") or _PUBLIC).rstrip("/")


def client(token: str | None = None) -> HfApi:
    """Return huggingface_hub's client.

    :param token: instead of the one of the environment or of `hf auth login`.
    :raises MissingDependency: it is not installed.
    """
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependency(
            f"The Hub needs huggingface_hub ({error}). Type: pip install 'huggingface_hub>=2.0'"
        ) from error
    return huggingface_hub.HfApi(endpoint=endpoint(), token=token, library_name="natural-zoo")


def download(
    repo: str,
    patterns: Sequence[str],
    revision: str | None = None,
    *,
    token: str | None = None,
    force: bool = False,
) -> Snapshot:
    """Bring files of a repository into the cache, or find them there.

    Without a connection the cache answers. A file that is there is not asked for again.

    :param repo: ``ORG/NAME``.
    :param patterns: of the files, such as ``"*.json"``.
    :param revision: a branch, a tag or a commit; None for ``main``.
    :param force: fetch also what the cache has.
    :raises AgentNotFound: there is no such repository or revision, or it is private.
    :raises AccessDenied: the token is wrong.
    :raises HubUnreachable: no connection, and not in the cache.
    """
    api = client(token)
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    with _errors(repo, revision, is_cached=True), _quiet():
        folder = Path(api.snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
        try:
            tree = get_cached_repo_tree(repo, revision=folder.name)
            names = tuple(file.path for file in tree)
        except CachedRepoTreeNotFoundError:
            names = ()
    return Snapshot(repo, folder.name, folder, names)


def upload(
    repo: str,
    files: Mapping[str, bytes],
    *,
    message: str,
    owned: Collection[str] = (),
    branch: str | None = None,
    private: bool | None = None,
    token: str | None = None,
) -> tuple[str, bool]:
    """Put ``files`` into a repository by one commit, or leave it as it is.

    The commit stands on the one that was compared with; if another writer has been faster, the
    comparison is made again. Files that are there already, byte for byte, are not sent.

    :param repo: ``ORG/NAME``; made if it does not exist.
    :param owned: patterns of the files that an earlier push may have left: those that ``files``
        lacks are removed in the same commit.
    :param branch: None for ``main``; made if it does not exist.
    :param private: visibility of a new repository; None leaves it to the organisation.
    :return: the commit, and whether it is a new one.
    :raises AccessDenied: no token, or one without the right to write.
    :raises HubUnreachable: no connection.
    """
    api = client(token)
    _require_token(api)
    from huggingface_hub.errors import HfHubHTTPError

    with _errors(repo, branch), _quiet():
        api.create_repo(repo, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(repo, branch=branch, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            info = api.model_info(repo, revision=branch)
            present = [sibling.rfilename for sibling in info.siblings or ()]
            operations = _operations(files, present, owned)
            try:
                commit = api.create_commit(
                    repo,
                    operations,
                    commit_message=message,
                    revision=branch,
                    parent_commit=info.sha,
                )
                return str(commit.oid), commit.oid != info.sha
            except HfHubHTTPError as error:
                if error.response.status_code not in _STALE:
                    raise
                time.sleep(random.uniform(0.0, 0.1 * min(attempt + 1, 10)))  # noqa: S311
    raise HubError(
        f"{repo} is being written all the time: {_ATTEMPTS} attempts came too late. Try again."
    )


def _operations(
    files: Mapping[str, bytes], present: Iterable[str], owned: Collection[str]
) -> list[Any]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    stale = [
        name
        for name in present
        if name not in files and any(fnmatch.fnmatchcase(name, pattern) for pattern in owned)
    ]
    # Open files rather than bytes: the client sends these by plain HTTP also with Xet switched on.
    added = [CommitOperationAdd(name, io.BytesIO(content)) for name, content in files.items()]
    return [*added, *(CommitOperationDelete(name) for name in stale)]


def list_repositories(
    author: str | None, tags: Sequence[str], *, limit: int, token: str | None = None
) -> list[Any]:
    """Return what the Hub says about repositories, the latest first.

    :param author: a user or an organisation; None for all.
    :param tags: which all of them have.
    :return: ``ModelInfo`` objects with ``card_data``.
    :raises HubUnreachable: no connection.
    """
    api = client(token)
    from huggingface_hub import get_session

    with _errors(author or "The Hub"):
        get_session().head(endpoint())  # without a connection the listing would try for long
        return list(
            api.list_models(
                author=author,
                filter=list(tags),
                sort="last_modified",
                limit=limit,
                full=True,
                cardData=True,
            )
        )


def user_name(token: str | None = None) -> str:
    """Return the name that belongs to the token.

    :raises AccessDenied: there is no token, or it is wrong.
    """
    api = client(token)
    _require_token(api)
    with _errors("The Hub"):
        return str(api.whoami()["name"])


def require_token(token: str | None = None) -> None:
    """Say early that there is no token.

    :raises AccessDenied: there is none.
    """
    _require_token(client(token))


def _require_token(api: HfApi) -> None:
    from huggingface_hub import get_token

    if not (api.token or get_token()):
        raise AccessDenied(
            "There is no token for the Hub. Make one with the right to write at "
            f"{endpoint()}/settings/tokens, then type: hf auth login (or set HF_TOKEN)"
        )


@contextmanager
def _errors(repo: str, revision: str | None = None, *, is_cached: bool = False) -> Iterator[None]:
    """Turn what the client raises into one line that says what to do."""
    try:
        yield
    except Exception as error:
        ours = explain(error, repo, revision, endpoint(), is_cached=is_cached)
        if ours is None:
            raise
        raise ours from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's progress bars away: files of agents are small."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
