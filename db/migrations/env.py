"""Alembic's environment: each revision in a transaction of its own."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, event, text

import db.models  # noqa: F401  # registers the tables
from db.base import Base
from db.engine import build_engine
from db.migrations import locks
from db.rls.owners import require_owners
from db.rls.session_role import bypass_rls
from db.rls.setup import prepare_roles


def run_migrations() -> None:
    """Migrate the database whose URL is in the configuration, with access to all rows.

    Each revision has a transaction of its own: one that locks a table must not keep the lock while the next
    ones run. If one of them fails, the schema is that of the revision before it, and the next attempt
    continues there.

    Raises:
        MigrationBlocked: As `report_blockers`.
    """
    engine = build_engine(context.config.attributes["url"], pool_size=2)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
            locks.acquire_migration_lock(guard)
            event.listen(engine, "begin", prepare_transaction)
            with engine.connect() as connection:
                with connection.begin():
                    prepare_roles(connection, context.config.attributes["login"])
                    # Without its policy, the login reads no rows, and a migration of data would change none.
                    require_owners(connection)
                    pid = connection.scalar(text("SELECT pg_backend_pid()"))
                with locks.report_blockers(guard, pid):
                    migrate(connection)
                # If another process has run all revisions during the wait for the lock, Alembic leaves the
                # transaction open in which it read the revision.
                connection.commit()
                # The first migration of a database has created the table of the revision.
                with connection.begin():
                    prepare_roles(connection, context.config.attributes["login"])
    finally:
        engine.dispose()


def prepare_transaction(connection: Connection) -> None:
    """Show all rows to the owner of the tables, and limit the wait for locks, in a new transaction."""
    bypass_rls(connection)
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {locks.LOCK_TIMEOUT_MILLISECONDS}")


def migrate(connection: Connection) -> None:
    """Run the revisions, each in a transaction of its own."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run_migrations()
