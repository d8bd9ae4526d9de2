"""Encrypt the secrets of rows again after a change of SECRET_KEY, so that the previous key can be removed."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from db.models.destinations import Destination
from db.models.identity_providers import IdentityProvider
from db.models.second_factors import SecondFactor
from db.session import Database
from studio.accounts.identity import second_factors
from studio.accounts.identity_providers import changes as identity_providers
from studio.destinations import credentials
from studio.infrastructure.encryption import SecretUnreadable, decrypt, encrypt, fingerprint_key
from studio.infrastructure.settings import Settings


class EncryptedColumn(NamedTuple):
    """A column with secrets, the one that names the key of each, and what the secrets are for."""

    secret: InstrumentedAttribute[Any]
    key: InstrumentedAttribute[Any]
    purpose: str


COLUMNS = (
    EncryptedColumn(Destination.credentials, Destination.credentials_key, credentials.PURPOSE),
    EncryptedColumn(SecondFactor.secret, SecondFactor.secret_key, second_factors.PURPOSE),
    EncryptedColumn(
        IdentityProvider.client_secret, IdentityProvider.client_secret_key, identity_providers.PURPOSE
    ),
)


def encrypt_again(database: Database, settings: Settings) -> int:
    """Encrypt the secrets with the current SECRET_KEY that were encrypted with another one.

    Returns:
        How many were changed. Those that cannot be decrypted stay as they are.
    """
    return sum(_encrypt_column(database, settings, column) for column in COLUMNS)


def _encrypt_column(database: Database, settings: Settings, column: EncryptedColumn) -> int:
    model, current, changed = column.secret.class_, fingerprint_key(settings.secret_key), 0
    # unscoped: the key is that of the server
    stale = select(model).where(column.key != current)
    with database.transaction(write=False) as reading:
        stale_ids = list(reading.scalars(stale.with_only_columns(model.id)))
    for row_id in stale_ids:
        with database.transaction(write=True) as writing:
            row = writing.scalar(stale.where(model.id == row_id).with_for_update())
            secret = None if row is None else getattr(row, column.secret.key)
            if secret is None:
                continue
            try:
                plain = decrypt(settings.secret_keys, column.purpose, row_id, secret)
            except SecretUnreadable:
                continue
            setattr(row, column.secret.key, encrypt(settings.secret_key, column.purpose, row_id, plain))
            setattr(row, column.key.key, current)
            changed += 1
    return changed
