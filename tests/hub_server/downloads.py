"""Files by revision and path: what ``resolve`` addresses stand for."""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.responses import FileResponse, Response

from hub_server.calls import Call
from hub_server.errors import Refusal, entry_not_found
from hub_server.lfs import object_path
from hub_server.repositories import Repository

__all__ = ["resolve"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def resolve(call: Call) -> Response:
    """Send a file, or its part.

    The real Hub redirects to another host for a large one. A client that is redirected to the same
    host looks for the headers there, so that it is served at once here.
    """
    repository = call.readable()
    _check_gate(call, repository)
    git = repository.git
    commit = git.resolve(call.segments["revision"])
    path = call.segments["path"]
    entry = git.entries(commit).get(path)
    if entry is None:
        raise entry_not_found(path, commit)
    headers = {
        "X-Repo-Commit": commit,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(path.rpartition('/')[2])}",
    }
    headers["ETag"] = f'"{entry.etag}"'
    if entry.pointer is not None:
        headers["X-Linked-Etag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(entry.size)
        content = object_path(repository, entry.pointer.oid)
        return FileResponse(content, headers=headers, media_type="application/octet-stream")
    return _send(git.read(entry.blob), call.request.headers.get("range"), headers)


def _check_gate(call: Call, repository: Repository) -> None:
    is_member = call.user is not None and call.user.belongs_to(repository.namespace)
    if repository.gated and not is_member:
        status = 401 if call.user is None else 403
        message = f"Access to model {repository.id} is restricted."
        raise Refusal(status, message, "GatedRepo")


def _send(content: bytes, wanted: str | None, headers: dict[str, str]) -> Response:
    """Return the content, or the part that a ``Range`` header asks for."""
    match = _RANGE.fullmatch(wanted) if wanted else None
    if match is None or match[0] == "bytes=-":
        return Response(content, 200, headers, "application/octet-stream")
    first, last = match[1], match[2]
    if first:
        start, stop = int(first), min(int(last) + 1 if last else len(content), len(content))
    else:  # the last bytes
        start, stop = max(len(content) - int(last), 0), len(content)
    if start >= stop:
        raise Refusal(
            416, "Range not satisfiable", None, {"Content-Range": f"bytes */{len(content)}"}
        )
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Response(content[start:stop], 206, headers, "application/octet-stream")
