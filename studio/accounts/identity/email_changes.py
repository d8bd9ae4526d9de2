"""Changes of address: the password asks for one, a mailed token makes it, and until then nothing changes.

Whether an address belongs to another account is told in the mail to that address, and to nobody else: both
cases run the same statements and send as many letters.
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
from studio.accounts.identity.mail import Mailer
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.accounts.identity.users import PasswordRequired, require_password

LIFETIME = timedelta(hours=24)

_CONFIRMATION_EMAIL = """\
Hello,

somebody, hopefully you, wants to use this address for a Sartiq account.
This token confirms that. It works once, until {expires_at:%d %B %Y, %H:%M} UTC:

{token}

Send it to
{public_url}/api/v1/email-change/confirm

If it was not you, ignore this mail: nothing changes.
"""
_ADDRESS_TAKEN_EMAIL = """\
Hello,

somebody wants to use this address for another Sartiq account. It belongs to your account, so nothing changes.

If it was you, sign in to the account that you have. If it was not you, ignore this mail.
"""
_OLD_ADDRESS_EMAIL = """\
Hello,

somebody, hopefully you, asked that your Sartiq account use the address {email} from now on.
Nothing changes until the mail that was sent there is confirmed.

If it was not you, change your password now: that cancels it and ends all other sessions.
"""
_CHANGED_EMAIL = """\
Hello,

your Sartiq account uses the address {email} from now on. Sign in with it.

If it was not you, write to whoever runs this server.
"""


def request_email_change(
    user: User, email: str, current_password: str | None, mailer: Mailer, public_url: str
) -> bool:
    """Mail a token to the new address of a locked account, and a notice to the old one, after the commit.

    An earlier change that waits is replaced. Returns whether there is one: the address that the account has
    is no change. PasswordRequired, IncorrectPassword.
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
    # Who has the address gets no token, so that the change that waits for it can never be confirmed.
    text = _ADDRESS_TAKEN_EMAIL if _has_account(email) else _CONFIRMATION_EMAIL
    text = text.format(expires_at=expires_at, token=token, public_url=public_url)
    proof = mailer.compose(change.email, "Your address at Sartiq", text)
    notice = mailer.compose(
        user.email, "Your address at Sartiq", _OLD_ADDRESS_EMAIL.format(email=change.email)
    )
    for letter in (proof, notice):
        _send_after_commit(mailer, letter)
    return True


def confirm_email_change(token: str, mailer: Mailer) -> None:
    """Spend a mailed token: the account gets the new address, and mails to the old one reset no password.

    InvalidToken when it is unknown, spent, canceled or too old, or the account is locked; EmailTaken when an
    account got the address meanwhile.
    """
    named = (EmailChange.token_hash == hash_token(token), EmailChange.expires_at > utc_now())
    # In the order in which an account that asks locks them: the account, then its change.
    account = select(User).join(EmailChange, EmailChange.user_id == User.id)
    user = current_session().scalar(account.where(*named).with_for_update(of=User))
    change = current_session().scalar(select(EmailChange).where(*named).with_for_update())
    if user is None or change is None or not user.is_active:
        raise InvalidToken()
    set_actor(user)
    if _has_account(change.email):
        raise EmailTaken()
    old, user.email = user.email, change.email
    revoke_mailed_tokens(user.id)
    current_session().flush()
    text = _CHANGED_EMAIL.format(email=user.email)
    _send_after_commit(mailer, mailer.compose(old, "Your address at Sartiq has changed", text))


def _has_account(email: str) -> bool:
    return bool(query_as_system(select(User.id).where(User.email_key == email_key(email))))


def _send_after_commit(mailer: Mailer, message: EmailMessage) -> None:
    after_commit(lambda: mailer.send(message))
