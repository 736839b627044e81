"""What a handler is given: one request, understood as far as all handlers need it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request

from hub_server.accounts import Account, Accounts
from hub_server.errors import bad_request
from hub_server.repositories import Repositories, Repository

__all__ = ["Call", "Hub"]


@dataclass(frozen=True)
class Hub:
    """What lives as long as the server.

    :param root: where everything is kept.
    :param secret: signs the addresses that uploads go to.
    """

    root: Path
    accounts: Accounts
    repositories: Repositories
    secret: bytes


@dataclass(frozen=True)
class Call:
    """One request.

    :param request: Starlette's.
    :param hub: the server's state.
    :param user: who asks, None without a token.
    :param segments: the named parts of the address, decoded.
    :param body: all of it; empty where the handler reads the stream itself.
    """

    request: Request
    hub: Hub
    user: Account | None
    segments: dict[str, str]
    body: bytes = b""

    @property
    def base_url(self) -> str:
        """The address under which *this* client reached the server."""
        return f"{self.request.url.scheme}://{self.request.headers['host']}"

    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise bad_request("The body is not JSON") from error
        if not isinstance(value, dict):
            raise bad_request("The body is not a JSON object")
        return value

    def readable(self) -> Repository:
        """Return the repository of the address.

        :raises Refusal: there is none for this user.
        """
        return self.hub.repositories.find(self._kind, self.segments["id"], self.user)

    def writable(self) -> Repository:
        """Return the repository of the address.

        :raises Refusal: this user may not write to it.
        """
        return self.hub.repositories.find_writable(self._kind, self.segments["id"], self.user)

    @property
    def _kind(self) -> str:
        return self.segments.get("kind") or "models"

    def flag(self, name: str) -> bool:
        return self.request.query_params.get(name, "").lower() in ("1", "true")
