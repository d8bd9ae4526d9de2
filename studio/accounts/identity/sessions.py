"""Sessions: each login starts a family of rotating refresh tokens with a fixed end.

A refresh token works once. A client that lost the response may retry once within `RETRY_WINDOW`. Any other
reuse means that the token was stolen, so the whole family is revoked (RFC 9700, section 4.14.2). Access
tokens carry the id of their family and stop working with it. Knows no HTTP and no JWT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.orm import Session, joinedload

from db.audit import set_actor
from db.base import utc_now
from db.errors import Conflict, IncorrectCredentials, InvalidToken, NotFound
from db.models.identity_providers import UserIdentity
from db.models.users import AccountDeletion, RefreshToken, TokenFamily, User
from db.queries.users import find_user_by_email, revoke_mailed_tokens
from db.session import current_session, run_in_separate_transaction
from studio.accounts.identity.passwords import (
    hash_new_password,
    hash_password,
    needs_rehash,
    verify_password,
)
from studio.accounts.identity.second_factors import answer_challenge, require_second_factor
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.infrastructure.settings import Settings
from studio.mail.emails import Email, as_text
from studio.mail.mailer import Mailer, find_mailer

RETRY_WINDOW = timedelta(seconds=10)
_VERSION = re.compile(r"\d+(?:[._]\d+)*")
_NEW_DEVICE_TEXT = """\
Someone has signed in to your Sartiq account from a device that was not used before:
{program}, at the IP address {address}, on {time:%d %B %Y, %H:%M} UTC.

