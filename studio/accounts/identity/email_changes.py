"""Change the e-mail address of an account: requested with the password, confirmed with a token from an
e-mail.

Only the owner of the new address learns whether it has an account already: the response, the statements and
the number of messages are the same in both cases.
"""

from __future__ import annotations

from datetime import timedelta
from email.message import EmailMessage

from sqlalchemy import select

from db.audit import set_actor
from db.base import utc_now
from db.errors import EmailTaken, InvalidToken
from db.models.users import EmailChange, User, email_key
from db.queries.users import delete_email_change, revoke_mailed_tokens
from db.session import after_commit, current_session, query_as_system
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.identity.users import PasswordRequired, require_password
from studio.infrastructure.mail import Mailer

LIFETIME = timedelta(hours=24)

_CONFIRMATION_EMAIL = """\
Hello,

this address was entered for a Sartiq account.
This token confirms it. It works once, until {expires_at:%d %B %Y, %H:%M} UTC:

{token}

Send it to
{public_url}/api/v1/email-change/confirm

If it was not you, ignore this e-mail: nothing changes.
"""
_ADDRESS_TAKEN_EMAIL = """\
Hello,

this address was entered for another Sartiq account. It belongs to your account, so nothing changes.

If it was you, sign in to the account that you have. If it was not you, ignore this e-mail.
"""
_OLD_ADDRESS_EMAIL = """\
Hello,

the address {email} was requested for your Sartiq account.
Nothing changes until the e-mail that was sent there is confirmed.

If it was not you, change your password now: that cancels the change and ends all other sessions.
"""
_CHANGED_EMAIL = """\
Hello,

your Sartiq account uses the address {email} from now on. Sign in with it.

If it was not you, contact the operator of this server.
"""


def request_email_change(
    user: User, email: str, current_password: str | None, mailer: Mailer, public_url: str
) -> bool:
    """Send a token to the new address of a locked account and a notice to the old one, after the commit.

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
        raise PasswordRequired()
    require_password(user, current_password)
    token, expires_at = generate_token("ec"), utc_now() + LIFETIME
    delete_email_change(user.id)
    change = EmailChange(
        user_id=user.id, email=email.lower(), token_hash=hash_token(token), expires_at=expires_at
    )
    current_session().add(change)
    current_session().flush()
    # An address that has an account gets no token, so this change can never be confirmed.
    text = _ADDRESS_TAKEN_EMAIL if _has_account(email) else _CONFIRMATION_EMAIL
    text = text.format(expires_at=expires_at, token=token, public_url=public_url)
    confirmation = mailer.compose(change.email, "Your address at Sartiq", text, expires_at)
    notice = mailer.compose(
        user.email, "Your address at Sartiq", _OLD_ADDRESS_EMAIL.format(email=change.email)
    )
    for message in (confirmation, notice):
        _send_after_commit(mailer, message)
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
    text = _CHANGED_EMAIL.format(email=user.email)
    _send_after_commit(mailer, mailer.compose(old_address, "Your address at Sartiq has changed", text))


def _has_account(email: str) -> bool:
    return bool(query_as_system(select(User.id).where(User.email_key == email_key(email))))


def _send_after_commit(mailer: Mailer, message: EmailMessage) -> None:
    after_commit(lambda: mailer.send(message))
