"""The application: addresses, matched before they are decoded, and one answer for every error.

A revision is one segment of the address even where its name holds a slash (``refs%2Fpr%2F1``), so
that the raw path has to be matched; Starlette's own routes see it decoded.
"""

from __future__ import annotations

import inspect
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hub_server import administration, cards, commits, downloads, lfs, listing, references
from hub_server.accounts import Account, Accounts
from hub_server.calls import Call, Hub
from hub_server.errors import Refusal, refusal_response
from hub_server.repositories import Repositories

__all__ = ["make_app"]

Handler = Callable[[Call], Any]
logger = logging.getLogger("hub_server")

_LARGEST_BODY = 256 * 2**20
_API = r"/api/(?P<kind>models|datasets|spaces)"
_ID = r"/(?P<id>[^/]+/[^/]+)"
_REV = r"/(?P<revision>[^/]+)"
_FILES = r"/(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)"
_OBJECT = r"/(?P<kind>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)/(?P<oid>[^/]+)"

_ROUTES: Sequence[tuple[str, str, Handler]] = (
    ("GET", "/api/whoami-v2", administration.whoami),
    ("POST", "/api/repos/create", administration.create),
    ("DELETE", "/api/repos/delete", administration.delete),
    ("POST", "/api/validate-yaml", cards.validate),
    ("GET", _API, listing.list_repositories),
    ("PUT", f"{_API}{_ID}/settings", administration.settings),
    ("POST", f"{_API}{_ID}/preupload{_REV}", commits.preupload),
    ("POST", f"{_API}{_ID}/commit{_REV}", commits.commit),
    ("GET", f"{_API}{_ID}/refs", references.references),
    ("GET", f"{_API}{_ID}/commits{_REV}", references.commits),
    ("POST", rf"{_API}{_ID}/branch/(?P<name>[^/]+)", references.add_branch),
    ("DELETE", rf"{_API}{_ID}/branch/(?P<name>[^/]+)", references.remove_branch),
    ("POST", f"{_API}{_ID}/tag{_REV}", references.add_tag),
    ("DELETE", rf"{_API}{_ID}/tag/(?P<name>[^/]+)", references.remove_tag),
    ("GET", rf"{_API}{_ID}/tree{_REV}(?:/(?P<path>.+))?", listing.tree),
    ("POST", f"{_API}{_ID}/paths-info{_REV}", listing.paths_info),
    ("GET", f"{_API}{_ID}/revision{_REV}", listing.repo_info),
    ("GET", f"{_API}{_ID}", listing.repo_info),
    ("POST", rf"{_FILES}\.git/info/lfs/objects/batch", lfs.batch),
    ("POST", rf"{_FILES}\.git/info/lfs/verify", lfs.verify),
    ("PUT", f"/lfs{_OBJECT}", lfs.receive),
    ("GET", rf"{_FILES}/resolve{_REV}/(?P<path>.+)", downloads.resolve),
)
_COMPILED = [(method, re.compile(pattern), handler) for method, pattern, handler in _ROUTES]
_STREAMED = (lfs.receive,)
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"]


def make_app(root: Path, accounts: list[Account]) -> Starlette:
    """Return the server as an ASGI application.

    :param root: the folder that keeps everything; what is there is served again.
    :param accounts: who may log in.
    """
    root.mkdir(parents=True, exist_ok=True)
    hub = Hub(root, Accounts(accounts), Repositories(root), secrets.token_bytes(32))

    async def answer(request: Request) -> Response:
        try:
            return await _answer(request, hub)
        except Refusal as refusal:
            return refusal_response(refusal)
        except Exception:
            logger.exception("%s %s", request.method, request.url.path)
            return refusal_response(Refusal(500, "Internal error"))

    return Starlette(routes=[Route("/{path:path}", answer, methods=_METHODS)])


async def _answer(request: Request, hub: Hub) -> Response:
    path = request.scope["raw_path"].decode("ascii")
    if path.startswith(("/api/telemetry/", "/api/agent-harnesses")):
        return JSONResponse({})
    method = "GET" if request.method == "HEAD" else request.method
    for verb, pattern, handler in _COMPILED:
        match = pattern.fullmatch(path) if verb == method else None
        if match is None:
            continue
        segments = {name: unquote(text) for name, text in match.groupdict().items() if text}
        user = hub.accounts.authenticate(request.headers.get("authorization"))
        if handler in _STREAMED:
            response = handler(Call(request, hub, user, segments))
        else:
            call = Call(request, hub, user, segments, await _body(request))
            response = await run_in_threadpool(handler, call)
        return await response if inspect.isawaitable(response) else response
    raise Refusal(404, f"Sorry, we can't find the page {path}")


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _LARGEST_BODY:
            raise Refusal(413, "The request is too large")
        chunks.append(chunk)
    return b"".join(chunks)
