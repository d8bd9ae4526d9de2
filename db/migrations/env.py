"""Alembic's environment: run all revisions over one connection in one transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

import db.models  # noqa: F401  # registers the tables
from db.base import Base
from db.engine import build_engine
from db.rls.owners import require_owners
from db.rls.session_role import bypass_rls
from db.rls.setup import prepare_roles

# Servers that start at the same time must not migrate at the same time. The number is arbitrary, but it is
# fixed and differs from `_ADVISORY_LOCK` of `db/row_counts/queries.py`.
MIGRATION_LOCK = 5_172_001


def run_migrations() -> None:
    """Migrate the database whose URL is in the configuration."""
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
    """Migrate with foreign keys disabled, and check them before the commit.

    To alter a table, SQLite copies and drops it. With foreign keys enabled the drop deletes rows of other
    tables. The PRAGMA has no effect inside a transaction, so it runs on the driver's connection before that.
    """
    connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
    with connection.begin():
        migrate(connection)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise RuntimeError(f"the migration breaks {len(broken)} references, the first one: {broken[0]}")


def migrate_postgresql(connection: Connection) -> None:
    """Migrate with an advisory lock that ends with the transaction, and with access to all rows."""
    with connection.begin():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        prepare_roles(connection, context.config.attributes["login"])
        # Without its policy, the login reads no rows, and a migration of data would change none.
        require_owners(connection)
        bypass_rls(connection)
        migrate(connection)


def migrate(connection: Connection) -> None:
    """Run the revisions in the transaction that the caller has opened."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite cannot change most parts of a table in place
        transactional_ddl=False,  # all revisions share the caller's transaction
    )
    context.run_migrations()


run_migrations()
