"""Access tokens of guests for tests, made without the API."""

from __future__ import annotations

import time
import uuid

import jwt

from db.models import ReviewLink
from handlers.app import Application
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER


def guest_headers(app: Application, link: ReviewLink, name: str = "Maria Rossi") -> dict[str, str]:
    """Return the Authorization header of a guest with a review link."""
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(link.id), "sid": str(link.id), "jti": uuid.uuid4().hex,
        "type": "access", "iat": now, "nbf": now, "exp": now + 3600, "guest": {"name": name},
    }  # fmt: skip
    return {"authorization": f"Bearer {jwt.encode(claims, app.settings.secret_key, ALGORITHM)}"}
