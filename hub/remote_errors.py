"""What huggingface_hub raises, in one line that says what to do."""

from __future__ import annotations

import os
from typing import Any

from agents.errors import (
    AccessDenied,
    AgentNotFound,
    HubError,
    HubUnreachable,
    NaturalZooError,
)

__all__ = ["explain"]


def explain(
    error: BaseException, repo: str, revision: str | None, endpoint: str, *, is_cached: bool
) -> NaturalZooError | None:
    """Return our error for one of the client's, None for anything else.

    :param repo: what was asked for, or whose.
    :param revision: of it.
    :param endpoint: address of the server.
    :param is_cached: whether the cache could have answered.
    """
    from huggingface_hub import errors

    cause = error.__cause__
    if isinstance(error, RuntimeError) and isinstance(cause, errors.HfHubHTTPError | OSError):
        error = cause  # the upload of a large file, with the reason below
    if isinstance(error, errors.HfHubHTTPError):
        return _http_error(error, repo, revision, endpoint)
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return _unreachable(repo if is_cached else None, endpoint)
    if isinstance(error, errors.HFValidationError | errors.HfUriError):
        return AgentNotFound(
            f"'{repo}' cannot be the name of a repository. Allowed: ORG/NAME of letters, digits, "
            "'-', '_' and '.', such as ORG/npg-Walker2d-v4."
        )
    if isinstance(error, ConnectionError | _transport_error()):
        return _unreachable(repo if is_cached else None, endpoint)
    if isinstance(error, ValueError):  # the card or a name, refused before anything was uploaded
        return HubError(f"{endpoint} refuses this: {error}")
    return None


def _transport_error() -> type[Exception]:
    """Return what the client's HTTP library raises without a connection."""
    from huggingface_hub import errors

    # HfHubHTTPError stands below it; whatever else does has not been answered.
    return next(c for c in errors.HfHubHTTPError.__mro__ if c.__module__.startswith("httpx"))


def _http_error(error: Any, repo: str, revision: str | None, endpoint: str) -> HubError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return AccessDenied(
            f"{repo} is gated. Ask for access at {endpoint}/{repo}, then try again."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return AgentNotFound(
            f"There is no agent {repo} on {endpoint}, or it is private and the token, if any, has "
            "no right to read it. See what there is: python -m hub.list --org "
            f"{repo.partition('/')[0]}; log in: hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return AgentNotFound(
            f"{repo} has no revision '{revision}'. Leave @{revision} out for the latest, or see "
            f"{endpoint}/{repo}/commits/main"
        )
    status = error.response.status_code
    reason = error.server_message or str(error).splitlines()[0]
    if status == 401:
        return AccessDenied(f"{endpoint} does not know the token. Type: hf auth login")
    if status == 403:
        return AccessDenied(
            f"The token has no right to do this with {repo} ({reason}). Give a namespace of yours, "
            "or a token with the right to write."
        )
    return HubError(f"{endpoint} answers {status} for {repo}: {reason}")


def _unreachable(repo: str | None, endpoint: str) -> HubUnreachable:
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    why = "HF_HUB_OFFLINE is set" if offline else f"{endpoint} cannot be reached"
    if repo is None:
        return HubUnreachable(f"{why}. Connect and try again, or use a folder: folder:/srv/agents")
    return HubUnreachable(
        f"{why}, and {repo} is not, or not wholly, in the cache. Connect and try again, or copy "
        "the cache of a machine that has it; python -m hub.list --cached shows what is here."
    )
