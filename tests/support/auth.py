"""Signing in and what follows, through the API, for tests about passwords and tokens."""

from __future__ import annotations

from urllib.parse import urlencode

from tests.api.conftest import Client
from tests.support.client import ClientResponse

FORM = {"content-type": "application/x-www-form-urlencoded"}


def sign_in(client: Client, username: str, password: str, **fields: str) -> ClientResponse:
    """Sign in; `more` are further fields of the form."""
    form = urlencode({"username": username, "password": password, **fields}).encode()
    return client("POST", "/login/access-token", body=form, headers=FORM)


def get_token_owner(client: Client, access_token: str) -> ClientResponse:
    """Ask whose a token is."""
    return client("POST", "/login/test-token", headers={"authorization": f"Bearer {access_token}"})


def refresh(client: Client, token: str) -> ClientResponse:
    """Spend a refresh token."""
    return client("POST", "/login/refresh-token", {"refresh_token": token})


def assert_unauthorized(reply: ClientResponse, detail: str = "Could not validate credentials") -> None:
    """The answer is 401 with these words."""
    assert (reply.status, reply.json()["detail"]) == (401, detail), reply.body
    assert reply.headers["www-authenticate"] == "Bearer"


def revoke(client: Client, token: str, **fields: str) -> ClientResponse:
    """Revoke a token; `more` are further fields of the form."""
    form = urlencode({"token": token, **fields}).encode()
    return client("POST", "/oauth/revoke", body=form, headers=FORM)
