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

from db.audit import set_actor
from db.base import utc_now
from db.errors import IncorrectCredentials, InvalidToken, NotFound
from db.models.users import RefreshToken, TokenFamily, User
from db.queries.users import find_user_by_email, revoke_mailed_tokens
from db.session import current_session, run_in_separate_transaction
from studio.accounts.identity.passwords import (
    hash_new_password,
    hash_password,
    needs_rehash,
    verify_password,
)
from studio.accounts.identity.tokens import generate_token, hash_token

RETRY_WINDOW = timedelta(seconds=10)


@dataclass(frozen=True)
class Grant:
    """What a sign-in or a refresh gives: whom an access token is for, and the next refresh token."""

    user_id: UUID
    session_id: UUID
    session_ends_at: datetime
    refresh_token: str


def login(email: str, password: str, lifetime: timedelta, user_agent: str | None = None) -> Grant:
    """Open a session of at most `lifetime`.

    IncorrectCredentials for an unknown address, a wrong password and a locked account alike; the first two
    in the same time.
    """
    user = find_user_by_email(email)
    if user is not None:
        set_actor(user)
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
    current_session().execute(
        delete(TokenFamily).where(TokenFamily.user_id == user.id, TokenFamily.expires_at < utc_now())
    )
    family = TokenFamily(
        user_id=user.id, expires_at=utc_now() + lifetime, user_agent=user_agent[:400] if user_agent else None
    )
    current_session().add(family)
    current_session().flush()
    return _issue_grant(family, None)


def refresh_token(token: str) -> Grant:
    """Spend a refresh token for the next one of its session.

    The answer may have been lost: within RETRY_FOR the same token gets another successor, once, if the first
    was not used, which then counts as spent. InvalidToken when the token is unknown, or its session is over
    or its account locked; any other second use ends the session although the request is refused.
    """
    is_it = RefreshToken.token_hash == hash_token(token)
    # The requests of one session take turns. What the one before did is seen by statements after this one.
    family = current_session().scalar(
        select(TokenFamily)
        .join(RefreshToken)
        .where(is_it)
        .options(joinedload(TokenFamily.user))
        .with_for_update(of=TokenFamily)
    )
    if family is None:
        raise InvalidToken()
    set_actor(family.user)
    found, now = current_session().scalars(select(RefreshToken).where(is_it)).one(), utc_now()
    spent = found if found.used_at is None else _find_lost_successor(found, now)
    if spent is None:
        run_in_separate_transaction(lambda apart: _end(apart, family.id))
        raise InvalidToken()
    if family.revoked_at is not None or family.expires_at <= now or not family.user.is_active:
        raise InvalidToken()
    spent.used_at = family.last_used_at = now
    return _issue_grant(family, found.id)


def _find_lost_successor(found: RefreshToken, now: datetime) -> RefreshToken | None:
    """The token that whoever spent this one cannot have got, None when there is no such excuse."""
    followed = RefreshToken.predecessor_id == found.id
    successors = current_session().scalars(select(RefreshToken).where(followed)).all()
    in_time = found.used_at is not None and now - found.used_at <= RETRY_WINDOW
    return successors[0] if in_time and len(successors) == 1 and successors[0].used_at is None else None


def is_open(now: Any) -> ColumnElement[bool]:
    """The condition that a session is not over at a time, which may be named later."""
    return and_(TokenFamily.revoked_at.is_(None), TokenFamily.expires_at > now)


def logout(session_id: UUID) -> None:
    """End one session: its access and refresh tokens stop working."""
    _end(current_session(), session_id)


def end_session(user_id: UUID, session_id: UUID) -> None:
    """End one session of an account; NotFound when it is over, somebody else's or none."""
    own = (TokenFamily.id == session_id, TokenFamily.user_id == user_id, is_open(utc_now()))
    ended = update(TokenFamily).where(*own).values(revoked_at=utc_now()).returning(TokenFamily.id)
    if current_session().scalar(ended) is None:
        raise NotFound()


def revoke_access_token(session_id: UUID) -> None:
    """End the session that an access token names, unless it is over."""
    _revoke(TokenFamily.id == session_id)


def revoke_refresh_token(token: str) -> None:
    """End the session of a refresh token, spent or not; an unknown one is good for nothing anyway."""
    descends = select(RefreshToken.family_id).where(RefreshToken.token_hash == hash_token(token))
    _revoke(TokenFamily.id == descends.scalar_subquery())


def end_sessions(user_id: UUID, except_session_id: UUID | None = None) -> None:
    """End all sessions of an account, or all but one."""
    ending = update(TokenFamily).where(TokenFamily.user_id == user_id, TokenFamily.revoked_at.is_(None))
    if except_session_id is not None:
        ending = ending.where(TokenFamily.id != except_session_id)
    current_session().execute(ending.values(revoked_at=utc_now()))


def set_password(user: User, password: str, except_session_id: UUID | None = None) -> None:
    """Give an account a new password and end its sessions, or all but the one that asks; PasswordTooCommon.

    A change of address that waits is canceled, because whoever knew the old password may have asked for it,
    and no mail of before sets another password.
    """
    user.hashed_password = hash_new_password(password)
    revoke_mailed_tokens(user.id)
    end_sessions(user.id, except_session_id)


def _revoke(which: ColumnElement[bool]) -> None:
    named = select(TokenFamily).where(which, is_open(utc_now())).options(joinedload(TokenFamily.user))
    family = current_session().scalar(named)
    if family is not None:
        set_actor(family.user)
        _end(current_session(), family.id)


def _end(opened: Session, session_id: UUID) -> None:
    opened.execute(
        update(TokenFamily)
        .where(TokenFamily.id == session_id, TokenFamily.revoked_at.is_(None))
        .values(revoked_at=utc_now())
    )


def _issue_grant(family: TokenFamily, predecessor_id: UUID | None) -> Grant:
    token = generate_token("rt")
    current_session().add(
        RefreshToken(
            family_id=family.id,
            token_hash=hash_token(token),
            expires_at=family.expires_at,
            predecessor_id=predecessor_id,
        )
    )
    current_session().flush()
    return Grant(family.user_id, family.id, family.expires_at, token)
