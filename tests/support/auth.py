"""Sign in, and use, refresh and revoke tokens through the API."""

from __future__ import annotations

from urllib.parse import urlencode

from tests.api.conftest import Client
from tests.support.client import ClientResponse

FORM = {"content-type": "application/x-www-form-urlencoded"}


def sign_in(client: Client, username: str, password: str, **fields: str) -> ClientResponse:
    """Sign in. `fields` are more fields of the form."""
    form = urlencode({"username": username, "password": password, **fields}).encode()
    return client("POST", "/login/access-token", body=form, headers=FORM)


def get_token_owner(client: Client, access_token: str) -> ClientResponse:
    """Request the user that an access token belongs to."""
    return client("POST", "/login/test-token", headers={"authorization": f"Bearer {access_token}"})


def refresh(client: Client, token: str) -> ClientResponse:
    """Exchange a refresh token."""
    return client("POST", "/login/refresh-token", {"refresh_token": token})


def assert_unauthorized(response: ClientResponse, detail: str = "Could not validate credentials") -> None:
    """Assert that the response is 401 with this detail."""
    assert (response.status, response.json()["detail"]) == (401, detail), response.body
    assert response.headers["www-authenticate"] == "Bearer"


def revoke(client: Client, token: str, **fields: str) -> ClientResponse:
    """Revoke a token. `fields` are more fields of the form."""
    form = urlencode({"token": token, **fields}).encode()
    return client("POST", "/oauth/revoke", body=form, headers=FORM)
