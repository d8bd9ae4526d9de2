"""Guess the caller of a credential, so that the caller and the rows it asks for are read in one message.

A guess is the caller of the credential's previous request in this process. The message reads the caller
again; if it differs, nothing that was read for the guess is used. A guess gives no right.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from db.caller import Caller
from db.libpq.statements import Row

MAX_KNOWN_CALLERS = 5_000


class KnownCaller(NamedTuple):
    """A caller, and the row of the database that it was made of."""

    row: Row | None
    caller: Caller


class KnownCallers:
    """The callers of the credentials that this process has seen last."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], KnownCaller] = {}

    def find(self, claims: dict[str, Any]) -> KnownCaller | None:
        """Return what is known about the caller of a credential."""
        return self._known.get(_identify(claims))

    def remember(self, claims: dict[str, Any], known: KnownCaller) -> None:
        """Replace what is known about the caller of a credential."""
        key = _identify(claims)
        # The one that was added first is the first one of a dict.
        self._known.pop(key, None)
        if len(self._known) >= MAX_KNOWN_CALLERS:
            del self._known[next(iter(self._known))]
        self._known[key] = known

    def forget(self, claims: dict[str, Any]) -> None:
        """Forget the caller of a credential that was rejected."""
        self._known.pop(_identify(claims), None)


def _identify(claims: dict[str, Any]) -> tuple[Any, ...]:
    if "api_key_id" in claims:
        return claims["api_key_id"], claims["secret_hash"]
    # The name of a guest is a part of the caller.
    return claims["sub"], claims["sid"], claims.get("guest", {}).get("name")
