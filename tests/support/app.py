"""Create the application for tests in process. Each test connects it to its own database.

Requests run in the application's threads. On the `database` fixture, their transactions are savepoints.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from sqlalchemy import insert

from db.base import new_id, utc_now
from db.libpq.statements import Fetched, Query
from db.models import TokenFamily, User
from db.rls.session_role import SYSTEM, SessionRole
from db.session import Database
from handlers.app import Application, create_app
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER
from studio.infrastructure.settings import InvalidSettings, Settings
from tests.support import factories
from tools.servers.databases import UNREACHABLE_URL
from tools.servers.server import COMPUTE_WEBHOOK_SECRET

UNLIMITED = 1_000_000
"""The number of requests per window in tests that are not about rate limits."""
REACHABLE_HOST = "127.0.0.1:9"
"""An allowed target of outgoing requests at which no server listens."""

_INSERT_SESSION = insert(TokenFamily.__table__)
"""Not with a factory or the ORM: thousands of requests of tests have a session, which no test reads."""


def replace_service(monkeypatch: pytest.MonkeyPatch, app: Application, **services: Any) -> None:
    """Let the application have other services until the end of the test."""
    monkeypatch.setattr(app, "services", replace(app.services, **services))


class SwitchedDatabase:
    """The application's database: forwards to the database of the running test."""

    def __init__(self) -> None:
        self.current: Database | None = None

    def transaction(self, write: bool = True, actor: SessionRole = SYSTEM) -> AbstractContextManager[Any]:
        """Open a transaction on the current database."""
        if self.current is None:
            raise RuntimeError("no database is set: use `switched_to`, or a fixture that does")
        return self.current.transaction(write, actor)

    async def fetch(self, queries: Sequence[Query], is_snapshot: bool = False) -> Fetched:
        """Run queries on the current database."""
        if self.current is None:
            raise RuntimeError("no database is set: use `switched_to`, or a fixture that does")
        return await self.current.fetch(queries, is_snapshot)

    def event_loop_transaction(
        self, write: bool = True, actor: SessionRole = SYSTEM, **options: Any
    ) -> AbstractContextManager[Any]:
        """Open a transaction of the event loop on the current database."""
        if self.current is None:
            raise RuntimeError("no database is set: use `switched_to`, or a fixture that does")
        return self.current.event_loop_transaction(write, actor, **options)

    async def close_reader(self) -> None:
        """Do nothing: the fixtures dispose of their databases."""

    @contextmanager
    def switched_to(self, database: Database) -> Iterator[None]:
        """Use this database within the block."""
        self.current = database
        try:
            yield
        finally:
            self.current = None

    def dispose(self) -> None:
        """Do nothing: the fixtures dispose of their databases."""


def create_test_app(folder: Path, **options: Any) -> Application:
    """Return the application with its files below `folder`, without workers and dispatchers."""
    settings = Settings(
        environment="test",
        secret_key="a secret for tests that is long enough for every algorithm",
        compute_webhook_secret=COMPUTE_WEBHOOK_SECRET,
        data_dir=folder,
        media_dir=folder / "media",
        site_dir=folder / "site",
        outbox_dir=folder / "outbox",
        database_url=UNREACHABLE_URL,
        render_workers=0,
        webhook_senders=0,
        outbound_allowed_hosts=(REACHABLE_HOST,),
        dns_servers=(REACHABLE_HOST,),
        limit_account=UNLIMITED,
        limit_key=UNLIMITED,
        limit_organization=UNLIMITED,
        limit_guest_sessions=UNLIMITED,
        limit_public_images=UNLIMITED,
        limit_address=UNLIMITED,
        limit_concurrent_requests=UNLIMITED,
        limit_sign_in_account=UNLIMITED,
        limit_sign_in_address=UNLIMITED,
        limit_recovery_account=UNLIMITED,
        limit_mails=UNLIMITED,
        limit_account_exports=UNLIMITED,
    )
    app = create_app(settings, database=SwitchedDatabase(), **options)
    # A test must not get the result of an earlier one.
    app.bridge.probe_cache_seconds = app.bridge.probe_stale_seconds = 0.0
    return app


def auth_headers(app: Application, user: User, age: int = 0) -> dict[str, str]:
    """Return the Authorization header of a new session of a user, with a token issued `age` seconds ago."""
    now = int(time.time()) - age
    family_id = new_id()
    columns = {"id": family_id, "user_id": user.id, "expires_at": utc_now() + timedelta(days=1)}
    factories.get_session().connection().execute(_INSERT_SESSION, columns)
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(user.id), "sid": str(family_id), "jti": uuid.uuid4().hex,
        "type": "access", "iat": now, "nbf": now, "exp": now + 3600,
    }  # fmt: skip
    return {"authorization": f"Bearer {jwt.encode(claims, app.settings.secret_key, ALGORITHM)}"}


def reject_settings(environment: Mapping[str, str]) -> str:
    """Return why an environment is rejected."""
    with pytest.raises(InvalidSettings) as error:
        Settings.from_environment(environment)
    return str(error.value)
