"""What Alembic runs for every command: one connection, all steps in one transaction, models as the target."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

import db.models  # noqa: F401  # registers the tables
from db.base import Base
from db.engine import build_engine
from db.rls.session_role import bypass_rls
from db.rls.setup import prepare_roles

# Two servers that start at once must not both migrate. Any number will do, as long as it stays the same.
MIGRATION_LOCK = 5_172_001


def run_migrations() -> None:
    """Migrate the database whose address the caller put into the configuration."""
    engine = build_engine(context.config.attributes["url"], pool_size=1).execution_options(write=True)
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                migrate_sqlite(connection)
            else:
                migrate_postgresql(connection)
    finally:
        engine.dispose()


def migrate_sqlite(connection: Connection) -> None:
    """Migrate with foreign keys off, and check them before the commit.

    To change a table SQLite copies and drops it; with foreign keys on, the drop deletes the rows of others.
    The switch has no effect within a transaction, hence the driver's own connection.
    """
    connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
    with connection.begin():
        migrate(connection)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise RuntimeError(f"the migration breaks {len(broken)} references, the first one: {broken[0]}")


def migrate_postgresql(connection: Connection) -> None:
    """Migrate while holding a lock that ends with the transaction, as the one who sees all rows."""
    with connection.begin():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        prepare_roles(connection, context.config.attributes["login"])
        bypass_rls(connection)
        migrate(connection)


def migrate(connection: Connection) -> None:
    """Run the steps within the transaction that the caller opened."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite cannot alter most of a table in place
        transactional_ddl=False,  # the caller's transaction is the one, for all steps
    )
    context.run_migrations()


run_migrations()
