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

from db.base import count_ids_from
from db.engines import make_engine
from db.models.users import TokenFamily, User
from db.session import Database
from handlers.auth import ALGORITHM, AUDIENCE, ISSUER
from studio.seed_rows import id_of, seed_id
from studio.settings import Settings

BEGINNING, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
SESSION = seed_id(0x16, 1)


@contextmanager
def furnished(
    settings: Settings, prepare: Callable[[Settings], object]
) -> Iterator[tuple[Settings, Database]]:
    """Give settings with a folder of this process, and the database that `prepare` has filled.

    Both are gone at the end, also when the process is told to end.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    engine = make_engine(settings.database_url)
    # The database lives as long as this connection, by which all threads take turns.
    with tempfile.TemporaryDirectory(prefix="sartiq-mock-") as name, engine.connect() as anchor:
        own = in_folder(settings, Path(name))
        count_ids_from(BEGINNING)
        prepare(own)
        database = Database.bound(anchor.execution_options(write=True))
        open_session(database)
        yield own, database
    engine.dispose()


def in_folder(settings: Settings, folder: Path) -> Settings:
    """Return settings that keep all files below a folder; an outbox elsewhere, to read mails in, stays."""
    elsewhere = settings.outbox_dir != settings.data_dir / "outbox"
    outbox = settings.outbox_dir if elsewhere else folder / "outbox"
    return replace(settings, data_dir=folder, media_dir=folder / "media", outbox_dir=outbox)


def open_session(database: Database) -> None:
    """Sign the demonstration's account in, for good."""
    with database.transaction(write=True) as writing:
        writing.add(TokenFamily(id=SESSION, user_id=id_of(User), expires_at=END, user_agent="mock"))


def fixed_token(settings: Settings) -> str:
    """Return the access token of that session."""
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(id_of(User)), "sid": str(SESSION), "jti": "mock",
        "type": "access", "iat": BEGINNING, "nbf": BEGINNING, "exp": END,
    }  # fmt: skip
    return jwt.encode(claims, settings.secret_key, ALGORITHM)
