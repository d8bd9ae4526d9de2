"""Encrypt the credentials of destinations with a key that is not in the database (AES-GCM).

The key is derived from the server's SECRET_KEY and from the id of the destination. While SECRET_KEY_PREVIOUS
is set, credentials of both keys can be read, and a periodic task encrypts them again with the new one.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Credentials = Mapping[str, str]
"""Names and values, such as `secret_access_key`."""

_NONCE_BYTES = 12


class CredentialsUnreadable(Exception):
    """The credentials were encrypted with another SECRET_KEY, or the row was changed."""


def encrypt_credentials(secret_key: str, destination_id: UUID, credentials: Credentials) -> bytes:
    """Return the encrypted credentials of a destination."""
    nonce = os.urandom(_NONCE_BYTES)
    plain = json.dumps(dict(credentials), sort_keys=True).encode()
    return nonce + _cipher(secret_key, destination_id).encrypt(nonce, plain, destination_id.bytes)


def decrypt_credentials(secret_keys: Sequence[str], destination_id: UUID, encrypted: bytes) -> Credentials:
    """Return the credentials of a destination.

    Raises:
        CredentialsUnreadable: None of the keys is the one that they were encrypted with.
    """
    # Imported here, as in `_cipher`.
    from cryptography.exceptions import InvalidTag

    nonce, ciphertext = encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:]
    for secret_key in secret_keys:
        try:
            plain = _cipher(secret_key, destination_id).decrypt(nonce, ciphertext, destination_id.bytes)
        except (InvalidTag, ValueError):
            continue
        credentials: dict[str, str] = json.loads(plain)
        return credentials
    raise CredentialsUnreadable


def fingerprint_key(secret_key: str) -> str:
    """Return a name of the key for the database, from which the key cannot be derived."""
    return hmac.digest(secret_key.encode(), b"name of the key of destinations", "sha256")[:8].hex()


def _cipher(secret_key: str, destination_id: UUID) -> AESGCM:
    # Imported here: the package takes 9 MB of a process, also of one that has no destinations.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    # A key per destination bounds how often one key is used (NIST SP 800-38D, section 8.3).
    return AESGCM(hmac.digest(secret_key.encode(), b"destination" + destination_id.bytes, "sha256"))
