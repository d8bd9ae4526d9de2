"""Read the e-mails in the application's outbox folder."""

from __future__ import annotations

import email
import email.policy
import re
from pathlib import Path

from handlers.app import Application


def list_emails_to(app: Application, address: str) -> list[str]:
    """Return the texts of the e-mails to an address, the oldest first."""
    return list_emails_in(app.settings.outbox_dir, address)


def list_emails_in(outbox: Path, address: str) -> list[str]:
    """Return the texts of the e-mails to an address in an outbox folder, the oldest first."""
    texts = []
    for path in sorted(outbox.glob("*.eml")):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if message["To"] == address:
            texts.append(message.get_content())
    return texts


def get_mailed_token(app: Application, address: str, prefix: str) -> str:
    """Return the token with a prefix, on a line of its own in the newest e-mail to an address."""
    token = find_token(list_emails_to(app, address)[-1], prefix)
    assert token, f"no token {prefix}_... was mailed to {address}"
    return token


def find_token(text: str, prefix: str) -> str | None:
    """Return the token with a prefix, on a line of its own in a text."""
    match = re.search(rf"^({prefix}_\S+)\s*$", text, re.MULTILINE)
    return match[1] if match else None
