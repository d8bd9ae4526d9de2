"""Opaque single-use secrets: who holds one may do something once. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import secrets


def generate_token(prefix: str) -> str:
    """A secret of 256 random bits; the prefix says what it is for and lets scanners find leaked ones."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def hash_token(token: str) -> str:
    """What is stored of a token. A plain hash does, because there is nothing to guess in 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()
