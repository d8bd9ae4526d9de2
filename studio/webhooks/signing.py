"""Derive the secrets of endpoints and sign messages (Standard Webhooks 1.0.0).

A secret is derived from the server's SECRET_KEY, which is not in the database, and a random salt, which is. A
copy of the database is therefore not enough to sign a message. A new SECRET_KEY changes every secret; while
SECRET_KEY_PREVIOUS is set, messages are signed with the previous secrets too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks.webhooks import Webhook


def generate_salt() -> str:
    """Return 32 random bytes in hexadecimal."""
    return os.urandom(32).hex()


def derive_secret(secret_key: str, salt: str) -> str:
    """Return the secret of a salt as clients see it: `whsec_` and 32 bytes in base64."""
    key = hmac.digest(secret_key.encode(), b"webhook secrets", hashlib.sha256)
    return "whsec_" + base64.b64encode(hmac.digest(key, bytes.fromhex(salt), hashlib.sha256)).decode()


def sign_headers(secrets: Sequence[str], message_id: str, now: datetime, body: str) -> dict[str, str]:
    """Return the headers of a message that is sent now, with one signature per secret."""
    signatures = [Webhook(secret).sign(message_id, now, body) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
