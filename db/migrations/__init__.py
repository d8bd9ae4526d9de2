"""The history of the schema, and how to move a database along it. The address always comes as an argument."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from db.engines import make_engine


def configuration(url: str, login: str | None = None) -> Config:
    """Alembic's configuration for the database at this address, at which `login` is to work."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    config.attributes["login"] = login
    return config


def upgrade(url: str, revision: str = "head", login: str | None = None) -> None:
    """Bring the database up to a revision, the newest by default. What is there already is left alone.

    On PostgreSQL `url` signs in as the owner of the tables; another `login` of the server may then work in
    the two roles. RolesMissing when they are not there and the owner may not make them.
    """
    command.upgrade(configuration(url, login), revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the database back to a revision, by default to nothing; the data of what goes is lost."""
    command.downgrade(configuration(url), revision)


def is_current(url: str) -> bool:
    """Whether the database is at the newest revision."""
    engine = make_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    return current == ScriptDirectory.from_config(configuration(url)).get_current_head()
