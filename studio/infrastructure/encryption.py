"""Encrypt secrets of rows with a key that is not in the database (AES-GCM).

The key is derived from the server's SECRET_KEY, from what the secret is for, and from the id of its row.
Secrets of SECRET_KEY_PREVIOUS can be read, too.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class SecretUnreadable(Exception):
    """The secret was encrypted with another SECRET_KEY, or the row was changed."""


def encrypt(secret_key: str, purpose: str, row_id: UUID, plain: bytes) -> bytes:
    """Return the encrypted secret of a row: a nonce and the ciphertext.

    Args:
        secret_key: The current SECRET_KEY.
        purpose: What the secret is for, such as "destination": a secret of another purpose cannot be read.
        row_id: The id of the row.
        plain: The secret.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(secret_key, purpose, row_id).encrypt(nonce, plain, row_id.bytes)


def fingerprint_key(secret_key: str) -> str:
    """Return a name of the key for the database, from which the key cannot be derived."""
    # The first rows that have it were destinations.
    return hmac.digest(secret_key.encode(), b"name of the key of destinations", "sha256")[:8].hex()


def decrypt(secret_keys: Sequence[str], purpose: str, row_id: UUID, encrypted: bytes) -> bytes:
    """Return the secret of a row.

    Raises:
        SecretUnreadable: None of the keys is the one that it was encrypted with.
    """
    # Imported here, as in `_cipher`.
    from cryptography.exceptions import InvalidTag

    nonce, ciphertext = encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:]
    for secret_key in secret_keys:
        try:
            return _cipher(secret_key, purpose, row_id).decrypt(nonce, ciphertext, row_id.bytes)
        except (InvalidTag, ValueError):
            continue
    raise SecretUnreadable


def _cipher(secret_key: str, purpose: str, row_id: UUID) -> AESGCM:
    # Imported here: the package takes 9 MB of a process, also of one that has no secrets.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    # A key per row bounds how often one key is used (NIST SP 800-38D, section 8.3).
    return AESGCM(hmac.digest(secret_key.encode(), purpose.encode() + row_id.bytes, "sha256"))
