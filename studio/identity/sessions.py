"""Sessions: one sign-in is one family of rotating refresh tokens with a fixed end.

A refresh token works once, but for one retry of whoever got no answer. Any other second use means that two
parties hold it, so the whole family ends (RFC 9700, 4.14.2). The access tokens of a family carry its id and
die with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.orm import Session, joinedload

from db.audit import concern_account
from db.base import utc_now
from db.errors import IncorrectCredentials, InvalidToken, NotFound
from db.models.users import RefreshToken, TokenFamily, User
from db.queries.users import find_user_by_email, forget_mailed_tokens
from db.session import record_apart, session
from studio.identity.passwords import hash_new_password, hash_password, needs_rehash, verify_password
from studio.identity.tokens import new_token, token_hash

RETRY_FOR = timedelta(seconds=10)


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
    if not verify_password(hashed, password):
        raise IncorrectCredentials()
    # Under the lock, so that no session outlives a new password that was set while the old one was checked,
    # or an account that went meanwhile.
    user = find_user_by_email(email, for_update=True)
    # compared: both are from the row, and nobody sends one
    if user is None or user.hashed_password != hashed or not user.is_active:
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
    return _grant(family, None)


def refresh(token: str) -> Grant:
    """Spend a refresh token for the next one of its session.

    The answer may have been lost: within RETRY_FOR the same token gets another successor, once, if the first
    was not used, which then counts as spent. InvalidToken when the token is unknown, or its session is over
    or its account locked; any other second use ends the session although the request is refused.
    """
    is_it = RefreshToken.token_hash == token_hash(token)
    # The requests of one session take turns. What the one before did is seen by statements after this one.
    family = session().scalar(
        select(TokenFamily)
        .join(RefreshToken)
        .where(is_it)
        .options(joinedload(TokenFamily.user))
        .with_for_update(of=TokenFamily)
    )
    if family is None:
        raise InvalidToken()
    concern_account(family.user)
    found, now = session().scalars(select(RefreshToken).where(is_it)).one(), utc_now()
    spent = found if found.used_at is None else _successor_that_was_lost(found, now)
    if spent is None:
        record_apart(lambda apart: _end(apart, family.id))
        raise InvalidToken()
    if family.revoked_at is not None or family.expires_at <= now or not family.user.is_active:
        raise InvalidToken()
    spent.used_at = family.last_used_at = now
    return _grant(family, found.id)


def _successor_that_was_lost(found: RefreshToken, now: datetime) -> RefreshToken | None:
    """The token that whoever spent this one cannot have got, None when there is no such excuse."""
    followed = RefreshToken.predecessor_id == found.id
    successors = session().scalars(select(RefreshToken).where(followed)).all()
    in_time = found.used_at is not None and now - found.used_at <= RETRY_FOR
    return successors[0] if in_time and len(successors) == 1 and successors[0].used_at is None else None


def is_open(now: Any) -> ColumnElement[bool]:
    """The condition that a session is not over at a time, which may be named later."""
    return and_(TokenFamily.revoked_at.is_(None), TokenFamily.expires_at > now)


def end_session(session_id: UUID) -> None:
    """End one session: its access and refresh tokens stop working."""
    _end(session(), session_id)


def end_session_of(user_id: UUID, session_id: UUID) -> None:
    """End one session of an account; NotFound when it is over, somebody else's or none."""
    own = (TokenFamily.id == session_id, TokenFamily.user_id == user_id, is_open(utc_now()))
    ended = update(TokenFamily).where(*own).values(revoked_at=utc_now()).returning(TokenFamily.id)
    if session().scalar(ended) is None:
        raise NotFound()


def revoke_access_token(session_id: UUID) -> None:
    """End the session that an access token names, unless it is over."""
    _revoke(TokenFamily.id == session_id)


def revoke_refresh_token(token: str) -> None:
    """End the session of a refresh token, spent or not; an unknown one is good for nothing anyway."""
    descends = select(RefreshToken.family_id).where(RefreshToken.token_hash == token_hash(token))
    _revoke(TokenFamily.id == descends.scalar_subquery())


def end_sessions(user_id: UUID, but: UUID | None = None) -> None:
    """End all sessions of an account, or all but one."""
    ending = update(TokenFamily).where(TokenFamily.user_id == user_id, TokenFamily.revoked_at.is_(None))
    if but is not None:
        ending = ending.where(TokenFamily.id != but)
    session().execute(ending.values(revoked_at=utc_now()))


def set_password(user: User, password: str, but_session: UUID | None = None) -> None:
    """Give an account a new password and end its sessions, or all but the one that asks; PasswordTooCommon.

    A change of address that waits is canceled, because whoever knew the old password may have asked for it,
    and no mail of before sets another password.
    """
    user.hashed_password = hash_new_password(password)
    forget_mailed_tokens(user.id)
    end_sessions(user.id, but_session)


def _revoke(which: ColumnElement[bool]) -> None:
    named = select(TokenFamily).where(which, is_open(utc_now())).options(joinedload(TokenFamily.user))
    family = session().scalar(named)
    if family is not None:
        concern_account(family.user)
        _end(session(), family.id)


def _end(opened: Session, session_id: UUID) -> None:
    opened.execute(
        update(TokenFamily)
        .where(TokenFamily.id == session_id, TokenFamily.revoked_at.is_(None))
        .values(revoked_at=utc_now())
    )


def _grant(family: TokenFamily, predecessor_id: UUID | None) -> Grant:
    token = new_token("rt")
    session().add(
        RefreshToken(
            family_id=family.id,
            token_hash=token_hash(token),
            expires_at=family.expires_at,
            predecessor_id=predecessor_id,
        )
    )
    session().flush()
    return Grant(family.user_id, family.id, family.expires_at, token)
