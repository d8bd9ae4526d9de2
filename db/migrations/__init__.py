"""Upgrade and downgrade a database with Alembic. The URL is always an argument.

Alembic is imported only when a revision has to run: most starts find the database at the newest revision.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from db.engine import build_engine
from db.migrations import locks
from db.rls.owners import require_owners
from db.rls.setup import prepare_roles

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent


class DatabaseIsNewer(Exception):
    """A newer release has migrated the database, so this one cannot know its tables."""


def head_revision() -> str:
    """Return the newest revision, read from the file names, so that Alembic need not be imported."""
    return max(path.name.partition("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*_*.py"))


def build_config(url: str, login: str | None = None) -> Config:
    """Return Alembic's configuration for a database, and for the `login` of the server that will use it."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    config.attributes["login"] = login
    return config


def upgrade(url: str, revision: str = "head", login: str | None = None) -> None:
    """Upgrade a database to a revision, by default the newest. Does nothing if it is there already.

    Args:
        url: The URL of the database. Its login owns the tables.
        revision: The revision to upgrade to.
        login: A further login, of the server, that becomes a member of the database roles.

    Raises:
        RolesMissing: The database roles are missing, and the owner may not create or grant them; or functions
            or policies belong to another role (OwnersChanged).
        MigrationBlocked: Another session holds a lock, after several attempts.
        DatabaseIsNewer: The database has a revision of a newer release.
    """
    if revision == "head" and _is_ready(url, login):
        return
    from alembic import command

    _repeat_while_blocked(lambda: command.upgrade(build_config(url, login), revision))


def downgrade(url: str, revision: str = "base") -> None:
    """Downgrade a database to a revision, by default to an empty one. Data of dropped tables is lost.

    Raises:
        MigrationBlocked: As `upgrade`.
    """
    from alembic import command

    _repeat_while_blocked(lambda: command.downgrade(build_config(url), revision))


def _repeat_while_blocked(migrate: Callable[[], None]) -> None:
    """Call a function again, with a pause and a line in the log, while another session blocks it.

    Each call continues at the revision that the one before has reached.
    """
    for attempt in range(1, locks.MAX_ATTEMPTS + 1):
        try:
            return migrate()
        except locks.MigrationBlocked as error:
            if attempt == locks.MAX_ATTEMPTS:
                raise
            logger.warning("migration blocked, attempt %s of %s: %s", attempt, locks.MAX_ATTEMPTS, error)
            time.sleep(locks.PAUSE_SECONDS)


def is_current(url: str) -> bool:
    """Return whether the database is at the newest revision."""
    engine = build_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            return read_revision(connection) == head_revision()
    finally:
        engine.dispose()


def _is_ready(url: str, login: str | None) -> bool:
    """Return whether the database is at the newest revision, and if so prepare its roles."""
    engine = build_engine(url, pool_size=1)
    try:
        with engine.begin() as connection:
            revision, newest = read_revision(connection), head_revision()
            if revision is not None and revision > newest:
                raise DatabaseIsNewer(
                    f"The database has revision {revision} of a newer release; this one ends at {newest}. "
                    "Start the newer release, or restore a backup from before its first start"
                )
            if revision != newest:
                return False
            # The login of the server may be new although the schema is not.
            prepare_roles(connection, login)
            require_owners(connection)
            return True
    finally:
        engine.dispose()


def read_revision(connection: Connection) -> str | None:
    """Return the revision of a database, None if it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))
