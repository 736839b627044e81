"""Refusals, in the headers that ``huggingface_hub`` reads."""

from __future__ import annotations

import uuid

from starlette.responses import JSONResponse

__all__ = [
    "Refusal",
    "bad_request",
    "entry_not_found",
    "refusal_response",
    "repo_not_found",
    "revision_not_found",
]


class Refusal(Exception):
    """A request that is answered with an error.

    :param status: of HTTP.
    :param message: for the user.
    :param code: ``X-Error-Code``; the client chooses its exception by it.
    :param headers: more of them.
    :param body: more keys of the JSON answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}
        self.body = body or {}


def bad_request(message: str) -> Refusal:
    return Refusal(400, message)


def repo_not_found(*, is_known_user: bool) -> Refusal:
    """A missing repository and one that is kept from this user look the same.

    Someone without a token is told to log in (401).
    """
    if is_known_user:
        return Refusal(404, "Repository not found", "RepoNotFound")
    return Refusal(401, "Invalid username or password.", "RepoNotFound")


def revision_not_found(revision: str) -> Refusal:
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str) -> Refusal:
    # The client remembers by this header that the file is missing at that commit.
    return Refusal(404, f"Entry not found: {path}", "EntryNotFound", {"X-Repo-Commit": commit})


def refusal_response(refusal: Refusal) -> JSONResponse:
    """Return the answer; it always carries ``X-Error-Message`` and ``X-Request-Id``."""
    headers = {
        **refusal.headers,
        "X-Error-Message": " ".join(refusal.message.split()).encode("ascii", "replace").decode(),
        "X-Request-Id": uuid.uuid4().hex,
    }
    if refusal.code is not None:
        headers["X-Error-Code"] = refusal.code
    return JSONResponse({"error": refusal.message, **refusal.body}, refusal.status, headers)
