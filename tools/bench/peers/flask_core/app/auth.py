"""Authentication of the caller, and their role in an organization."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import jwt
from flask import abort, current_app, request
from sqlalchemy import Connection, select

from app.database import memberships, users


class Caller(NamedTuple):
    id: UUID
    is_superuser: bool
    roles: dict[UUID, str]

    def require(self, organization_id: UUID | None, *, writing: bool = False) -> None:
        """Raise 404 if the caller is not a member, and 403 if a viewer wants to write."""
        role = self.roles.get(organization_id) if organization_id else None
        if role is None and not self.is_superuser:
            abort(404, "Not found")
        if writing and role == "viewer":
            abort(403, "Not enough permissions")


CALLER = (
    select(users.c.id, users.c.is_superuser, memberships.c.organization_id, memberships.c.role)
    .outerjoin(memberships, memberships.c.user_id == users.c.id)
    .where(users.c.is_active)
)


def load_caller(connection: Connection) -> Caller:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    secret = current_app.config["SECRET_KEY"]
    try:
        claims = jwt.decode(token, secret, algorithms=["HS256"], audience="sartiq-api")
        user_id = UUID(claims["sub"])
    except (jwt.InvalidTokenError, KeyError, ValueError):
        abort(401, "Could not validate credentials")
    rows = connection.execute(CALLER.where(users.c.id == user_id)).all()
    if not rows or scheme.lower() != "bearer":
        abort(401, "Could not validate credentials")
    roles = {row.organization_id: row.role for row in rows if row.organization_id}
    return Caller(rows[0].id, rows[0].is_superuser, roles)
