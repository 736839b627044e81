"""Bringing an agent of a hub to this machine, as files that :mod:`hub.bundle` opens.

What the Hub's own cache holds are links, and a repository may hold more than its agent; a bundle is
neither. The agent's files are therefore put into a folder of their own, once per revision::

    ~/.cache/natural-zoo/ORG--NAME/COMMIT/bundle/    a bundle
    ~/.cache/natural-zoo/ORG--NAME/COMMIT/guest/     an agent of RL Zoo or huggingface_sb3
    ~/.cache/natural-zoo/ORG--NAME/COMMIT/onnx/      policy.onnx alone

Where the file system allows it they share their space with the Hub's cache. Set
``NATURAL_ZOO_CACHE`` for another place. A folder appears whole or not at all, and a revision never
changes, so that what is there is never fetched again.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.errors import AgentNotFound, BundleError, HubError
from hub import remote
from hub.agent_name import FOLDER, FolderName, RemoteName
from hub.bundle_format import strict_json
from hub.bundle_format.bundle_folder import AGENT, CARD, FILES, MAX_AGENT_BYTES
from hub.folder_hub import find_folder_hub
from hub.guests.guest_files import find_guest

__all__ = ["Fetched", "cache_folder", "fetch_agent", "fetch_onnx"]

_GUEST_PATTERNS = ("*.zip", "*.pkl", "*.yml", CARD)


@dataclass(frozen=True)
class Fetched:
    """An agent of a hub on this machine.

    :param kind: ``"bundle"``, ``"guest"`` for an agent of RL Zoo or huggingface_sb3, or ``"onnx"``.
    :param path: the folder; of an ONNX file the file.
    :param pinned: the name that means these bytes for ever.
    """

    kind: Literal["bundle", "guest", "onnx"]
    path: Path
    pinned: str


@dataclass(frozen=True)
class _Source:
    """The files of one revision, wherever they are.

    :param key: folder of the revision in the cache.
    :param folder: where files are or will be.
    :param names: of all files; empty if that is not known.
    """

    key: Path
    pinned: str
    folder: Path
    names: Sequence[str]


def cache_folder() -> Path:
    """Return where agents of hubs are kept."""
    if own := os.environ.get("NATURAL_ZOO_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "natural-zoo"


def fetch_agent(
    name: RemoteName | FolderName, *, token: str | None = None, force: bool = False
) -> Fetched:
    """Return a whole agent.

    :param name: from :func:`hub.agent_name.parse_agent_name`.
    :param token: of the Hub, instead of the one that is logged in.
    :param force: fetch also what the Hub's cache has.
    :raises AgentNotFound: there is no such agent or revision, or what is there is no agent.
    :raises AccessDenied: the token is wrong.
    :raises HubUnreachable: no connection, and not in the cache.
    :raises HubError: it has not been uploaded whole.
    """
    source = _open(name, [AGENT], token, force)
    if (source.folder / AGENT).is_file():
        wanted = _listed_files(source, name)
        source = _complete(source, name, [*wanted, CARD], token, force)
        missing = [file for file in wanted if not (source.folder / file).is_file()]
        if missing:
            raise HubError(
                f"{name} has been uploaded in part: {missing[0]} is missing. Ask its author to "
                "push it again, or give an earlier revision."
            )
        files = [*wanted, *([CARD] if (source.folder / CARD).is_file() else [])]
        folder = _place(source, "bundle", files, force=force)
        return Fetched("bundle", folder, source.pinned)
    return _fetch_guest(source, name, token, force)


def fetch_onnx(
    name: RemoteName | FolderName, file: str = "policy.onnx", *, token: str | None = None
) -> Fetched:
    """Return one ONNX file of an agent, and nothing else of it.

    :param file: ``policy.onnx`` or ``policy.f64.onnx``.
    :raises BundleError: the agent has no such file.
    :raises AgentNotFound: as :func:`fetch_agent`, whose other errors are raised, too.
    """
    source = _open(name, [file], token)
    if not (source.folder / file).is_file():
        if AGENT in source.names:
            raise BundleError(f"{name} has no {file}. Type: python -m hub.export {name}")
        if find_guest(source.names):
            raise BundleError(
                f"{name} is an agent of Stable-Baselines3 without {file}. Type: "
                f"python -m hub.convert {name} -o {_last(name)}, then give {_last(name)}"
            )
        raise _no_agent(name)
    folder = _place(source, "onnx", [file])
    return Fetched("onnx", folder / file, source.pinned)


def _fetch_guest(
    source: _Source, name: RemoteName | FolderName, token: str | None, force: bool
) -> Fetched:
    files = find_guest(source.names)
    if files is None and not source.names:
        source = _complete(source, name, _GUEST_PATTERNS, token, force)
        files = find_guest(path.name for path in source.folder.iterdir())
    if files is None:
        raise _no_agent(name)
    source = _complete(source, name, files.all(), token, force)
    folder = _place(source, "guest", files.all(), force=force)
    return Fetched("guest", folder, source.pinned)


def _open(
    name: RemoteName | FolderName, patterns: Sequence[str], token: str | None, force: bool = False
) -> _Source:
    """Return a revision of which at least the files that match ``patterns`` are here."""
    if isinstance(name, RemoteName):
        snapshot = remote.download(name.repo, patterns, name.revision, token=token, force=force)
        key = Path(name.repo.replace("/", "--")) / snapshot.commit
        return _Source(key, snapshot.pinned, snapshot.folder, snapshot.names)
    hub, agent = find_folder_hub(name.path)
    if not agent:
        known = ", ".join(hub.agents()) or "nothing yet"
        raise AgentNotFound(
            f"{name} is a hub; give one of its agents: {FOLDER}{name.path}/NAME. It has: {known}."
        )
    revision = hub.resolve(agent, name.revision)
    revision.check()
    key = Path(f"folder--{agent.replace('/', '--')}") / revision.id
    pinned = f"{FOLDER}{name.path}@{revision.id[:12]}"
    return _Source(key, pinned, revision.path, tuple(revision.files))


def _complete(
    source: _Source,
    name: RemoteName | FolderName,
    patterns: Sequence[str],
    token: str | None,
    force: bool,
) -> _Source:
    """Return the same revision with more of its files here."""
    if isinstance(name, RemoteName):
        commit = RemoteName(name.repo, source.folder.name)
        return _open(commit, patterns, token, force)
    return source  # a folder has all of them


def _listed_files(source: _Source, name: RemoteName | FolderName) -> list[str]:
    """Return the files that ``agent.json`` lists, as far as a bundle may have them."""
    where = f"{name}: {AGENT}"
    content = (source.folder / AGENT).read_bytes()
    if len(content) > MAX_AGENT_BYTES:
        raise BundleError(f"{where} is too large: {len(content)} bytes.")
    document = strict_json.mapping(strict_json.parse(content, where), where, optional=None)
    listed = strict_json.mapping(document.get("files"), f"{where}: files", optional=None)
    return [AGENT, *(file for file in FILES if file in listed)]


def _place(source: _Source, kind: str, names: Sequence[str], *, force: bool = False) -> Path:
    """Return the folder in the cache that holds the files."""
    files = {name: source.folder / name for name in names}
    target = cache_folder() / source.key / kind
    if kind == "onnx":
        target = target / re.sub(r"\W", "_", names[0])
    if _is_whole(target, files) and not force:
        return target
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        for name, path in files.items():
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(path.resolve(), place)
        if force:
            shutil.rmtree(target, ignore_errors=True)
        _take_place(temporary, target, files)
    except OSError as error:
        raise HubError(
            f"Cannot write to the cache {target}: {error.strerror or error}. Set "
            "NATURAL_ZOO_CACHE to a folder that can be written."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _take_place(new: Path, target: Path, files: Mapping[str, Path]) -> None:
    """Make ``new`` the folder ``target``, unless another process has been faster."""
    try:
        new.rename(target)
    except OSError:
        if _is_whole(target, files):
            return
        shutil.rmtree(target, ignore_errors=True)  # damaged
        new.rename(target)


def _is_whole(folder: Path, files: Mapping[str, Path]) -> bool:
    try:
        return all((folder / n).stat().st_size == p.stat().st_size for n, p in files.items())
    except OSError:
        return False


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except (OSError, NotImplementedError):  # another file system
        shutil.copyfile(source, target)


def _no_agent(name: RemoteName | FolderName) -> AgentNotFound:
    return AgentNotFound(
        f"{name} holds no agent: neither {AGENT} nor an archive of Stable-Baselines3. If it is "
        "new, its upload may have been interrupted: ask its author to push it again."
    )


def _last(name: RemoteName | FolderName) -> str:
    return name.repo.rpartition("/")[2] if isinstance(name, RemoteName) else name.path.name
