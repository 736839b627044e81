"""Git LFS: where large files go before a commit names them.

Objects belong to one repository. Knowing the hash of a file in somebody's private repository
therefore gives nothing: it has to be uploaded again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import uuid
from pathlib import Path
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from hub_server.calls import Call
from hub_server.errors import Refusal, bad_request
from hub_server.repositories import Repository

__all__ = ["batch", "object_path", "receive", "verify"]

_OID = re.compile(r"[0-9a-f]{64}")
_SECONDS_VALID = 3600
_LFS_JSON = "application/vnd.git-lfs+json"


def object_path(repository: Repository, oid: str) -> Path:
    """Return where an object is kept.

    :raises Refusal: ``oid`` is no SHA-256.
    """
    if not _OID.fullmatch(oid):
        raise Refusal(422, f"Invalid oid: {oid}")
    return repository.lfs / oid[:2] / oid[2:4] / oid


def batch(call: Call) -> Response:
    """Say for each object where to put it; nothing to do for one that is there."""
    repository = call.writable()
    request = call.json()
    if request.get("operation") != "upload" or "basic" not in request.get("transfers", ["basic"]):
        raise Refusal(422, "Only the operation upload with the transfer basic is supported")
    objects = []
    for wanted in request.get("objects", []):
        oid, size = wanted.get("oid"), wanted.get("size")
        if not isinstance(oid, str) or not isinstance(size, int) or size < 0:
            raise bad_request("An object has an oid and a size")
        answer: dict[str, object] = {"oid": oid, "size": size}
        if not object_path(repository, oid).is_file():
            place = f"{call.base_url}/{_prefix(repository)}{repository.id}.git/info/lfs"
            answer["actions"] = {
                "upload": {"href": _signed(call, repository, oid, size), "header": {}},
                "verify": {"href": f"{place}/verify", "header": {}},
            }
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type=_LFS_JSON)


async def receive(call: Call) -> Response:
    """Store an upload under its hash, if the bytes have that hash and size."""
    repository, oid = _check_signature(call)
    path = object_path(repository, oid)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    digest, size = hashlib.sha256(), 0
    try:
        with temporary.open("wb") as file:
            async for chunk in call.request.stream():
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
        if digest.hexdigest() != oid or size != int(call.request.query_params["size"]):
            raise bad_request("The content has another SHA-256 or size than announced")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Response()


def verify(call: Call) -> Response:
    """Confirm that an upload has arrived whole."""
    wanted = call.json()
    path = object_path(call.writable(), str(wanted.get("oid")))
    if not path.is_file() or path.stat().st_size != wanted.get("size"):
        raise Refusal(404, f"Object {wanted.get('oid')} has not been uploaded")
    return JSONResponse({})


def _prefix(repository: Repository) -> str:
    return "" if repository.kind == "models" else f"{repository.kind}/"


def _signed(call: Call, repository: Repository, oid: str, size: int) -> str:
    expires = int(time.time()) + _SECONDS_VALID
    signature = _signature(call, repository, oid, str(size), str(expires))
    query = urlencode({"size": size, "expires": expires, "signature": signature})
    return f"{call.base_url}/lfs/{repository.kind}/{repository.id}/{oid}?{query}"


def _signature(call: Call, repository: Repository, *parts: str | None) -> str:
    text = "\n".join([repository.kind, repository.id, *map(str, parts)])
    return hmac.new(call.hub.secret, text.encode(), hashlib.sha256).hexdigest()


def _check_signature(call: Call) -> tuple[Repository, str]:
    """Return the repository and object that a signed address stands for.

    :raises Refusal: this server has not signed it, or too long ago.
    """
    query, oid = call.request.query_params, call.segments["oid"]
    known = call.hub.repositories.lookup(call.segments["kind"], call.segments["id"])
    if known is not None and query.get("expires", "").isdigit():
        right = _signature(call, known, oid, query.get("size"), query["expires"])
        is_fresh = int(query["expires"]) > time.time()
        if hmac.compare_digest(right, query.get("signature", "")) and is_fresh:
            return known, oid
    raise Refusal(403, "Forbidden: this address is not valid or has expired")
