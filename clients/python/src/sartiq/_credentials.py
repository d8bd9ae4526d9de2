"""Access tokens: where they come from and when they are renewed. It sends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from sartiq._call import Call

Otp = str | Callable[[], str]
"""A code of an authenticator app or a recovery code, or a function that asks for one."""

# A token that expires while a request is on its way would cost another request.
RENEW_BEFORE = 30.0


@dataclass(frozen=True)
class Tokens:
    """The tokens of a session."""

    access_token: str
    refresh_token: str | None = None
    expires_at: float | None = None
    """Unix time at which the access token expires."""

    @property
    def is_fresh(self) -> bool:
        """Return whether the access token is valid for the next seconds."""
        return self.expires_at is None or time.time() < self.expires_at - RENEW_BEFORE


class TokenStore(Protocol):
    """Where the tokens of a session are kept between processes. A refresh token works once."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from renewing the tokens inside the block."""

    def load(self) -> Tokens | None:
        """Return the stored tokens."""

    def save(self, tokens: Tokens | None) -> None:
        """Store new tokens, or none after a sign-out."""


@dataclass
class Credentials:
    """The credentials of one client. The transports guard every change with a lock."""

    tokens: Tokens | None = None
    email: str | None = None
    password: str | None = field(default=None, repr=False)
    store: TokenStore | None = None

    @property
    def can_renew(self) -> bool:
        """Return whether there is a way to another access token."""
        return bool(self.password or (self.tokens and self.tokens.refresh_token))

    def replace(self, tokens: Tokens | None) -> None:
        """Use and store other tokens."""
        self.tokens = tokens
        if self.store is not None:
            self.store.save(tokens)

    def reload(self) -> None:
        """Use the tokens that another process has stored since."""
        if self.store is not None and (stored := self.store.load()) is not None:
            self.tokens = stored

    def build_sign_in(self) -> Call | None:
        """Return the call that signs in with the password."""
        if self.email is None or self.password is None:
            return None
        body = {"username": self.email, "password": self.password, "grant_type": "password"}
        return token_call("/login/access-token", body, "form")

    def build_second_step(self, problem: Mapping[str, Any], otp: Otp | None) -> Call | None:
        """Return the call that completes a sign-in with the second factor that a problem asks for.

        Args:
            problem: The problem of the first call.
            otp: The code, or what returns it; None if there is none.
        """
        if otp is None or problem.get("code") != "second_factor_required":
            return None
        code = otp if isinstance(otp, str) else otp()
        body = {"challenge": problem["challenge"], "otp": code, "grant_type": "password"}
        # Not repeated: each code works once.
        return Call("POST", "/login/access-token", body=body, body_kind="form", public=True)

    def build_refresh(self) -> Call | None:
        """Return the call that exchanges the refresh token. The server accepts a repetition for seconds."""
        if self.tokens is None or self.tokens.refresh_token is None:
            return None
        return token_call("/login/refresh-token", {"refresh_token": self.tokens.refresh_token}, "json")


def token_call(path: str, body: dict[str, str], kind: Any) -> Call:
    """Return a call that needs no credentials and may be repeated."""
    return Call("POST", path, body=body, body_kind=kind, public=True, repeatable=True)


def read_tokens(response: Mapping[str, Any]) -> Tokens:
    """Return the tokens of a response."""
    return Tokens(
        response["access_token"], response.get("refresh_token"), time.time() + float(response["expires_in"])
    )
