"""Opaque single-use tokens, for refreshes and for links in e-mails. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import secrets


def generate_token(prefix: str) -> str:
    """Return a token of 256 random bits. The prefix names its purpose and lets secret scanners find it."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def hash_token(token: str) -> str:
    """Return the hash of a token to store. 256 random bits cannot be guessed, so a fast hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()
