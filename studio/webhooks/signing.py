"""Secrets of endpoints and the headers of a signed message (Standard Webhooks 1.0.0).

A secret is derived from a random salt, which is stored, and the server's SECRET_KEY, which is not: whoever
reads the database can sign nothing, and no table of secrets has to be encrypted. Who changes SECRET_KEY
changes every secret, and clients must rotate theirs.
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
    """32 random bytes in hexadecimal."""
    return os.urandom(32).hex()


def derive_secret(secret_key: str, salt: str) -> str:
    """The secret that belongs to a salt, as its endpoint's owner gets it: `whsec_` and 32 bytes in base64."""
    key = hmac.digest(secret_key.encode(), b"webhook secrets", hashlib.sha256)
    return "whsec_" + base64.b64encode(hmac.digest(key, bytes.fromhex(salt), hashlib.sha256)).decode()


def sign_headers(secrets: Sequence[str], message_id: str, now: datetime, body: str) -> dict[str, str]:
    """The headers that go with a body sent now, with one signature for each secret."""
    signatures = [Webhook(secret).sign(message_id, now, body) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
