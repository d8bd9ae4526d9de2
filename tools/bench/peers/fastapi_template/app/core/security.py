"""Decode access tokens."""

from typing import Any

import jwt

from app.core.config import settings

ALGORITHM = "HS256"
AUDIENCE = "sartiq-api"


def decode_access_token(token: str) -> dict[str, Any]:
    return jwt.decode(token, settings.SECRET_KEY, algorithms=[ALGORITHM], audience=AUDIENCE)
