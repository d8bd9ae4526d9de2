"""Mail: letters go into a folder by default, and to an SMTP server when one is configured.

The folder holds RFC 5322 files that every mail program opens. SMTP is spoken in a thread of its own, so that
no request waits for it; a letter that cannot be delivered is logged, and whoever misses it asks again.
"""

from __future__ import annotations

import logging
import os
import smtplib
import ssl
from concurrent.futures import Future, ThreadPoolExecutor
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid, parseaddr
from functools import cache
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from db.base import new_id, utc_now
from studio.settings import SMTP_PORTS, Settings

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10


class Transport(Protocol):
    """How letters leave."""

    def deliver(self, message: EmailMessage) -> None:
        """Take over the letter."""


class FileTransport:
    """A folder that keeps every letter as a file, newest last by name; only its owner can read them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def deliver(self, message: EmailMessage) -> None:
        """Write the letter; whoever lists the folder never sees half of one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f".{new_id()}"
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(message.as_bytes(policy=SMTP))
        unfinished.rename(self._folder / f"{unfinished.name[1:]}.eml")


class SmtpTransport:
    """A mail server: `smtp://`, `smtp+starttls://` or `smtps://`, with `user:password@` where it wants that.

    Certificates are verified.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._scheme, self._host = parts.scheme, parts.hostname or "localhost"
        self._port = parts.port or SMTP_PORTS[parts.scheme]
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="mail")

    def deliver(self, message: EmailMessage) -> None:
        """Queue the letter; an error is logged."""
        self._queue.submit(self._send, message).add_done_callback(_log_failure)

    def close(self) -> None:
        """Wait until everything that is queued has been tried."""
        self._queue.shutdown()

    def _send(self, message: EmailMessage) -> None:
        with self._connect() as server:
            if self._scheme == "smtp+starttls":
                server.starttls(context=ssl.create_default_context())
            if self._user:
                server.login(self._user, self._password)
            server.send_message(message)

    def _connect(self) -> smtplib.SMTP:
        if self._scheme == "smtps":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT_SECONDS, context=context)
        return smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_SECONDS)


def _log_failure(delivery: Future[None]) -> None:
    if delivery.exception() is not None:
        logger.error("a letter could not be delivered", exc_info=delivery.exception())


class Mailer:
    """Writes letters from the house's address and sends them."""

    def __init__(self, transport: Transport, sender: str) -> None:
        self._transport = transport
        self._sender = sender
        self._domain = parseaddr(sender)[1].rpartition("@")[2] or None

    def compose(self, recipient: str, subject: str, text: str) -> EmailMessage:
        """A plain text letter."""
        letter = EmailMessage()
        letter["From"] = self._sender
        letter["To"] = recipient
        letter["Subject"] = subject
        letter["Date"] = format_datetime(utc_now())
        letter["Message-ID"] = make_msgid(domain=self._domain)
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(text)
        return letter

    def send(self, message: EmailMessage) -> None:
        """Hand the letter over for delivery."""
        self._transport.deliver(message)


def strip_newlines(name: str) -> str:
    """A name that somebody chose, fit for a sentence of a letter: no further lines, no control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())


@cache
def get_mailer(settings: Settings) -> Mailer:
    """The mailer of these settings; SettingsRefused when SMTP_URL cannot be read."""
    transport = SmtpTransport(settings.smtp_url) if settings.smtp_url else FileTransport(settings.outbox_dir)
    return Mailer(transport, settings.mail_from)
