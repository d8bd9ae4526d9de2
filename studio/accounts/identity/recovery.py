"""A forgotten password is replaced by proof of the address: a mailed token that works once, for one hour."""

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
from studio.accounts.identity.mail import Mailer
from studio.accounts.identity.sessions import set_password
from studio.accounts.identity.tokens import generate_token, hash_token

LIFETIME = timedelta(hours=1)
MIN_SECONDS = 0.05

_RECOVERY_EMAIL = """\
Hello,

somebody, hopefully you, asked for a new password for your Sartiq account.
This token sets one. It works once, until {expires_at:%d %B %Y, %H:%M} UTC:

{token}

Send it with the new password to
{public_url}/api/v1/reset-password/

If it was not you, ignore this mail: your password stays as it is.
"""


def recover_password(email: str, mailer: Mailer, public_url: str) -> None:
    """Mail a token to the address once the transaction is committed, if it is that of an active account.

    An unknown address runs the same statements and writes the same letter. What storing and sending take
    longer is hidden by a least duration, spent after the commit, so that time tells nothing.
    """
    began = time.monotonic()
    now, token = utc_now(), generate_token("pr")
    expires_at = now + LIFETIME
    account = (User.email_key == email_key(email), User.is_active.is_(True))
    current_session().execute(delete(PasswordResetToken).where(PasswordResetToken.expires_at < now))
    columns = (PasswordResetToken.token_hash, PasswordResetToken.expires_at)
    values = (literal(hash_token(token), columns[0].type), literal(expires_at, columns[1].type))
    current_session().execute(
        insert(PasswordResetToken).from_select(
            ["user_id", "token_hash", "expires_at"], select(User.id, *values).where(*account)
        )
    )
    found = current_session().execute(select(User.id, User.email).where(*account)).one_or_none()
    address = found.email if found else None
    text = _RECOVERY_EMAIL.format(expires_at=expires_at, token=token, public_url=public_url)
    letter = mailer.compose(address or email, "Your new password for Sartiq", text)
    if found is not None:
        set_target("user", found.id)
        after_commit(lambda: mailer.send(letter))
    after_commit(lambda: time.sleep(max(0.0, began + MIN_SECONDS - time.monotonic())))


def reset_password(token: str, new_password: str) -> UUID:
    """Spend a mailed token: the account gets the new password, its sessions and other mailed tokens end.

    Returns the account's id. InvalidToken when it is unknown, spent or too old, or the account is locked;
    PasswordTooCommon.
    """
    named = (
        PasswordResetToken.token_hash == hash_token(token),
        PasswordResetToken.used_at.is_(None),
        PasswordResetToken.expires_at > utc_now(),
    )
    # The account first, then its tokens, so that two of them at once do not wait for each other.
    account = select(User).join(PasswordResetToken, PasswordResetToken.user_id == User.id)
    user = current_session().scalar(account.where(*named).with_for_update(of=User))
    still_good = current_session().scalar(select(PasswordResetToken.id).where(*named))
    if user is None or still_good is None:
        raise InvalidToken()
    set_actor(user)
    if not user.is_active:
        raise InvalidToken()
    set_password(user, new_password)
    return user.id
