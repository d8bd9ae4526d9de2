"""Plant secrets in rows, and search responses for the secrets of the database and the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from sqlalchemy import select

from db.base import Base
from db.models import GenerationModel
from handlers.app import Application
from studio.providers.config import is_secret
from tests.contract.tenant import Tenant
from tests.support import factories
from tests.support.client import ClientResponse

SECRET_COLUMN = re.compile(r"password|(?<!content)_hash$|salt")
CREDENTIAL = "planted-credential-of-a-provider"
HASH = "$argon2id$planted-hash-of-a-password"
SALT = b"planted-salt-of-a-webhook".hex()

TOKEN = re.compile(rb"\b(?:eyJ[\w-]{8,}\.[\w-]+\.[\w-]+|(?:rt|pr|iv|ec|rl|sk|whsec)_[\w+/=-]{24,})")
"""A JWT, or a token with a prefix of this server."""

TOKEN_RESPONSES = {
    "login": "the tokens of the session",
    "refresh_token": "the tokens of the session",
    "exchange_review_link": "the token of the guest",
    "create_webhook_endpoint": "the secret, shown once",
    "rotate_webhook_secret": "the new secret, shown once",
    "create_api_key": "the secret, shown once",
    "create_review_link": "the URL, shown once",
    "get_openapi_json": "examples",
    "get_openapi_30_json": "examples",
    "get_openapi_yaml": "examples",
}


def list_settings_secrets(app: Application) -> Iterator[str]:
    """Yield the secrets of the settings and the paths of the storage folders."""
    settings = app.settings
    yield from (settings.secret_key, settings.compute_webhook_secret or "", settings.database_url)
    yield from (str(settings.media_dir), str(settings.data_dir))


def list_row_secrets(app: Application) -> Iterator[str]:
    """Yield the values of secret columns of all tables and all tenants."""
    with app.database.transaction(write=False) as reading:
        yield from (str(value) for (value,) in reading.connection().exec_driver_sql(_select_secrets()))
        # unscoped: models belong to no tenant
        for config in reading.scalars(select(GenerationModel.provider_config)):
            yield from (str(value) for name, value in (config or {}).items() if is_secret(name))


@cache
def _select_secrets() -> str:
    """Return one query for all tables: a query per table takes most of the time of a search."""
    columns = [
        (table.name, column.name)
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if SECRET_COLUMN.search(column.name)
    ]
    assert columns
    selects = [f'SELECT CAST("{column}" AS VARCHAR) FROM "{table}"' for table, column in columns]  # noqa: S608 - names of models
    return " UNION ALL ".join(selects)


def find_leaks(response: ClientResponse, name: str, secrets: set[str]) -> list[str]:
    """Return the secrets in the body and headers of a response."""
    content = response.body + b"\n" + "\n".join(map(str, response.headers.items())).encode()
    found = [secret for secret in secrets if len(secret) >= 8 and secret.encode() in content]
    if name not in TOKEN_RESPONSES:
        found += [match.decode() for match in TOKEN.findall(content)]
    return found


def insert_secrets(tenant: Tenant) -> None:
    """Store secrets as long as real ones in rows of the tenant."""
    model, endpoint = tenant.rows["model"], tenant.rows["endpoint"]
    model.provider_config = {"api_key": CREDENTIAL, "base_url": "https://compute.example.com"}
    tenant.owner.hashed_password, endpoint.secret_salt = HASH, SALT
    for row in (model, endpoint, tenant.owner):
        factories.make(row)
