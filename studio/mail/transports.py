"""Deliver messages to an SMTP server, or write them to a folder if no server is configured.

The folder contains RFC 5322 files that mail programs can open; a periodic task deletes them when they expire.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from db.base import new_id
from studio.infrastructure.settings import SMTP_PORTS, Settings
from studio.queue.running import AttemptFailed

if TYPE_CHECKING:
    import smtplib

TIMEOUT_SECONDS = 10
_PERMANENT = 500
"""The first status with which a server says that it never accepts the message (RFC 5321, 4.2.1)."""
_UUID = "????????-????-????-????-????????????"
MAX_LIFETIME = timedelta(days=7)
"""How long a message without a token stays in the outbox: as long as one with the longest-lived token."""


class Rejected(Exception):
    """The mail server will never accept the message."""


class Transport(Protocol):
    """What delivers messages."""

    def deliver(self, message: EmailMessage) -> None:
        """Deliver the message."""


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

    def deliver(self, message: EmailMessage) -> None:
        """Send the message.

        Raises:
            Rejected: The server will never accept the message: it knows no such address.
            AttemptFailed: The server cannot be reached, or does not accept the message now.
        """
        # Imported with the first message, as the policy above.
        import smtplib

        try:
            self._send(message)
        except smtplib.SMTPRecipientsRefused as error:
            ((code, _text),) = error.recipients.values()
            raise (Rejected if code >= _PERMANENT else AttemptFailed)(f"SMTP {code}") from error
        except smtplib.SMTPDataError as error:
            code = error.smtp_code
            raise (Rejected if code >= _PERMANENT else AttemptFailed)(f"SMTP {code}") from error
        except smtplib.SMTPResponseException as error:
            # What the server rejects for all messages, such as a wrong password, can be mended.
            raise AttemptFailed(f"SMTP {error.smtp_code}") from error
        except (smtplib.SMTPException, OSError) as error:
            raise AttemptFailed(type(error).__name__) from error

    def _send(self, message: EmailMessage) -> None:
        with self._connect() as server:
            if self._scheme == "smtp+starttls":
                server.starttls(context=ssl.create_default_context())
            if self._user:
                server.login(self._user, self._password)
            server.send_message(message)

    def _connect(self) -> smtplib.SMTP:
        import smtplib

        if self._scheme == "smtps":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT_SECONDS, context=context)
        return smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_SECONDS)


def build_transport(settings: Settings) -> Transport:
    """Return what delivers the messages of a process."""
    return SmtpTransport(settings.smtp_url) if settings.smtp_url else FileTransport(settings.outbox_dir)
