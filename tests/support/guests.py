"""Review links and the access tokens of guests for tests."""

from __future__ import annotations

import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import jwt

from db.models import ReviewLink
from handlers.app import Application
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER
from tests.api.conftest import Client


def create_link(client: Client, path: str) -> tuple[dict[str, Any], str]:
    """Create a review link and return its body and its token."""
    response = client("POST", path, {"expires_in_days": 7})
    assert response.status == 201, response.body
    body = response.json()
    return body, urlsplit(body["url"]).fragment


def exchange(app: Any, token: str, **body: Any) -> Any:
    """Exchange a review link without a credential."""
    return Client(app)("POST", "/review-links/exchange", {"token": token, **body})


def enter(app: Any, token: str, **body: Any) -> Client:
    """Return a client with a new session of a guest."""
    response = exchange(app, token, **body)
    assert response.status == 200, response.body
    return Client(app, {"authorization": f"Bearer {response.json()['access_token']}"})


def guest_headers(app: Application, link: ReviewLink) -> dict[str, str]:
    """Return the Authorization header of a guest with a review link, made without the API."""
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(link.id), "sid": str(link.id), "jti": uuid.uuid4().hex,
        "type": "access", "iat": now, "nbf": now, "exp": now + 3600, "guest": {"name": "Maria Rossi"},
    }  # fmt: skip
    return {"authorization": f"Bearer {jwt.encode(claims, app.settings.secret_key, ALGORITHM)}"}
