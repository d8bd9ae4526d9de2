"""Compose e-mails as text and HTML, with one link to a page.

Knows no particular e-mail: each is written where its token is made.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape

from db.base import utc_now

_ADDRESS_LIKE = re.compile(r"(?<=[^\s.:/@])([.:/@]+)(?=[^\s.:/@])")
_HTML = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{subject}</title></head>
<body style="margin:0;padding:24px;font:16px/1.5 system-ui,sans-serif">
<div style="max-width:36rem;margin:0 auto">
{before}
<p style="margin:24px 0"><a href="{url}" style="display:inline-block;padding:10px 18px;border-radius:8px;\
background:#1f2328;color:#ffffff;text-decoration:none">{label}</a></p>
{after}
</div>
</body></html>
"""


@dataclass(frozen=True)
class Email:
    """An e-mail before it is sent."""

    kind: str
    """What it is about, for logs: "invitation"."""
    recipient: str
    subject: str
    text: str
    """Paragraphs before the link, with an empty line between two."""
    label: str
    """What the link does: "Accept the invitation"."""
    url: str
    closing: str = ""
    """Paragraphs after the link."""
    expires_at: datetime | None = None
    """The end of the token in the link (RFC 4021, `Expires`)."""

    def to_json(self) -> bytes:
        """Return the e-mail for `from_json`."""
        values = asdict(self)
        values["expires_at"] = self.expires_at.isoformat() if self.expires_at else None
        return json.dumps(values).encode()

    @classmethod
    def from_json(cls, encoded: bytes) -> Email:
        """Return the e-mail that `to_json` has encoded."""
        email = cls(**json.loads(encoded))
        if email.expires_at is None:
            return email
        return replace(email, expires_at=datetime.fromisoformat(str(email.expires_at)))

    def compose(self, sender: str, message_id: str) -> EmailMessage:
        """Return the message.

        Args:
            sender: The address of the server, with a name.
            message_id: The same at each attempt, so that a recipient who gets it twice sees one.
        """
        message = EmailMessage()
        message["From"] = sender
        message["To"] = self.recipient
        message["Subject"] = self.subject
        message["Date"] = format_datetime(utc_now())
        if self.expires_at is not None:
            message["Expires"] = format_datetime(self.expires_at)
        message["Message-ID"] = message_id
        message["Auto-Submitted"] = "auto-generated"
        parts = ("Hello,", self.text.strip(), f"{self.label}:\n{self.url}", self.closing.strip())
        message.set_content("\n\n".join(filter(None, parts)) + "\n")
        html = _HTML.format(
            subject=escape(self.subject),
            before=_to_paragraphs(f"Hello,\n\n{self.text}"),
            url=escape(self.url),
            label=escape(self.label),
            after=_to_paragraphs(self.closing),
        )
        message.add_alternative(html, subtype="html")
        return message


def _to_paragraphs(text: str) -> str:
    parts = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n".join(f"<p>{escape(part)}</p>" for part in parts if part)


def as_text(name: str) -> str:
    """Return a name that a user chose, so that no mail program makes a link of it.

    A line break could end a paragraph, and what looks like an address would be a link in an e-mail of ours:
    `https://evil.example` becomes `https :// evil . example`.
    """
    visible = " ".join("".join(char if char.isprintable() else " " for char in name).split())
    return _ADDRESS_LIKE.sub(r" \1 ", visible)
