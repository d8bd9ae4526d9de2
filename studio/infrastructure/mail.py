"""Send e-mails through an SMTP server, or write them to a folder if no server is configured.

The folder contains RFC 5322 files that mail programs can open; a periodic task deletes them when they expire.
SMTP runs in its own thread, so that no request waits for it. A message that cannot be delivered is logged and
not retried: every e-mail can be requested again.
"""

from __future__ import annotations

import logging
import os
import ssl
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.utils import format_datetime, make_msgid, parseaddr, parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from db.base import new_id, utc_now
from db.errors import DomainError
from studio.infrastructure.settings import SMTP_PORTS, Settings

if TYPE_CHECKING:
    import smtplib

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10
_UUID = "????????-????-????-????-????????????"
MAX_LIFETIME = timedelta(days=7)
"""How long a message without a token stays in the outbox: as long as one with the longest-lived token."""


class MailDisabled(DomainError):
    """This server sends no e-mail (`MAIL=off`), so nothing that needs one can be done."""

    code = "mail_disabled"
    default_detail = "This server sends no e-mail: ask its operator"


class Transport(Protocol):
    """What delivers messages."""

    def deliver(self, message: EmailMessage) -> None:
        """Deliver the message, or queue it."""


class FileTransport:
    """Write each message to a file that only its owner can read. The newest file sorts last by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def deliver(self, message: EmailMessage) -> None:
        """Write the message to a hidden file and rename it, so that a reader never sees a part of it."""
        # Imported with the first message: a server that sends none saves a megabyte.
        from email.policy import SMTP

        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{new_id()}"
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(message.as_bytes(policy=SMTP))
        partial.rename(self._folder / f"{partial.name[1:]}.eml")


def delete_expired_files(folder: Path, now: datetime) -> int:
    """Delete the messages of an outbox whose token has expired, and files that a crash left behind.

    Files of another kind stay: `OUTBOX_DIR` can name any folder.

    Returns:
        The number of deleted files.
    """
    count = 0
    for path in (*folder.glob(f"{_UUID}.eml"), *folder.glob(f".{_UUID}")):
        with suppress(FileNotFoundError):  # another process deletes the same files
            if _get_expiry(path) <= now:
                path.unlink()
                count += 1
    return count


def _get_expiry(path: Path) -> datetime:
    try:
        with path.open("rb") as file:
            return parsedate_to_datetime(BytesHeaderParser().parse(file)["Expires"]).astimezone(UTC)
    except (TypeError, ValueError):  # a message without a token, or of an earlier version
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) + MAX_LIFETIME


class SmtpTransport:
    """Send messages to a mail server. Certificates are verified.

    The URL is `smtp://host`, `smtp+starttls://host` or `smtps://host`, with `user:password@` for
    authentication.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._scheme, self._host = parts.scheme, parts.hostname or "localhost"
        self._port = parts.port or SMTP_PORTS[parts.scheme]
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="mail")

    def deliver(self, message: EmailMessage) -> None:
        """Queue the message. A failed delivery is logged."""
        self._queue.submit(self._send, message).add_done_callback(_log_failure)

    def close(self) -> None:
        """Wait until delivery of all queued messages has been attempted."""
        self._queue.shutdown()

    def _send(self, message: EmailMessage) -> None:
        with self._connect() as server:
            if self._scheme == "smtp+starttls":
                server.starttls(context=ssl.create_default_context())
            if self._user:
                server.login(self._user, self._password)
            server.send_message(message)

    def _connect(self) -> smtplib.SMTP:
        # Imported with the first message, as the policy above.
        import smtplib

        if self._scheme == "smtps":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT_SECONDS, context=context)
        return smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_SECONDS)


def _log_failure(delivery: Future[None]) -> None:
    if delivery.exception() is not None:
        logger.error("e-mail delivery failed", exc_info=delivery.exception())


class Mailer:
    """Composes messages from the configured sender and sends them."""

    def __init__(self, transport: Transport, sender: str) -> None:
        self._transport = transport
        self._sender = sender
        self._domain = parseaddr(sender)[1].rpartition("@")[2] or None

    def compose(
        self, recipient: str, subject: str, text: str, expires_at: datetime | None = None
    ) -> EmailMessage:
        """Return a plain text message; `expires_at` is the end of the token in it (RFC 4021, `Expires`)."""
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = recipient
        message["Subject"] = subject
        message["Date"] = format_datetime(utc_now())
        if expires_at is not None:
            message["Expires"] = format_datetime(expires_at)
        message["Message-ID"] = make_msgid(domain=self._domain)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message

    def send(self, message: EmailMessage) -> None:
        """Deliver the message, or queue it."""
        self._transport.deliver(message)


def strip_newlines(name: str) -> str:
    """Return a user's name for the text of a message, without line breaks and control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in name).split())


@cache
def get_mailer(settings: Settings) -> Mailer:
    """Return the mailer of these settings. There is one for each `Settings` object.

    Raises:
        MailDisabled: `MAIL` is `off`.
    """
    if settings.mail == "off":
        raise MailDisabled()
    transport = SmtpTransport(settings.smtp_url) if settings.smtp_url else FileTransport(settings.outbox_dir)
    return Mailer(transport, settings.mail_from)
