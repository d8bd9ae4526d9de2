"""What the server has mailed: letters are files in its outbox, and tokens stand alone on a line."""

from __future__ import annotations

import email
import email.policy
import re

from handlers.app import Application


def list_emails_to(app: Application, address: str) -> list[str]:
    """The texts of the letters to an address, the oldest first."""
    found = []
    for path in sorted(app.settings.outbox_dir.glob("*.eml")):
        letter = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if letter["To"] == address:
            found.append(letter.get_content())
    return found


def get_mailed_token(app: Application, address: str, prefix: str) -> str:
    """The token of this kind in the newest letter to an address."""
    found = re.search(rf"^({prefix}_\S+)\s*$", list_emails_to(app, address)[-1], re.MULTILINE)
    assert found, f"no token {prefix}_... was mailed to {address}"
    return found[1]
