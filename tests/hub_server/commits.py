"""Commits: which files go to LFS, and the one request that makes a revision."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from collections.abc import Iterator
from typing import Any

from dulwich.ignore import IgnoreFilter
from starlette.responses import JSONResponse, Response

from hub_server.calls import Call
from hub_server.cards import card_problems
from hub_server.errors import Refusal, bad_request, entry_not_found, revision_not_found
from hub_server.git_storage import GitStorage, make_pointer
from hub_server.lfs import object_path
from hub_server.repositories import Repository

__all__ = ["commit", "preupload"]

_LARGEST_REGULAR_FILE = 10 * 2**20


def preupload(call: Call) -> Response:
    """Say for each file whether it goes to LFS, is ignored, and what is there already."""
    repository = call.writable()
    _refuse_pull_request(call)
    git = repository.git
    present = git.entries(git.resolve(call.segments["revision"]))
    request = call.json()
    attributes = git.read(present[".gitattributes"].blob) if ".gitattributes" in present else b""
    patterns = _large_patterns(attributes.decode("utf-8", "replace"))
    ignored = _ignored(request, git, present)
    answers = []
    for file in request.get("files", []):
        path, size = file["path"], file["size"]
        sample = base64.b64decode(file.get("sample") or "")
        is_large = (
            size > _LARGEST_REGULAR_FILE or _matches(path, patterns) or not _is_text(sample, size)
        )
        answer = {
            "path": path,
            "uploadMode": "lfs" if is_large else "regular",
            "shouldIgnore": ignored is not None and bool(ignored.is_ignored(path)),
        }
        if path in present:
            answer["oid"] = present[path].etag
        answers.append(answer)
    return JSONResponse({"files": answers})


def commit(call: Call) -> Response:
    """Apply the operations of an ndjson body to a branch as one commit."""
    repository = call.writable()
    _refuse_pull_request(call)
    branch = call.segments["revision"]
    header, operations = _parse(call.body)
    with repository.lock:
        git = repository.git
        if branch not in git.references("heads"):
            raise revision_not_found(branch)
        changes = _changes(operations, repository, git, git.resolve(branch))
        commit_hash = git.commit(
            branch,
            changes,
            author=call.user.name if call.user else "anonymous",
            message="\n\n".join(filter(None, [header["summary"], header.get("description")])),
            expected=header.get("parentCommit"),
        )
    return JSONResponse(
        {
            "success": True,
            "commitOid": commit_hash,
            "commitUrl": f"{call.base_url}/{repository.id}/commit/{commit_hash}",
        }
    )


def _refuse_pull_request(call: Call) -> None:
    if call.flag("create_pr"):
        raise bad_request("This server has no pull requests")


def _large_patterns(attributes: str) -> list[str]:
    """Return the patterns of ``.gitattributes`` that lead to LFS."""
    lines = [line.split() for line in attributes.splitlines()]
    return [line[0] for line in lines if "filter=lfs" in line[1:]]


def _matches(path: str, patterns: list[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(path if "/" in p else name, p) for p in patterns)


def _is_text(sample: bytes, size: int) -> bool:
    """Return whether a file that begins with ``sample`` looks like UTF-8."""
    if b"\0" in sample:
        return False
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        # A sample may end in the middle of a letter.
        return size > len(sample) and error.start >= len(sample) - 3
    return True


def _ignored(
    request: dict[str, Any], git: GitStorage, present: dict[str, Any]
) -> IgnoreFilter | None:
    content = request.get("gitIgnore")
    if content is None and ".gitignore" in present:
        content = git.read(present[".gitignore"].blob).decode("utf-8", "replace")
    return None if content is None else IgnoreFilter(content.encode().splitlines())


def _parse(body: bytes) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """Return the header and the operations ``(key, value)``."""
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        items = [(line["key"], line["value"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise bad_request("The body is not a list of operations") from error
    if not items or items[0][0] != "header" or not items[0][1].get("summary"):
        raise bad_request("The body has to begin with a header that has a summary")
    return items[0][1], items[1:]


def _changes(
    operations: list[tuple[str, dict[str, Any]]],
    repository: Repository,
    git: GitStorage,
    parent: str,
) -> dict[str, bytes | None]:
    present = set(git.entries(parent))
    changes: dict[str, bytes | None] = {}
    for key, value in operations:
        path = _checked_path(value.get("path"))
        if key == "file":
            changes[path] = _regular_content(path, value)
        elif key == "lfsFile":
            changes[path] = _pointer(repository, value)
        elif key == "deletedFile":
            if path not in present:
                raise entry_not_found(path, parent)
            changes[path] = None
        elif key == "deletedFolder":
            inside = {name for name in present if name.startswith(f"{path.rstrip('/')}/")}
            if not inside:
                raise entry_not_found(path, parent)
            changes.update(dict.fromkeys(inside))
        else:
            raise bad_request(f"Unknown operation {key}")
    _check_no_file_is_folder(present, changes)
    return changes


def _checked_path(path: object) -> str:
    """Return ``path`` if it stays inside the repository.

    :raises Refusal: it does not.
    """
    if not isinstance(path, str):
        raise bad_request("An operation has a path")
    parts = path.rstrip("/").split("/")
    if "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise Refusal(422, f"Invalid path: {path!r}")
    if any(part.lower() == ".git" for part in parts):
        raise Refusal(422, f"Invalid path: {path!r}")
    return path


def _regular_content(path: str, value: dict[str, Any]) -> bytes:
    try:
        content = base64.b64decode(value["content"], validate=True)
    except (KeyError, ValueError, binascii.Error) as error:
        raise bad_request(f"{path} has no content in base64") from error
    if len(content) > _LARGEST_REGULAR_FILE:
        raise bad_request(f"{path} is larger than 10 MiB; upload it by LFS")
    if path == "README.md":
        problems = card_problems(content.decode("utf-8", "replace"))
        if problems:
            listed = "".join(f"\n- {problem}" for problem in problems)
            raise bad_request(f"Invalid metadata in README.md.{listed}")
    return content


def _pointer(repository: Repository, value: dict[str, Any]) -> bytes:
    oid = str(value.get("oid"))
    path = object_path(repository, oid)
    if value.get("algo") != "sha256" or not path.is_file():
        raise Refusal(422, f"LFS object {oid} has not been uploaded to this repository")
    size = path.stat().st_size
    if value.get("size", size) != size:
        raise Refusal(422, f"LFS object {oid} has {size} bytes, not {value['size']}")
    return make_pointer(oid, size)


def _check_no_file_is_folder(present: set[str], changes: dict[str, bytes | None]) -> None:
    after = (present | set(changes)) - {path for path, new in changes.items() if new is None}
    for path in after:
        for parent in _parents(path):
            if parent in after:
                raise Refusal(422, f"{parent} cannot be a file and a folder")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
