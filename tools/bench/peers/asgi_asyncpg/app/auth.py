"""Authentication of the caller, and their role in an organization."""

from __future__ import annotations

import os
import time
from functools import lru_cache

import jwt

from app import database
from app.http import Problem, Request

SECRET_KEY = os.environ["SECRET_KEY"]
SELECT_CALLER = """
SELECT u.id, u.is_superuser, m.organization_id, m.role
FROM users u LEFT JOIN memberships m ON m.user_id = u.id
WHERE u.id = $1 AND u.is_active
"""


class Caller:
    def __init__(self, rows) -> None:
        self.id = rows[0]["id"]
        self.is_superuser = rows[0]["is_superuser"]
        self.roles = {row["organization_id"]: row["role"] for row in rows}

    def require(self, organization_id: str | None, writing: bool = False) -> None:
        role = self.roles.get(organization_id) if organization_id else None
        if role is None and not self.is_superuser:
            raise Problem(404, "Not found")
        if writing and role == "viewer":
            raise Problem(403, "Not enough permissions")


@lru_cache(maxsize=1000)
def decode_token(authorization: bytes) -> tuple[str, int]:
    claims = jwt.decode(authorization[7:], SECRET_KEY, algorithms=["HS256"], audience="sartiq-api")
    return claims["sub"], claims["exp"]


async def load_caller(request: Request) -> Caller:
    try:
        user_id, expires_at = decode_token(request.headers[b"authorization"])
    except (jwt.InvalidTokenError, KeyError):
        raise Problem(401, "Could not validate credentials") from None
    rows = await database.pool.fetch(SELECT_CALLER, user_id)
    if not rows or expires_at < time.time():
        raise Problem(401, "Could not validate credentials")
    return Caller(rows)
