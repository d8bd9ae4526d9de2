"""The mock: this same server on a database in memory, with sample pictures, for the CI of who consumes it.

Here is only what a process is furnished with: a folder that goes with it, the database, ids that are counted,
and a session whose token is the same every time.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jwt

from db.base import use_deterministic_ids
from db.engine import build_engine
from db.models.users import TokenFamily, User
from db.session import Database
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER
from studio.seed.rows import build_seed_id, get_seed_id
from studio.settings import Settings

TOKEN_ISSUED_AT, TOKEN_EXPIRES_AT = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
SESSION_ID = build_seed_id(0x16, 1)


@contextmanager
def mock_environment(
    settings: Settings, migrate_and_seed: Callable[[Settings], object]
) -> Iterator[tuple[Settings, Database]]:
    """Give settings with a folder of this process, and the database that `prepare` has filled.

    Both are gone at the end, also when the process is told to end.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    engine = build_engine(settings.database_url)
    # The database lives as long as this connection, by which all threads take turns.
    with tempfile.TemporaryDirectory(prefix="sartiq-mock-") as name, engine.connect() as anchor:
        own = with_data_dir(settings, Path(name))
        use_deterministic_ids(TOKEN_ISSUED_AT)
        migrate_and_seed(own)
        database = Database.from_connection(anchor.execution_options(write=True))
        create_session(database)
        yield own, database
    engine.dispose()


def with_data_dir(settings: Settings, folder: Path) -> Settings:
    """Return settings that keep all files below a folder; an outbox elsewhere, to read mails in, stays."""
    elsewhere = settings.outbox_dir != settings.data_dir / "outbox"
    outbox = settings.outbox_dir if elsewhere else folder / "outbox"
    return replace(settings, data_dir=folder, media_dir=folder / "media", outbox_dir=outbox)


def create_session(database: Database) -> None:
    """Sign the demonstration's account in, for good."""
    with database.transaction(write=True) as writing:
        writing.add(
            TokenFamily(
                id=SESSION_ID, user_id=get_seed_id(User), expires_at=TOKEN_EXPIRES_AT, user_agent="mock"
            )
        )


def static_token(settings: Settings) -> str:
    """Return the access token of that session."""
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(get_seed_id(User)), "sid": str(SESSION_ID), "jti": "mock",
        "type": "access", "iat": TOKEN_ISSUED_AT, "nbf": TOKEN_ISSUED_AT, "exp": TOKEN_EXPIRES_AT,
    }  # fmt: skip
    return jwt.encode(claims, settings.secret_key, ALGORITHM)
