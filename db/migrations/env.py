"""Alembic's environment: on SQLite all revisions in one transaction, on PostgreSQL one transaction each."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, Engine, event, text

import db.models  # noqa: F401  # registers the tables
from db.base import Base
from db.engine import build_engine
from db.migrations import locks
from db.rls.owners import require_owners
from db.rls.session_role import bypass_rls
from db.rls.setup import prepare_roles


def run_migrations() -> None:
    """Migrate the database whose URL is in the configuration."""
    engine = build_engine(context.config.attributes["url"], pool_size=2).execution_options(write=True)
    try:
        if engine.dialect.name == "sqlite":
            with engine.connect() as connection:
                migrate_sqlite(connection)
        else:
            migrate_postgresql(engine)
    finally:
        engine.dispose()


def migrate_sqlite(connection: Connection) -> None:
    """Migrate with foreign keys disabled, and check them before the commit.

    To alter a table, SQLite copies and drops it. With foreign keys enabled the drop deletes rows of other
    tables. The PRAGMA has no effect inside a transaction, so it runs on the driver's connection before that.
    """
    connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
    with connection.begin():
        migrate(connection, in_own_transactions=False)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise RuntimeError(f"the migration breaks {len(broken)} references, the first one: {broken[0]}")


def migrate_postgresql(engine: Engine) -> None:
    """Migrate with access to all rows. Each revision has a transaction of its own.

    A revision that locks a table must not keep the lock while the next ones run. If one of them fails, the
    schema is that of the revision before it, and the next attempt continues there.

    Raises:
        MigrationBlocked: As `report_blockers`.
    """
    with engine.connect() as guard, guard.begin():
        locks.acquire_migration_lock(guard)
        event.listen(engine, "begin", prepare_transaction)
        with engine.connect() as connection:
            with connection.begin():
                prepare_roles(connection, context.config.attributes["login"])
                # Without its policy, the login reads no rows, and a migration of data would change none.
                require_owners(connection)
                pid = connection.scalar(text("SELECT pg_backend_pid()"))
            with locks.report_blockers(guard, pid):
                migrate(connection, in_own_transactions=True)
            # If another process has run all revisions during the wait for the lock, Alembic leaves the
            # transaction open in which it read the revision.
            connection.commit()
            # The first migration of a database has created the table of the revision.
            with connection.begin():
                prepare_roles(connection, context.config.attributes["login"])


def prepare_transaction(connection: Connection) -> None:
    """Show all rows to the owner of the tables, and limit the wait for locks, in a new transaction."""
    bypass_rls(connection)
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {locks.LOCK_TIMEOUT_MILLISECONDS}")


def migrate(connection: Connection, *, in_own_transactions: bool) -> None:
    """Run the revisions, each in a transaction of its own or all in the caller's transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite cannot change most parts of a table in place
        transactional_ddl=in_own_transactions,
        transaction_per_migration=in_own_transactions,
    )
    with context.begin_transaction():
        context.run_migrations()


run_migrations()
