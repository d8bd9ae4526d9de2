"""Switch row-level security off, for tests of the layer above it: the tenant filter."""

from __future__ import annotations

from sqlalchemy import Connection

from db.rls.session_role import SYSTEM, bypass_rls, set_role

_DISABLE = """
    DO $$ DECLARE name regclass; BEGIN
        FOR name IN SELECT oid FROM pg_class WHERE relrowsecurity AND NOT relispartition LOOP
            EXECUTE 'ALTER TABLE ' || name || ' DISABLE ROW LEVEL SECURITY';
        END LOOP;
    END $$
"""


def disable_row_level_security(connection: Connection) -> None:
    """Show all rows to every role until the running transaction is rolled back.

    It locks all tables: other connections to this database wait.
    """
    bypass_rls(connection)
    connection.exec_driver_sql(_DISABLE)
    connection.exec_driver_sql("SET LOCAL sartiq.migrating = ''")
    set_role(connection, SYSTEM)
