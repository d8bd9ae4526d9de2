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


CHALLENGES = tuple(
    f'Bearer error="invalid_token", error_description="{reason}"'
    for reason in ("The token is not valid", "The access token has expired")
)


def refresh(client: Client, token: str) -> ClientResponse:
    """Exchange a refresh token."""
    return client("POST", "/login/refresh-token", {"refresh_token": token})


def assert_invalid_token(response: ClientResponse) -> None:
    """Assert that the response is 401 because a mailed token is not valid."""
    assert (response.status, response.json()["code"]) == (401, "invalid_token"), response.body


def assert_unauthorized(response: ClientResponse, detail: str = "Could not validate credentials") -> None:
    """Assert that the response is 401 with this detail."""
    assert (response.status, response.json()["detail"]) == (401, detail), response.body
    assert_challenge(response)


def assert_challenge(response: ClientResponse) -> None:
    """Assert that `WWW-Authenticate` of a 401 tells a rejected credential from none (RFC 6750, section 3)."""
    is_rejected = response.json()["code"] == "invalid_token"
    assert response.headers["www-authenticate"] in (CHALLENGES if is_rejected else ("Bearer",)), response.body


def revoke(client: Client, token: str, **fields: str) -> ClientResponse:
    """Revoke a token. `fields` are more fields of the form."""
    form = urlencode({"token": token, **fields}).encode()
    return client("POST", "/oauth/revoke", body=form, headers=FORM)
