"""Queue e-mails in the transaction of the change that they are about."""

from __future__ import annotations

from functools import cache

from sqlalchemy import ColumnElement, insert, literal, select

from db.base import new_id, utc_now
from db.errors import DomainError
from db.models.emails import EmailStatus, QueuedEmail
from db.session import after_commit, as_system, current_session
from studio.infrastructure.encryption import encrypt
from studio.infrastructure.pubsub import EMAILS
from studio.infrastructure.settings import Settings
from studio.mail.emails import Email

PURPOSE = "email"


class MailDisabled(DomainError):
    """This server sends no e-mail (`MAIL=off`), so nothing that needs one can be done."""

    code = "mail_disabled"
    default_detail = "This server sends no e-mail: ask its operator"


class Mailer:
    """Queues e-mails, and knows the URLs of the pages that they link to.

    Args:
        settings: The settings of the server.
    """

    def __init__(self, settings: Settings) -> None:
        self._secret_key, self.public_url = settings.secret_key, settings.public_url

    @property
    def sign_in_url(self) -> str:
        """The URL of the page on which people sign in."""
        return f"{self.public_url}/review"

    @property
    def forgot_password_url(self) -> str:
        """The URL of the page on which people request a new password."""
        return f"{self.public_url}/review#/forgot-password"

    def link_to(self, page: str, token: str) -> str:
        """Return the URL of a page for the person who has a token.

        The token is in the fragment, which browsers send to no server and in no `Referer`.
        """
        return f"{self.public_url}/review#/{page}/{token}"

    def send(self, email: Email, condition: ColumnElement[bool] | None = None) -> None:
        """Queue an e-mail in the running transaction.

        Args:
            email: The e-mail.
            condition: The e-mail is only queued if it holds. The statements are the same if not.
        """
        row_id, now = new_id(), utc_now()
        values = {
            "id": row_id,
            "created_at": now,
            "updated_at": now,
            "kind": email.kind,
            "content": encrypt(self._secret_key, PURPOSE, row_id, email.to_json()),
            "status": EmailStatus.PENDING,
            "attempts": 0,
            "expires_at": email.expires_at,
        }
        columns = QueuedEmail.__table__.c
        row = select(*(literal(value, columns[name].type) for name, value in values.items()))
        if condition is not None:
            row = row.where(condition)
        with as_system():
            current_session().execute(insert(QueuedEmail).from_select(list(values), row))
        after_commit(EMAILS.notify)


def find_mailer(settings: Settings) -> Mailer | None:
    """Return the mailer of these settings, None if `MAIL` is `off`: for notices that are not necessary."""
    return None if settings.mail == "off" else get_mailer(settings)


@cache
def get_mailer(settings: Settings) -> Mailer:
    """Return the mailer of these settings. There is one for each `Settings` object.

    Raises:
        MailDisabled: `MAIL` is `off`.
    """
    if settings.mail == "off":
        raise MailDisabled()
    return Mailer(settings)
