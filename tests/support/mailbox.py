"""Read the e-mails in the application's outbox folder."""

from __future__ import annotations

import email
import email.policy
import re

from handlers.app import Application


def list_emails_to(app: Application, address: str) -> list[str]:
    """Return the texts of the e-mails to an address, the oldest first."""
    texts = []
    for path in sorted(app.settings.outbox_dir.glob("*.eml")):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if message["To"] == address:
            texts.append(message.get_content())
    return texts


def get_mailed_token(app: Application, address: str, prefix: str) -> str:
    """Return the token with a prefix, on a line of its own in the newest e-mail to an address."""
    match = re.search(rf"^({prefix}_\S+)\s*$", list_emails_to(app, address)[-1], re.MULTILINE)
    assert match, f"no token {prefix}_... was mailed to {address}"
    return match[1]
