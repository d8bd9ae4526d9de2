"""Encrypt the credentials of destinations (`studio/infrastructure/encryption.py`).

A periodic task encrypts those of SECRET_KEY_PREVIOUS again with the current key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from uuid import UUID

from studio.infrastructure.encryption import decrypt, encrypt

Credentials = Mapping[str, str]
"""Names and values, such as `secret_access_key`."""

PURPOSE = "destination"


def encrypt_credentials(secret_key: str, destination_id: UUID, credentials: Credentials) -> bytes:
    """Return the encrypted credentials of a destination."""
    return encrypt(
        secret_key, PURPOSE, destination_id, json.dumps(dict(credentials), sort_keys=True).encode()
    )


def decrypt_credentials(secret_keys: Sequence[str], destination_id: UUID, encrypted: bytes) -> Credentials:
    """Return the credentials of a destination.

    Raises:
        SecretUnreadable: None of the keys is the one that they were encrypted with.
    """
    credentials: dict[str, str] = json.loads(decrypt(secret_keys, PURPOSE, destination_id, encrypted))
    return credentials