If it was not you, set a new password: that ends all sessions.
"""
PROVIDER_SESSION_LIFETIME = timedelta(hours=12)
"""A user who was removed at the provider cannot start another session."""
MAX_SESSIONS = 50
"""An account with more open sessions loses the oldest ones at the next login."""


class DeletionScheduled(Conflict):
    """The deletion of the account is scheduled: sign-ins are rejected until it is canceled."""

    code = "deletion_scheduled"
    default_detail = "The account is going to be deleted"


@dataclass(frozen=True)
class Grant:
    """The result of a login or refresh: what the access token is for, and the next refresh token."""

    user_id: UUID
    session_id: UUID
    session_ends_at: datetime
    refresh_token: str


@dataclass(frozen=True)
class Device:
    """From where a user signs in: the `User-Agent` header, and the IP address."""

    user_agent: str | None
    address: str | None

    @classmethod
    def of(cls, user_agent: str | None, address: str | None) -> Device:
        """Return the device of a request, with values that can be stored."""
        return cls(user_agent[:400] if user_agent else None, address[:45] if address else None)

    def matches(self, other: Device) -> bool:
        """Return whether this is the same device. Another version of the same browser does not count."""
        return self.address == other.address and _without_versions(self) == _without_versions(other)


def _without_versions(device: Device) -> str:
    return _VERSION.sub("", device.user_agent or "")


def login(email: str, password: str, device: Device, settings: Settings) -> Grant:
    """Start a session. A sign-in from a new device sends an e-mail.

    Args:
        email: The address of the account.
        password: The password in plain text.
        device: What the list of sessions shows.
        settings: The settings of the server.

    Raises:
        IncorrectCredentials: The address is unknown, the password is wrong, or the account is deactivated.
            The first two take the same time.
        DeletionScheduled: The user has requested the deletion of the account.
        SecondFactorRequired: The account has a second factor, which `answer_login` takes.
    """
    user = find_user_by_email(email)
    if user is not None:
        set_actor(user)
    hashed = user.hashed_password if user else None
    if not verify_password(hashed, password):
        raise IncorrectCredentials()
    # Loaded again with a lock: a session must not start with a password that was replaced, or for an account
    # that was deleted, while the password was verified.
    user = find_user_by_email(email, for_update=True)
    # compared: both hashes are from the row; no client sends one
    if user is None or user.hashed_password != hashed or not user.is_active:
        raise IncorrectCredentials()
    _require_no_deletion(user.id)
    if user.has_second_factor:
        raise require_second_factor(user, settings)
    if needs_rehash(user.hashed_password):
        user.hashed_password = hash_password(password)
    return start_session(user, device, settings)


def answer_login(
    challenge: str, otp: str | None, webauthn: str | None, device: Device, settings: Settings
) -> Grant:
    """Start the session that waits for a second factor.

    Args:
        challenge: The challenge of `SecondFactorRequired`.
        otp: A code of the app or a recovery code; `webauthn` is then ignored.
        webauthn: The answer of a passkey, as JSON.
        device: What the list of sessions shows.
        settings: The settings of the server.

    Raises:
        ChallengeEnded: The challenge is unknown, has expired, was answered, or had too many wrong answers.
        IncorrectSecondFactor: The factor is wrong or was used before.
        DeletionScheduled: The user has requested the deletion of the account.
    """
    return start_session(answer_challenge(challenge, otp, webauthn, settings), device, settings)


def start_session(
    user: User, device: Device, settings: Settings, identity: UserIdentity | None = None
) -> Grant:
    """Start a session of a locked account that has proved who it is.

    Args:
        user: The account.
        device: What the list of sessions shows.
        settings: The settings of the server.
        identity: The user of an identity provider who signed in. The session then acts in the organization of
            the provider only, and ends after `PROVIDER_SESSION_LIFETIME`.

    Raises:
        DeletionScheduled: The user has requested the deletion of the account.
    """
    _require_no_deletion(user.id)
    mailer, lifetime = find_mailer(settings), timedelta(seconds=settings.refresh_token_seconds)
    if identity is not None:
        lifetime = min(lifetime, PROVIDER_SESSION_LIFETIME)
    # Expired sessions of the account are deleted here instead of by a maintenance task.
    current_session().execute(
        delete(TokenFamily).where(TokenFamily.user_id == user.id, TokenFamily.expires_at < utc_now())
    )
    if mailer is not None and _is_new(device, user.id):
        _announce_device(user, device, mailer)
    family = TokenFamily(
        user_id=user.id,
        expires_at=utc_now() + lifetime,
        user_agent=device.user_agent,
        address=device.address,
        organization_id=identity.organization_id if identity else None,
        identity_id=identity.id if identity else None,
    )
    current_session().add(family)
    current_session().flush()
    _end_oldest_sessions(user.id)
    return _issue_grant(family, None)


def _is_new(device: Device, user_id: UUID) -> bool:
    """Return whether an account has signed in before, but not from this device."""
    # Release 0.2.0 recorded no addresses.
    recorded = (TokenFamily.user_id == user_id, TokenFamily.address.is_not(None))
    rows = current_session().execute(select(TokenFamily.user_agent, TokenFamily.address).where(*recorded))
    earlier = [Device(*row) for row in rows]
    return bool(earlier) and not any(device.matches(each) for each in earlier)


def _announce_device(user: User, device: Device, mailer: Mailer) -> None:
    program = as_text(device.user_agent or "")[:100] or "an unknown program"
    mailer.send(
        Email(
            kind="new_device",
            recipient=user.email,
            subject="A new sign-in to your Sartiq account",
            text=_NEW_DEVICE_TEXT.format(
                program=program, address=device.address or "an unknown address", time=utc_now()
            ),
            label="Set a new password",
            url=mailer.forgot_password_url,
            closing="If it was you, ignore this e-mail.",
        )
    )


def _require_no_deletion(user_id: UUID) -> None:
    scheduled = select(AccountDeletion.deletes_at).where(AccountDeletion.user_id == user_id)
    deletes_at = current_session().scalar(scheduled)
    if deletes_at is not None:
        raise DeletionScheduled(
            f"The account is deleted on {deletes_at:%d %B %Y}: send the token from the e-mail about the "
            "deletion to `POST /account-deletion/cancel`, or set a new password with a recovery e-mail"
        )


def _end_oldest_sessions(user_id: UUID) -> None:
    """End the oldest sessions of a locked account that has more than `MAX_SESSIONS`."""
    own = (TokenFamily.user_id == user_id, is_open(utc_now()))
    newest_first = (TokenFamily.created_at.desc(), TokenFamily.id.desc())
    oldest = select(TokenFamily.id).where(*own).order_by(*newest_first).offset(MAX_SESSIONS)
    for session_id in current_session().scalars(oldest).all():
        _revoke_by_id(current_session(), session_id)


def refresh_token(token: str) -> Grant:
    """Exchange a refresh token for the next one of its session.

    The client may have lost the previous response. Within `RETRY_WINDOW` the same token gets one more
    successor if the first successor was not used. The first successor then counts as used.

    Raises:
        InvalidToken: The token is unknown, its session is over, or its account is deactivated. Any other
            reuse also revokes the session, in a transaction of its own.
    """
    has_this_hash = RefreshToken.token_hash == hash_token(token)
    # The lock serializes the requests of one session. Later statements see what the previous request
    # committed.
    family = current_session().scalar(
        select(TokenFamily)
        .join(RefreshToken)
        .where(has_this_hash)
        .options(joinedload(TokenFamily.user))
        .with_for_update(of=TokenFamily)
    )
    if family is None:
        raise InvalidToken()
    set_actor(family.user)
    sent, now = current_session().scalars(select(RefreshToken).where(has_this_hash)).one(), utc_now()
    usable = sent if sent.used_at is None else _find_lost_successor(sent, now)
    if usable is None:
        # The error rolls back this transaction; the revocation must survive it.
        run_in_separate_transaction(lambda session: _revoke_by_id(session, family.id))
        raise InvalidToken()
    if family.revoked_at is not None or family.expires_at <= now or not family.user.is_active:
        raise InvalidToken()
    usable.used_at = family.last_used_at = now
    return _issue_grant(family, sent.id)


def _find_lost_successor(used: RefreshToken, now: datetime) -> RefreshToken | None:
    """Return the successor of a used token if the client may not have received it, else None."""
    is_successor = RefreshToken.predecessor_id == used.id
    successors = current_session().scalars(select(RefreshToken).where(is_successor)).all()
    in_window = used.used_at is not None and now - used.used_at <= RETRY_WINDOW
    return successors[0] if in_window and len(successors) == 1 and successors[0].used_at is None else None


def is_open(now: Any) -> ColumnElement[bool]:
    """Return the condition that a session is active at a time. `now` may be a bind parameter."""
    return and_(TokenFamily.revoked_at.is_(None), TokenFamily.expires_at > now)


def logout(session_id: UUID) -> None:
    """End a session: its access and refresh tokens stop working."""
    _revoke_by_id(current_session(), session_id)


def end_session(user_id: UUID, session_id: UUID) -> None:
    """End a session of an account.

    Raises:
        NotFound: The session is over, belongs to another account or does not exist.
    """
    own = (TokenFamily.id == session_id, TokenFamily.user_id == user_id, is_open(utc_now()))
    ended = update(TokenFamily).where(*own).values(revoked_at=utc_now()).returning(TokenFamily.id)
    if current_session().scalar(ended) is None:
        raise NotFound(value=session_id)


def revoke_access_token(session_id: UUID) -> None:
    """End the session of an access token, unless it is over."""
    _revoke(TokenFamily.id == session_id)


def revoke_refresh_token(token: str) -> None:
    """End the session of a refresh token, used or not. An unknown token changes nothing."""
    family_id = select(RefreshToken.family_id).where(RefreshToken.token_hash == hash_token(token))
    _revoke(TokenFamily.id == family_id.scalar_subquery())


def end_sessions(user_id: UUID, except_session_id: UUID | None = None) -> None:
    """End all sessions of an account but `except_session_id`."""
    ending = update(TokenFamily).where(TokenFamily.user_id == user_id, TokenFamily.revoked_at.is_(None))
    if except_session_id is not None:
        ending = ending.where(TokenFamily.id != except_session_id)
    current_session().execute(ending.values(revoked_at=utc_now()))


def set_password(user: User, password: str, except_session_id: UUID | None = None) -> None:
    """Set the password of an account and end its sessions but `except_session_id`.

    Pending changes of address and password resets are canceled: an attacker who knew the old password may
    have requested them.

    Raises:
        PasswordTooCommon: The password is common or published.
    """
    user.hashed_password = hash_new_password(password)
    revoke_mailed_tokens(user.id)
    end_sessions(user.id, except_session_id)


def _revoke(condition: ColumnElement[bool]) -> None:
    query = select(TokenFamily).where(condition, is_open(utc_now())).options(joinedload(TokenFamily.user))
    family = current_session().scalar(query)
    if family is not None:
        set_actor(family.user)
        _revoke_by_id(current_session(), family.id)


def _revoke_by_id(session: Session, session_id: UUID) -> None:
    session.execute(
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
