"""Run the database of a server or command: that of `DATABASE_URL`, or the embedded one of `DATA_DIR`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sqlalchemy import make_url

from db.embedded import use_cluster
from studio.infrastructure.settings import VERSION, InvalidSettings, Settings

FOLDER = "postgresql"
"""The folder of the embedded database in `DATA_DIR`."""
SQLITE_FILE = "sartiq.db"
"""The database of the releases 0.1 and 0.2 in `DATA_DIR`, unless they had a `DATABASE_URL`."""


@contextmanager
def use_database(settings: Settings) -> Iterator[Settings]:
    """Yield the settings with the URL of a database that runs until the block ends.

    With a `DATABASE_URL` these are the settings themselves. All processes of a `DATA_DIR` share its database.

    Raises:
        InvalidSettings: There is no embedded database yet, but a database of a release before 0.3; or the
            settings are those of a mock, which has a database of its own.
        EmbeddedDatabaseError: As `use_cluster`.
    """
    if settings.mode == "mock":
        raise InvalidSettings(
            "SARTIQ_MODE=mock needs the demo data: start the mock server by `python -m handlers`"
        )
    if settings.database_url:
        yield settings
        return
    folder = settings.data_dir / FOLDER
    require_no_sqlite_file(settings.data_dir)
    with use_cluster(folder, release=VERSION) as cluster:
        yield replace(settings, database_url=cluster.url)


def is_embedded(settings: Settings) -> bool:
    """Return whether the database is the embedded one of `DATA_DIR`."""
    return make_url(settings.database_url).host is None and (settings.data_dir / FOLDER).is_dir()


def require_no_sqlite_file(data_dir: Path) -> None:
    """Check that no database of an older release waits to be moved.

    Raises:
        InvalidSettings: There is one, and no embedded database.
    """
    file = data_dir / SQLITE_FILE
    if file.is_file() and not (data_dir / FOLDER).exists():
        raise InvalidSettings(
            f"{file} is the SQLite database of an older release. Run `make move-from-sqlite`: it copies the "
            "rows to a PostgreSQL database in the same folder, and keeps the file"
        )
