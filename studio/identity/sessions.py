"""Sessions: one sign-in is one family of rotating refresh tokens with a fixed end.

A refresh token works once. Its second use means that two parties hold it, so the whole family ends
(RFC 9700, 4.14.2). The access tokens of a family carry its id and die with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, joinedload

from db.audit import concern_account
from db.base import utc_now
from db.errors import IncorrectCredentials, InvalidToken
from db.models.users import RefreshToken, TokenFamily, User
from db.queries.users import find_user_by_email, forget_email_change
from db.session import record_apart, session
from studio.identity.passwords import hash_new_password, hash_password, needs_rehash, verify_password
from studio.identity.tokens import new_token, token_hash


@dataclass(frozen=True)
class Grant:
    """What a sign-in or a refresh gives: whom an access token is for, and the next refresh token."""

    user_id: UUID
    session_id: UUID
    session_ends_at: datetime
    refresh_token: str


def sign_in(email: str, password: str, lifetime: timedelta, user_agent: str | None = None) -> Grant:
    """Open a session of at most `lifetime`.

    IncorrectCredentials for an unknown address, a wrong password and a locked account alike; the first two
    in the same time.
    """
    user = find_user_by_email(email)
    if user is not None:
        concern_account(user)
    hashed = user.hashed_password if user else None
    if not verify_password(hashed, password) or user is None:
        raise IncorrectCredentials()
    # Under the lock, so that no session outlives a new password that was set while the old one was checked.
    session().refresh(user, with_for_update=True)
    if user.hashed_password != hashed or not user.is_active:
        raise IncorrectCredentials()
    if needs_rehash(user.hashed_password):
        user.hashed_password = hash_password(password)
    # Sign-ins that ended long ago are of no use; the account that made them clears them away.
    session().execute(
        delete(TokenFamily).where(TokenFamily.user_id == user.id, TokenFamily.expires_at < utc_now())
    )
    family = TokenFamily(
        user_id=user.id, expires_at=utc_now() + lifetime, user_agent=user_agent[:400] if user_agent else None
    )
    session().add(family)
    session().flush()
    return _grant(family)


def refresh(token: str) -> Grant:
    """Spend a refresh token for the next one of its session.

    InvalidToken when it is unknown, or its session is over or its account locked. When it was spent before,
    the session ends although the request is refused.
    """
    found = session().scalar(
        select(RefreshToken)
        .where(RefreshToken.token_hash == token_hash(token))
        .options(joinedload(RefreshToken.family).joinedload(TokenFamily.user))
        .with_for_update(of=RefreshToken)
    )
    if found is None:
        raise InvalidToken()
    family, now = found.family, utc_now()
    concern_account(family.user)
    if found.used_at is not None:
        record_apart(lambda apart: _end(apart, family.id))
        raise InvalidToken()
    if family.revoked_at is not None or family.expires_at <= now or not family.user.is_active:
        raise InvalidToken()
    found.used_at = now
    return _grant(family)


def end_session(session_id: UUID) -> None:
    """End one session: its access and refresh tokens stop working."""
    _end(session(), session_id)


def end_sessions(user_id: UUID, but: UUID | None = None) -> None:
    """End all sessions of an account, or all but one."""
    ending = update(TokenFamily).where(TokenFamily.user_id == user_id, TokenFamily.revoked_at.is_(None))
    if but is not None:
        ending = ending.where(TokenFamily.id != but)
    session().execute(ending.values(revoked_at=utc_now()))


def set_password(user: User, password: str, but_session: UUID | None = None) -> None:
    """Give an account a new password and end its sessions, or all but the one that asks; PasswordTooCommon.

    A change of address that waits is canceled: whoever knew the old password may have asked for it.
    """
    user.hashed_password = hash_new_password(password)
    forget_email_change(user.id)
    end_sessions(user.id, but_session)


def _end(opened: Session, session_id: UUID) -> None:
    opened.execute(
        update(TokenFamily)
        .where(TokenFamily.id == session_id, TokenFamily.revoked_at.is_(None))
        .values(revoked_at=utc_now())
    )


def _grant(family: TokenFamily) -> Grant:
    token = new_token("rt")
    session().add(
        RefreshToken(family_id=family.id, token_hash=token_hash(token), expires_at=family.expires_at)
    )
    session().flush()
    return Grant(family.user_id, family.id, family.expires_at, token)
