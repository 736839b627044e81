"""Who may do what: users, organisations and their tokens."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from hub_server.errors import Refusal

__all__ = ["Account", "Accounts", "parse_account"]


@dataclass(frozen=True)
class Account:
    """A user.

    :param name: the namespace of the user's own repositories.
    :param token: what the client sends.
    :param organizations: other namespaces that the user writes to.
    :param role: ``"write"`` or ``"read"``.
    """

    name: str
    token: str = field(repr=False)
    organizations: tuple[str, ...] = ()
    role: str = "write"

    def belongs_to(self, namespace: str) -> bool:
        """Return whether the user sees everything in ``namespace``."""
        return namespace.lower() in {self.name.lower(), *map(str.lower, self.organizations)}

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and self.belongs_to(namespace)

    def describe(self) -> dict[str, object]:
        """Return the answer of ``/api/whoami-v2``."""
        return {
            "type": "user",
            "id": hashlib.sha1(self.name.encode(), usedforsecurity=False).hexdigest()[:24],
            "name": self.name,
            "fullname": self.name,
            "isPro": False,
            "orgs": [
                {"type": "org", "name": name, "fullname": name, "roleInOrg": "admin"}
                for name in self.organizations
            ],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": "test", "role": self.role},
            },
        }


def parse_account(text: str) -> Account:
    """Read ``name:token[:org,org…[:role]]``."""
    name, token, *rest = text.split(":")
    organizations = tuple(filter(None, rest[0].split(","))) if rest else ()
    return Account(name, token, organizations, rest[1] if len(rest) > 1 else "write")


class Accounts:
    """All users, found by their token."""

    def __init__(self, accounts: list[Account]) -> None:
        self._accounts = accounts

    def authenticate(self, authorization: str | None) -> Account | None:
        """Return the user of an ``Authorization`` header, None without one.

        :raises Refusal: a token that nobody has.
        """
        if not authorization:
            return None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer":
            for account in self._accounts:
                if hmac.compare_digest(account.token, token.strip()):
                    return account
        raise Refusal(401, "Invalid credentials in Authorization header")
