"""Signing in and what follows, through the API, for tests about passwords and tokens."""

from __future__ import annotations

from urllib.parse import urlencode

from tests.api.conftest import Client
from tests.contract.mini.asking import Reply

FORM = {"content-type": "application/x-www-form-urlencoded"}


def sign_in(client: Client, username: str, password: str, **more: str) -> Reply:
    """Sign in; `more` are further fields of the form."""
    form = urlencode({"username": username, "password": password, **more}).encode()
    return client("POST", "/login/access-token", body=form, headers=FORM)


def who(client: Client, access_token: str) -> Reply:
    """Ask whose a token is."""
    return client("POST", "/login/test-token", headers={"authorization": f"Bearer {access_token}"})


def refresh(client: Client, token: str) -> Reply:
    """Spend a refresh token."""
    return client("POST", "/login/refresh-token", {"refresh_token": token})


def assert_refused(reply: Reply, detail: str = "Could not validate credentials") -> None:
    """The answer is 401 with these words."""
    assert (reply.status, reply.json()["detail"]) == (401, detail), reply.body
    assert reply.headers["www-authenticate"] == "Bearer"


def revoke(client: Client, token: str, **more: str) -> Reply:
    """Revoke a token; `more` are further fields of the form."""
    form = urlencode({"token": token, **more}).encode()
    return client("POST", "/oauth/revoke", body=form, headers=FORM)
