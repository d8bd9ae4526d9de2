"""Authentication of the caller, and their role in an organization."""

from typing import Annotated
from uuid import UUID

import jwt
from fastapi import Depends, HTTPException
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import select

from app.config import settings
from app.database import SessionDep
from app.models import Membership, User

oauth2_scheme = OAuth2PasswordBearer(tokenUrl="/api/v1/login/access-token")


async def get_current_user(session: SessionDep, token: Annotated[str, Depends(oauth2_scheme)]) -> User:
    try:
        claims = jwt.decode(token, settings.secret_key, algorithms=["HS256"], audience="sartiq-api")
        user = await session.get(User, UUID(claims["sub"]))
    except (jwt.InvalidTokenError, KeyError, ValueError):
        user = None
    if user is None or not user.is_active:
        raise HTTPException(401, "Could not validate credentials")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


async def require_role(
    session: SessionDep, user: User, organization_id: UUID | None, *, writing: bool = False
) -> None:
    if user.is_superuser:
        return
    role = await session.scalar(
        select(Membership.role).where(
            Membership.organization_id == organization_id, Membership.user_id == user.id
        )
    )
    if role is None:
        raise HTTPException(404, "Not found")
    if writing and role == "viewer":
        raise HTTPException(403, "Not enough permissions")
