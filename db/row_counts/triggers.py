"""Create and drop the triggers that maintain the counter cache of a table. For migrations.

Triggers see what the ORM session does not (cascades of foreign keys, bulk statements, a database copy) and
roll back with the transaction. `db/row_counts/queries.py` explains the design. On SQLite, a migration that
rebuilds a table (Alembic's batch mode) loses its triggers: drop the counts before and create them again
afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

from db.rls.policies import is_postgresql
from db.rls.session_role import SYSTEM_ROLE

# Per statement, the sources of its rows and how each row changes a count. An UPDATE removes the old row and
# adds the new one: if both have the same key, the changes cancel out.
_CHANGES = {
    "insert": {"came": 1},
    "update": {"came": 1, "went": -1},
    "delete": {"went": -1},
}
_TRANSITIONS = {"came": "NEW TABLE AS came", "went": "OLD TABLE AS went"}
_ROWS = {"came": "NEW", "went": "OLD"}
_SCOPE = ("organization_id", "owner_id")


def create_count_triggers(table: str, *columns: str) -> None:
    """Maintain the number of a tenant's rows in a table, in total and per value of each of `columns`.

    Existing rows are counted too. No other transaction writes to the table before the migration ends.
    """
    if is_postgresql():
        _create_postgresql_triggers(table, columns)
    else:
        _create_sqlite_triggers(table, columns)
    existing = _select_changes(columns, "", 1, f"FROM {table}")
    op.execute(_insert_statement(table, columns, existing, entry="0"))


def drop_count_triggers(table: str) -> None:
    """Undo `create_count_triggers`."""
    for verb in _CHANGES:
        op.execute(f"DROP TRIGGER {table}_counted_{verb}" + (f" ON {table}" if is_postgresql() else ""))
    if is_postgresql():
        op.execute(f"DROP FUNCTION sartiq_count_{table}()")
    op.execute(f"DELETE FROM row_counts WHERE table_name = '{table}'")  # noqa: S608 - names come from migrations


def _create_postgresql_triggers(table: str, columns: Sequence[str]) -> None:
    """Append the changes of each statement as new rows, so that writers never wait for a shared total."""
    branches = ""
    for verb, sources in _CHANGES.items():
        source = " UNION ALL ".join(
            _select_changes(columns, "", n, f"FROM {name}") for name, n in sources.items()
        )
        branches += f"IF TG_OP = '{verb.upper()}' THEN {_insert_statement(table, columns, source)}; END IF; "
    # The function runs as its owner, the system role, because callers may only read counts. The fixed search
    # path keeps a caller from substituting tables or functions that it uses.
    op.execute(
        f"CREATE FUNCTION sartiq_count_{table}() RETURNS trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS "
        f"$$ BEGIN {branches} RETURN NULL; END $$"
    )
    # ALTER ... OWNER TO requires that the new owner may create objects in the schema.
    op.execute(f"GRANT CREATE ON SCHEMA public TO {SYSTEM_ROLE}")
    op.execute(f"ALTER FUNCTION sartiq_count_{table}() OWNER TO {SYSTEM_ROLE}")
    op.execute(f"REVOKE CREATE ON SCHEMA public FROM {SYSTEM_ROLE}")
    for verb, sources in _CHANGES.items():
        transitions = " ".join(_TRANSITIONS[name] for name in sources)
        op.execute(
            f"CREATE TRIGGER {table}_counted_{verb} AFTER {verb.upper()} ON {table} "
            f"REFERENCING {transitions} FOR EACH STATEMENT EXECUTE FUNCTION sartiq_count_{table}()"
        )


def _create_sqlite_triggers(table: str, columns: Sequence[str]) -> None:
    """Add the changes to the totals directly: SQLite has one writer, so no one waits for them."""
    watched = (*_SCOPE, *columns)
    # IS NOT compares nulls too. The condition spares updates of other columns the work.
    changed = " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in watched)
    heads = {"update": f"AFTER UPDATE OF {', '.join(watched)} ON {table} WHEN {changed}"}
    for verb, sources in _CHANGES.items():
        source = " UNION ALL ".join(
            _select_changes(columns, f"{_ROWS[name]}.", n) for name, n in sources.items()
        )
        op.execute(
            f"CREATE TRIGGER {table}_counted_{verb} {heads.get(verb, f'AFTER {verb.upper()} ON {table}')} "
            f"BEGIN {_insert_statement(table, columns, source, entry='0')} "
            "ON CONFLICT (table_name, column_name, value, scope_id, entry) "
            "DO UPDATE SET number = number + excluded.number; END"
        )


def _select_changes(columns: Sequence[str], prefix: str, change: int, from_clause: str = "") -> str:
    """Return a SELECT of tenant and counted columns, in which each row changes the counts by `change`."""
    scope = f"coalesce({', '.join(prefix + column for column in _SCOPE)}) AS scope_id"
    values = "".join(f", CAST({prefix}{column} AS TEXT) AS {column}" for column in columns)
    return f"SELECT {scope}{values}, {change} AS change {from_clause}"


def _insert_statement(table: str, columns: Sequence[str], source: str, entry: str | None = None) -> str:
    """Return the INSERT that writes the changes of a `_select_changes` statement, one row per key."""
    total = f"SELECT '' AS column_name, '' AS value, scope_id, change FROM ({source}) AS changed"  # noqa: S608 - names come from migrations
    by_values = [
        f"SELECT '{column}', {column}, scope_id, change FROM ({source}) AS changed "  # noqa: S608 - names come from migrations
        f"WHERE {column} IS NOT NULL"
        for column in columns
    ]
    entry_column, entry_value = (", entry", f", {entry}") if entry else ("", "")
    return (
        f"INSERT INTO row_counts (table_name, column_name, value, scope_id{entry_column}, number) "  # noqa: S608 - names come from migrations
        f"SELECT '{table}', column_name, value, scope_id{entry_value}, sum(change) "
        f"FROM ({' UNION ALL '.join([total, *by_values])}) AS parts "
        "GROUP BY column_name, value, scope_id HAVING sum(change) <> 0"
    )
