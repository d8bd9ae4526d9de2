"""Change the e-mail address of an account: requested with the password, confirmed with a token from an
e-mail.

Only the owner of the new address learns whether it has an account already: the response, the statements and
the number of messages are the same in both cases.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import select

from db.audit import set_actor
from db.base import utc_now
from db.errors import EmailTaken, InvalidToken
from db.models.users import EmailChange, User, email_key
from db.queries.users import delete_email_change, revoke_mailed_tokens
from db.session import current_session, query_as_system
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.identity.users import PasswordRequired, require_password
from studio.mail.emails import Email
from studio.mail.mailer import Mailer

LIFETIME = timedelta(hours=24)

_CONFIRMATION_TEXT = """\
This address was entered for a Sartiq account.
The link confirms it. It works once, until {expires_at:%d %B %Y, %H:%M} UTC.
"""
_ADDRESS_TAKEN_TEXT = (
    "This address was entered for another Sartiq account. It belongs to your account, so nothing changes.\n\n"
    "If it was you, sign in to the account that you have."
)
_OLD_ADDRESS_TEXT = """\
The address {email} was requested for your Sartiq account.
Nothing changes until the e-mail that was sent there is confirmed.
"""
_OLD_ADDRESS_CLOSING = (
    "If it was not you, set a new password now: that cancels the change and ends all sessions."
)
_NOT_YOU = "If it was not you, ignore this e-mail: nothing changes."
_CHANGED_TEXT = "Your Sartiq account uses the address {email} from now on. Sign in with it."


def request_email_change(user: User, email: str, current_password: str | None, mailer: Mailer) -> bool:
    """Send a link with a token to the new address of a locked account, and a notice to the old one.

    A pending change is replaced.

    Returns:
        Whether there is a change: False if the account has this address already.

    Raises:
        PasswordRequired: The address is new and `current_password` is None.
        IncorrectPassword: `current_password` is wrong.
    """
    if email_key(email) == user.email_key:
        return False
    if current_password is None:
        raise PasswordRequired("A new address needs the password of the account: send `current_password`")
    require_password(user, current_password)
    token, expires_at = generate_token("ec"), utc_now() + LIFETIME
    delete_email_change(user.id)
    change = EmailChange(
        user_id=user.id, email=email.lower(), token_hash=hash_token(token), expires_at=expires_at
    )
    current_session().add(change)
    current_session().flush()
    # An address that has an account gets no token, so this change can never be confirmed.
    confirmation = Email(
        kind="email_change",
        recipient=change.email,
        subject="Your address at Sartiq",
        text=_CONFIRMATION_TEXT.format(expires_at=expires_at),
        label="Confirm the address",
        url=mailer.link_to("confirm-email", token),
        closing=_NOT_YOU,
        expires_at=expires_at,
    )
    if _has_account(email):
        confirmation = replace(
            confirmation, text=_ADDRESS_TAKEN_TEXT, label="Sign in", url=mailer.sign_in_url, expires_at=None
        )
    notice = Email(
        kind="email_change_notice",
        recipient=user.email,
        subject="Your address at Sartiq",
        text=_OLD_ADDRESS_TEXT.format(email=change.email),
        label="Set a new password",
        url=mailer.forgot_password_url,
        closing=_OLD_ADDRESS_CLOSING,
    )
    for message in (confirmation, notice):
        mailer.send(message)
    return True


def confirm_email_change(token: str, mailer: Mailer) -> None:
    """Give an account the new address with a token from an e-mail.

    Password resets that were sent to the old address are revoked.

    Raises:
        InvalidToken: The token is unknown, used, canceled or expired, or the account is deactivated.
        EmailTaken: Another account got the address meanwhile.
    """
    is_valid = (EmailChange.token_hash == hash_token(token), EmailChange.expires_at > utc_now())
    # The account is locked before its change, in the same order as by the request of a change.
    query = select(User).join(EmailChange, EmailChange.user_id == User.id)
    user = current_session().scalar(query.where(*is_valid).with_for_update(of=User))
    change = current_session().scalar(select(EmailChange).where(*is_valid).with_for_update())
    if user is None or change is None or not user.is_active:
        raise InvalidToken()
    set_actor(user)
    if _has_account(change.email):
        raise EmailTaken()
    old_address, user.email = user.email, change.email
    revoke_mailed_tokens(user.id)
    current_session().flush()
    mailer.send(
        Email(
            kind="email_changed",
            recipient=old_address,
            subject="Your address at Sartiq has changed",
            text=_CHANGED_TEXT.format(email=user.email),
            label="Sign in",
            url=mailer.sign_in_url,
            closing="If it was not you, contact the operator of this server.",
        )
    )


def _has_account(email: str) -> bool:
    return bool(query_as_system(select(User.id).where(User.email_key == email_key(email))))
