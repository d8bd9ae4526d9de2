"""Authentication of the caller, and their role in an organization."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException, PermissionDeniedException
from litestar.security.jwt import JWTAuth, Token

from app.settings import SECRET_KEY

SELECT_CALLER = """
SELECT u.id, u.is_superuser, m.organization_id, m.role
FROM users u LEFT JOIN memberships m ON m.user_id = u.id
WHERE u.id = $1 AND u.is_active
"""


class Caller(msgspec.Struct):
    id: UUID
    is_superuser: bool
    roles: dict[UUID, str]

    def require(self, organization_id: UUID | None, *, writing: bool = False) -> None:
        """Raise 404 if the caller is not a member, and 403 if a viewer wants to write."""
        role = self.roles.get(organization_id) if organization_id else None
        if role is None and not self.is_superuser:
            raise NotFoundException("Not found")
        if writing and role == "viewer":
            raise PermissionDeniedException("Not enough permissions")


async def load_caller(token: Token, connection: ASGIConnection[Any, Any, Any, Any]) -> Caller | None:
    try:
        user_id = UUID(token.sub)
    except ValueError:
        return None
    rows = await connection.app.state.pool.fetch(SELECT_CALLER, user_id)
    if not rows:
        return None
    roles = {row["organization_id"]: row["role"] for row in rows if row["organization_id"]}
    return Caller(rows[0]["id"], rows[0]["is_superuser"], roles)


authentication = JWTAuth[Caller](
    retrieve_user_handler=load_caller, token_secret=SECRET_KEY, accepted_audiences=["sartiq-api"]
)
