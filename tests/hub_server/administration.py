"""Users and repositories: who am I, create, delete, change the visibility."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from hub_server.calls import Call
from hub_server.errors import Refusal, bad_request

__all__ = ["create", "delete", "settings", "whoami"]

_TYPES = {None: "models", "model": "models", "dataset": "datasets", "space": "spaces"}


def whoami(call: Call) -> Response:
    if call.user is None:
        raise Refusal(401, "Invalid username or password.")
    return JSONResponse(call.user.describe())


def create(call: Call) -> Response:
    kind, repo_id = _named(call)
    visibility = call.json().get("visibility") or "public"
    address = f"{call.base_url}/{'' if kind == 'models' else kind + '/'}{repo_id}"
    try:
        repository = call.hub.repositories.create(kind, repo_id, visibility, call.user)
    except Refusal as refusal:
        if refusal.status == 409:  # the client reads the address also of one that exists
            refusal.body = {"url": address}
        raise
    return JSONResponse({"url": address, "name": repository.id, "id": repository.id})


def delete(call: Call) -> Response:
    call.hub.repositories.remove(*_named(call), call.user)
    return JSONResponse({})


def settings(call: Call) -> Response:
    repository = call.writable()
    wanted = call.json()
    with repository.lock:
        if "visibility" in wanted:
            if wanted["visibility"] not in ("public", "private"):
                raise bad_request(f"Visibility {wanted['visibility']} is unknown")
            repository.private = wanted["visibility"] == "private"
        if "gated" in wanted:
            repository.gated = wanted["gated"]
        repository.save()
    return JSONResponse({"private": repository.private, "gated": repository.gated})


def _named(call: Call) -> tuple[str, str]:
    """Return kind and id; a bare name lies in the user's own namespace."""
    request = call.json()
    kind, name = _TYPES.get(request.get("type")), request.get("name")
    if kind is None or not isinstance(name, str):
        raise bad_request("A repository has a name and a known type")
    namespace = request.get("organization") or (call.user.name if call.user else None)
    if namespace is None:
        raise Refusal(401, "Invalid username or password.")
    return kind, name if "/" in name else f"{namespace}/{name}"
