"""Branches, tags and history."""

from __future__ import annotations

import re

from starlette.responses import JSONResponse, Response

from hub_server.calls import Call
from hub_server.errors import Refusal, bad_request
from hub_server.git_storage import MAIN
from hub_server.listing import time_of

__all__ = ["add_branch", "add_tag", "commits", "references", "remove_branch", "remove_tag"]

_NAME = re.compile(r"(?!.*(\.\.|//|\.lock$))[A-Za-z0-9_][A-Za-z0-9._/-]*")


def references(call: Call) -> Response:
    git = call.readable().git
    answer: dict[str, object] = {"converts": []}
    for key, kind in (("branches", "heads"), ("tags", "tags")):
        answer[key] = [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}
            for name, commit in sorted(git.references(kind).items())
        ]
    if call.flag("include_prs"):
        answer["pullRequests"] = []
    return JSONResponse(answer)


def commits(call: Call) -> Response:
    """Answer the history of a revision, newest first."""
    git = call.readable().git
    items = []
    for commit in git.history(git.resolve(call.segments["revision"])):
        title, _, message = commit.message.decode("utf-8", "replace").partition("\n\n")
        author = commit.author.decode("utf-8", "replace").partition(" <")[0]
        items.append(
            {
                "id": commit.id.decode(),
                "title": title,
                "message": message,
                "authors": [{"user": author}],
                "date": time_of(commit.commit_time),
            }
        )
    return JSONResponse(items)


def add_branch(call: Call) -> Response:
    repository = call.writable()
    name = _checked_name(call.segments["name"])
    start = (call.json() if call.body else {}).get("startingPoint") or MAIN
    with repository.lock:
        if name in repository.git.references("heads"):
            raise Refusal(409, f"Reference already exists: {name}")
        repository.git.add_reference("heads", name, repository.git.resolve(start))
    return JSONResponse({})


def remove_branch(call: Call) -> Response:
    repository = call.writable()
    if call.segments["name"] == MAIN:
        raise Refusal(403, "Forbidden: cannot delete the main branch")
    with repository.lock:
        repository.git.remove_reference("heads", call.segments["name"])
    return JSONResponse({})


def add_tag(call: Call) -> Response:
    repository = call.writable()
    name = _checked_name(call.json().get("tag"))
    with repository.lock:
        if name in repository.git.references("tags"):
            raise Refusal(409, f"Tag reference exists already: {name}")
        commit = repository.git.resolve(call.segments["revision"])
        repository.git.add_reference("tags", name, commit)
    return JSONResponse({})


def remove_tag(call: Call) -> Response:
    repository = call.writable()
    with repository.lock:
        repository.git.remove_reference("tags", call.segments["name"])
    return JSONResponse({})


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise bad_request(f"Invalid reference name: {name}")
    return name
