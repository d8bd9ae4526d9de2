"""Reset forgotten passwords with a token that is sent by e-mail. It works once, within one hour."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, insert, literal, select

from db.audit import set_actor, set_target
from db.base import utc_now
from db.errors import InvalidToken
from db.models.users import PasswordResetToken, User, email_key
from db.session import after_commit, current_session
from studio.accounts.identity.deletions import discard_deletion
from studio.accounts.identity.sessions import set_password
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.mail.emails import Email
from studio.mail.mailer import Mailer

LIFETIME = timedelta(hours=1)
MIN_SECONDS = 0.05

_TEXT = """\
A new password was requested for your Sartiq account.
The link works once, until {expires_at:%d %B %Y, %H:%M} UTC.
"""
_CLOSING = "If you did not request it, ignore this e-mail: your password does not change."


def recover_password(email: str, mailer: Mailer) -> None:
    """Send a link with a token to the address, if it belongs to an active account.

    The response must not reveal whether the address has an account (OWASP Forgot Password Cheat Sheet). So an
    unknown address runs the same statements and composes the same message, and a minimum duration after the
    commit hides the time for storing and sending.
    """
    started = time.monotonic()
    now, token = utc_now(), generate_token("pr")
    expires_at = now + LIFETIME
    is_account = (User.email_key == email_key(email), User.is_active.is_(True))
    current_session().execute(delete(PasswordResetToken).where(PasswordResetToken.expires_at < now))
    columns = (PasswordResetToken.token_hash, PasswordResetToken.expires_at)
    values = (literal(hash_token(token), columns[0].type), literal(expires_at, columns[1].type))
    current_session().execute(
        insert(PasswordResetToken).from_select(
            ["user_id", "token_hash", "expires_at"], select(User.id, *values).where(*is_account)
        )
    )
    account = current_session().execute(select(User.id, User.email).where(*is_account)).one_or_none()
    message = Email(
        kind="password_recovery",
        recipient=account.email if account else email,
        subject="Your new password for Sartiq",
        text=_TEXT.format(expires_at=expires_at),
        label="Set a new password",
        url=mailer.link_to("reset-password", token),
        closing=_CLOSING,
        expires_at=expires_at,
    )
    mailer.send(message, select(User.id).where(*is_account).exists())
    if account is not None:
        set_target("user", account.id)
    after_commit(lambda: time.sleep(max(0.0, started + MIN_SECONDS - time.monotonic())))


def reset_password(token: str, new_password: str) -> UUID:
    """Set a new password with a token from an e-mail. Sessions and other such tokens of the account end.

    A scheduled deletion of the account is canceled.

    Returns:
        The id of the account.

    Raises:
        InvalidToken: The token is unknown, used or expired, or the account is deactivated.
        PasswordTooCommon: The password is common or published.
    """
    is_valid = (
        PasswordResetToken.token_hash == hash_token(token),
        PasswordResetToken.used_at.is_(None),
        PasswordResetToken.expires_at > utc_now(),
    )
    # The account is locked before its tokens, so that two requests with tokens of one account cannot
    # deadlock.
    query = select(User).join(PasswordResetToken, PasswordResetToken.user_id == User.id)
    user = current_session().scalar(query.where(*is_valid).with_for_update(of=User))
    # Checked again with the lock: a parallel request may have used the token.
    is_still_valid = current_session().scalar(select(PasswordResetToken.id).where(*is_valid)) is not None
    if user is None or not is_still_valid:
        raise InvalidToken()
    set_actor(user)
    if not user.is_active:
        raise InvalidToken()
    set_password(user, new_password)
    discard_deletion(user.id)
    return user.id
