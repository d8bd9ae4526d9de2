"""The history of the schema, and how to move a database along it. The address always comes as an argument.

Alembic is loaded by who moves one: most starts find the database where it should be.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from db.engine import build_engine
from db.rls.setup import prepare_roles

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(__file__).parent


def head_revision() -> str:
    """The revision that this release works with: the last number that a step has."""
    return max(path.name.partition("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*_*.py"))


def build_config(url: str, login: str | None = None) -> Config:
    """Alembic's configuration for the database at this address, at which `login` is to work."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    config.attributes["login"] = login
    return config


def upgrade(url: str, revision: str = "head", login: str | None = None) -> None:
    """Bring the database up to a revision, the newest by default. What is there already is left alone.

    On PostgreSQL `url` signs in as the owner of the tables; another `login` of the server may then work in
    the two roles. RolesMissing when they are not there and the owner may not make them.
    """
    if revision == "head" and _is_ready(url, login):
        return
    from alembic import command

    command.upgrade(build_config(url, login), revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the database back to a revision, by default to nothing; the data of what goes is lost."""
    from alembic import command

    command.downgrade(build_config(url), revision)


def is_current(url: str) -> bool:
    """Whether the database is at the newest revision."""
    engine = build_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            return _revision(connection) == head_revision()
    finally:
        engine.dispose()


def _is_ready(url: str, login: str | None) -> bool:
    """Whether there are no steps to take; then the roles are made ready, as before each step."""
    engine = build_engine(url, pool_size=1)
    try:
        with engine.begin() as connection:
            if _revision(connection) != head_revision():
                return False
            if connection.dialect.name == "postgresql":
                prepare_roles(connection, login)
            return True
    finally:
        engine.dispose()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))
