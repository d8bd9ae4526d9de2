"""Send the queued e-mails of an application to its outbox folder, and read them."""

from __future__ import annotations

import email
import email.policy
import re
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

from handlers.app import Application
from studio.mail.queue import run_pending_emails
from studio.queue.running import Worker


def send_queued_emails(app: Application) -> int:
    """Send the e-mails that wait in the queue, and return their number."""
    return run_pending_emails(Worker(app.database, app.services.storage, timedelta(minutes=1)), app.settings)


def list_emails_to(app: Application, address: str) -> list[str]:
    """Return the texts of the e-mails to an address, the oldest first."""
    send_queued_emails(app)
    return list_emails_in(app.settings.outbox_dir, address)


def list_emails_in(outbox: Path, address: str) -> list[str]:
    """Return the texts of the e-mails to an address in an outbox folder, the oldest first."""
    return [get_text(message) for message in list_messages_in(outbox) if message["To"] == address]


def list_messages_in(outbox: Path) -> list[EmailMessage]:
    """Return the e-mails in an outbox folder, the oldest first."""
    messages = []
    for path in sorted(outbox.glob("*.eml")):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        messages.append(message)
    return messages


def get_text(message: EmailMessage, kind: str = "plain") -> str:
    """Return the text of an e-mail, or its HTML."""
    body = message.get_body((kind,))
    assert body is not None, message
    text: str = body.get_content()
    return text.replace("\r\n", "\n")


def get_mailed_token(app: Application, address: str, prefix: str) -> str:
    """Return the token with a prefix in the link of the newest e-mail to an address."""
    token = find_token(list_emails_to(app, address)[-1], prefix)
    assert token, f"no token {prefix}_... was mailed to {address}"
    return token


def find_token(text: str, prefix: str) -> str | None:
    """Return the token with a prefix at the end of a link in a text."""
    match = re.search(rf"/({prefix}_[\w-]+)$", text, re.MULTILINE)
    return match[1] if match else None
