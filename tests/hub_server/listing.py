"""What is there: repositories by filters, the facts of one, its files."""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.responses import JSONResponse, Response

from hub_server.calls import Call
from hub_server.cards import front_matter, tags_of
from hub_server.errors import bad_request, entry_not_found
from hub_server.git_storage import MAIN, Entry
from hub_server.repositories import Repository

__all__ = [
    "list_repositories",
    "paths_info",
    "repo_info",
    "time_of",
    "tree",
]

_SORT_KEYS = ("lastModified", "createdAt", "downloads", "likes", "trendingScore")
_PAGE = 100
_TREE_PAGE = 1000
_ALWAYS = ("_id", "id", "modelId")


def list_repositories(call: Call) -> Response:
    """Answer ``/api/models`` with its filters, sorted, in pages."""
    query = call.request.query_params
    kind = call.segments["kind"]
    found = [_describe(r, MAIN) for r in call.hub.repositories.visible(kind, call.user)]
    wanted = set(query.getlist("filter")) | set(query.getlist("pipeline_tag"))
    author, search = query.get("author", "").lower(), query.get("search", "").lower()
    found = [
        info
        for info in found
        if wanted <= {*info["tags"], info.get("pipeline_tag"), info["id"]}
        and (not author or info["author"].lower() == author)
        and search in info["id"].lower()
    ]
    sort = query.get("sort", "trendingScore")
    if sort not in _SORT_KEYS:
        raise bad_request(f"Invalid sort parameter: {sort}")
    found.sort(key=lambda info: (info[sort], info["id"]), reverse=True)
    start, limit = int(query.get("cursor", 0)), min(int(query.get("limit", _PAGE)), _PAGE)
    page = [_selected(info, call) for info in found[start : start + limit]]
    headers = {}
    if start + limit < len(found):
        headers["Link"] = _next_link(call, start + limit)
    return JSONResponse(page, headers=headers)


def _next_link(call: Call, cursor: int) -> str:
    parameters = parse_qs(call.request.url.query) | {"cursor": [str(cursor)]}
    address = f"{call.base_url}{call.request.url.path}?{urlencode(parameters, doseq=True)}"
    return f'<{address}>; rel="next"'


def _selected(info: dict[str, Any], call: Call) -> dict[str, Any]:
    """Leave out what a list does not hold unless it was asked for."""
    expand = call.request.query_params.getlist("expand")
    if expand:
        return {key: info[key] for key in (*_ALWAYS, *expand) if key in info}
    hidden = {"siblings", "sha", "author", "lastModified", "gated", "disabled", "model-index"}
    hidden = set() if call.flag("full") else hidden
    hidden = hidden if call.flag("cardData") else hidden | {"cardData"}
    return {key: value for key, value in info.items() if key not in hidden}


def repo_info(call: Call) -> Response:
    repository = call.readable()
    revision = call.segments.get("revision") or MAIN
    info = _describe(repository, revision, with_sizes=call.flag("blobs"))
    expand = call.request.query_params.getlist("expand")
    if expand:
        info = {key: info[key] for key in (*_ALWAYS, *expand) if key in info}
    return JSONResponse(info)


def _describe(repository: Repository, revision: str, *, with_sizes: bool = False) -> dict[str, Any]:
    """Return the facts of a repository at a revision, as the API names them."""
    git = repository.git
    commit = git.resolve(revision)
    entries = git.entries(commit)
    card: dict[str, Any] = {}
    if "README.md" in entries and entries["README.md"].pointer is None:
        card = front_matter(git.read(entries["README.md"].blob).decode("utf-8", "replace"))
    tags, task = tags_of(card)
    info: dict[str, Any] = {
        "_id": repository.id,
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.namespace,
        "sha": commit,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "trendingScore": 0,
        "createdAt": repository.created_at,
        "lastModified": time_of(git.history(commit)[0].commit_time),
        "tags": tags,
        "siblings": [_sibling(entry, with_sizes) for entry in entries.values()],
        "usedStorage": sum(entry.size for entry in entries.values()),
    }
    if card:
        info["cardData"] = card
        info["model-index"] = card.get("model-index")
    if task:
        info["pipeline_tag"] = task
    if card.get("library_name"):
        info["library_name"] = card["library_name"]
    return info


def time_of(seconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _sibling(entry: Entry, with_sizes: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": entry.path}
    if with_sizes:
        sibling |= {"size": entry.size, "blobId": entry.blob}
        if entry.pointer:
            sibling["lfs"] = {
                "sha256": entry.pointer.oid,
                "size": entry.size,
                "pointerSize": entry.pointer.pointer_size,
            }
    return sibling


def tree(call: Call) -> Response:
    """Answer the files and folders below a path, in pages."""
    git = call.readable().git
    commit = git.resolve(call.segments["revision"])
    entries = git.entries(commit)
    folder = call.segments.get("path", "").strip("/")
    prefix = f"{folder}/" if folder else ""
    inside = {path: entry for path, entry in entries.items() if path.startswith(prefix)}
    if not inside and folder:
        raise entry_not_found(folder, commit)
    items = _items(inside, prefix, recursive=call.flag("recursive"))
    start = int(call.request.query_params.get("cursor", 0))
    limit = int(call.request.query_params.get("limit", _TREE_PAGE))
    headers = {}
    if start + limit < len(items):
        headers["Link"] = _next_link(call, start + limit)
    return JSONResponse(items[start : start + limit], headers=headers)


def _items(entries: dict[str, Entry], prefix: str, *, recursive: bool) -> list[dict[str, Any]]:
    items: dict[str, dict[str, Any]] = {}
    for path, entry in entries.items():
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            folder = prefix + "/".join(parts[:depth])
            if recursive or depth == 1:
                items[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        if recursive or len(parts) == 1:
            items[path] = _file_item(entry)
    return [items[path] for path in sorted(items)]


def _file_item(entry: Entry) -> dict[str, Any]:
    item: dict[str, Any] = {
        "type": "file",
        "path": entry.path,
        "oid": entry.blob,
        "size": entry.size,
    }
    if entry.pointer:
        item["lfs"] = {
            "oid": entry.pointer.oid,
            "size": entry.size,
            "pointerSize": entry.pointer.pointer_size,
        }
    return item


def paths_info(call: Call) -> Response:
    """Answer the facts of the paths in a form; those that do not exist are left out."""
    git = call.readable().git
    entries = git.entries(git.resolve(call.segments["revision"]))
    paths = [path.strip("/") for path in parse_qs(call.body.decode()).get("paths", [])]
    items = []
    for path in paths:
        if path in entries:
            items.append(_file_item(entries[path]))
        elif any(name.startswith(f"{path}/") for name in entries):
            items.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
    return JSONResponse(items)
