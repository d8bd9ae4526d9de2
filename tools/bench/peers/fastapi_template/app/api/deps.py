"""The dependencies of the routes: the database session and the current user."""

import uuid
from collections.abc import Generator
from typing import Annotated

from fastapi import Depends, HTTPException, status
from fastapi.security import OAuth2PasswordBearer
from jwt.exceptions import InvalidTokenError
from pydantic import ValidationError
from sqlmodel import Session, select

from app.core.config import settings
from app.core.db import engine
from app.core.security import decode_access_token
from app.models import Membership, TokenPayload, User

reusable_oauth2 = OAuth2PasswordBearer(tokenUrl=f"{settings.API_V1_STR}/login/access-token")


def get_db() -> Generator[Session, None, None]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_db)]
TokenDep = Annotated[str, Depends(reusable_oauth2)]


def get_current_user(session: SessionDep, token: TokenDep) -> User:
    try:
        token_data = TokenPayload(**decode_access_token(token))
    except (InvalidTokenError, ValidationError):
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Could not validate credentials") from None
    user = session.get(User, token_data.sub)
    if not user or not user.is_active:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Could not validate credentials")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


def require_membership(
    session: Session, user: User, organization_id: uuid.UUID | None, *, writing: bool = False
) -> None:
    """Raise 404 if the user is not a member, and 403 if a viewer wants to write."""
    if user.is_superuser:
        return
    statement = select(Membership.role).where(
        Membership.organization_id == organization_id, Membership.user_id == user.id
    )
    role = session.exec(statement).first()
    if role is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Not found")
    if writing and role == "viewer":
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Not enough permissions")
