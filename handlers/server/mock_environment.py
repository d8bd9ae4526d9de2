"""The environment of the mock: the same server with an in-memory database and sample images, for clients' CI.

The module provides a temporary folder, the database, deterministic ids, a session with a fixed token, the
return to the state at the start, and connections that can be dropped. The responses of the mock are in
`handlers.pipeline.middleware.mock_responses`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt

from db.base import use_deterministic_ids
from db.engine import build_engine
from db.models.users import TokenFamily, User
from db.session import Database
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER
from handlers.pipeline.middleware.mock_responses import ABORT_EXTENSION
from handlers.server.http_protocol import BoundedHttpProtocol
from studio.seed.rows import build_seed_id, get_seed_id
from studio.settings import Settings

TOKEN_ISSUED_AT, TOKEN_EXPIRES_AT = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
SESSION_ID = build_seed_id(0x16, 1)
# Later than the ids of the seed, so that lists show new rows first.
FIRST_ID_AT = TOKEN_ISSUED_AT + timedelta(days=1)


@dataclass(frozen=True)
class MockEnvironment:
    """The settings and the seeded database of a running mock, and a copy of its files at the start."""

    settings: Settings
    database: Database
    start_dir: Path

    def reset(self) -> None:
        """Return rows, files and ids to their state at the start."""
        self.database.roll_back_connection()
        use_deterministic_ids(FIRST_ID_AT)
        for folder in self.settings.data_dir.iterdir():
            # Background work may still write a file; no row refers to it.
            shutil.rmtree(folder, ignore_errors=True)
        link_files(self.start_dir, self.settings.data_dir)


def link_files(source: Path, target: Path) -> None:
    """Copy a folder with hard links: stored files are replaced, never changed."""
    shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)


class MockHttpProtocol(BoundedHttpProtocol):
    """A connection that the application can close without a response, as an outage of the network does."""

    def on_headers_complete(self) -> None:
        """Start the application with a function that closes the connection."""
        super().on_headers_complete()
        # The application starts in the next iteration of the event loop, so it sees the extension.
        self.scope["extensions"] = {ABORT_EXTENSION: self.transport.abort}  # type: ignore[dict-item]  # not from ASGI


@contextmanager
def mock_environment(
    settings: Settings, migrate_and_seed: Callable[[Settings], object]
) -> Iterator[MockEnvironment]:
    """Yield the settings with a temporary folder, and the seeded database; both are deleted at the end.

    Args:
        settings: The settings of the mock.
        migrate_and_seed: Called with the new settings to create the tables and rows.
    """
    # Without a handler, SIGTERM during startup would end the process and leave the folder behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    engine = build_engine(settings.database_url)
    # The in-memory database exists as long as this connection, which all threads share one after the other.
    with tempfile.TemporaryDirectory(prefix="sartiq-mock-") as name, engine.connect() as anchor:
        mock_settings = with_data_dir(settings, Path(name) / "data")
        use_deterministic_ids(TOKEN_ISSUED_AT)
        migrate_and_seed(mock_settings)
        database = Database.from_connection(anchor.execution_options(write=True))
        create_session(database)
        # Transactions of requests become savepoints of this one, which a reset rolls back.
        anchor.begin()
        start_dir = Path(name) / "start"
        link_files(mock_settings.data_dir, start_dir)
        use_deterministic_ids(FIRST_ID_AT)
        yield MockEnvironment(mock_settings, database, start_dir)
    engine.dispose()


def with_data_dir(settings: Settings, folder: Path) -> Settings:
    """Return settings with all files below a folder, except an outbox that was configured explicitly."""
    is_custom_outbox = settings.outbox_dir != settings.data_dir / "outbox"
    outbox_dir = settings.outbox_dir if is_custom_outbox else folder / "outbox"
    return replace(settings, data_dir=folder, media_dir=folder / "media", outbox_dir=outbox_dir)


def create_session(database: Database) -> None:
    """Create the session of the demo account, which does not expire."""
    with database.transaction(write=True) as session:
        session.add(
            TokenFamily(
                id=SESSION_ID, user_id=get_seed_id(User), expires_at=TOKEN_EXPIRES_AT, user_agent="mock"
            )
        )


def static_token(settings: Settings) -> str:
    """Return the access token of the session, which is the same in each process."""
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(get_seed_id(User)), "sid": str(SESSION_ID), "jti": "mock",
        "type": "access", "iat": TOKEN_ISSUED_AT, "nbf": TOKEN_ISSUED_AT, "exp": TOKEN_EXPIRES_AT,
    }  # fmt: skip
    return jwt.encode(claims, settings.secret_key, ALGORITHM)
