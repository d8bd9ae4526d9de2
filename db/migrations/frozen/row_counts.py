"""Create and drop the triggers that maintain the counter cache of a table.

Triggers see what the ORM session does not (cascades of foreign keys, bulk statements, a database copy) and
roll back with the transaction. `db/row_counts/queries.py` explains the design.
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

from db.migrations.frozen.policies import give_to_system_role

# Per statement, the sources of its rows and how each row changes a count. An UPDATE removes the old row and
# adds the new one: if both have the same key, the changes cancel out.
_CHANGES = {
    "insert": {"came": 1},
    "update": {"came": 1, "went": -1},
    "delete": {"went": -1},
}
_TRANSITIONS = {"came": "NEW TABLE AS came", "went": "OLD TABLE AS went"}


def create_count_triggers(table: str, *columns: str) -> None:
    """Maintain the number of a tenant's rows in a table, in total and per value of each of `columns`.

    Existing rows are counted too. No other transaction writes to the table before the migration ends.
    """
    _create_triggers(table, columns)
    existing = _select_changes(columns, 1, table)
    op.execute(_insert_statement(table, columns, existing, entry="0"))


def drop_count_triggers(table: str) -> None:
    """Undo `create_count_triggers`."""
    for verb in _CHANGES:
        op.execute(f"DROP TRIGGER {table}_counted_{verb} ON {table}")
    op.execute(f"DROP FUNCTION sartiq_count_{table}()")
    op.execute(f"DELETE FROM row_counts WHERE table_name = '{table}'")  # noqa: S608 - names come from migrations


def _create_triggers(table: str, columns: Sequence[str]) -> None:
    """Append the changes of each statement as new rows, so that writers never wait for a shared total."""
    branches = ""
    for verb, sources in _CHANGES.items():
        source = " UNION ALL ".join(_select_changes(columns, n, name) for name, n in sources.items())
        branches += f"IF TG_OP = '{verb.upper()}' THEN {_insert_statement(table, columns, source)}; END IF; "
    # The function runs as its owner, the system role, because callers may only read counts. The fixed search
    # path keeps a caller from substituting tables or functions that it uses.
    op.execute(
        f"CREATE FUNCTION sartiq_count_{table}() RETURNS trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS "
        f"$$ BEGIN {branches} RETURN NULL; END $$"
    )
    give_to_system_role(f"sartiq_count_{table}()")
    for verb, sources in _CHANGES.items():
        transitions = " ".join(_TRANSITIONS[name] for name in sources)
        op.execute(
            f"CREATE TRIGGER {table}_counted_{verb} AFTER {verb.upper()} ON {table} "
            f"REFERENCING {transitions} FOR EACH STATEMENT EXECUTE FUNCTION sartiq_count_{table}()"
        )


def _select_changes(columns: Sequence[str], change: int, source: str) -> str:
    """Return a SELECT of tenant and counted columns, whose rows change the counts by `change`."""
    values = "".join(f", CAST({column} AS TEXT) AS {column}" for column in columns)
    return f"SELECT coalesce(organization_id, owner_id) AS scope_id{values}, {change} AS change FROM {source}"  # noqa: S608 - names come from migrations


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
