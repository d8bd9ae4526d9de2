"""Counts of rows that the database keeps itself, for migrations: the triggers of one table.

Triggers, because they see what the session does not (what foreign keys cascade, bulk statements, a move) and
roll back with it. What they write is read by `db/row_counts/queries.py`, where the design is told. A
migration
that lets SQLite copy a table loses its triggers: it has to drop the counts before and keep them anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

from db.rls.policies import is_postgresql
from db.rls.session_role import SYSTEM_ROLE

# For each kind of statement where its rows are found and what each of them counts. A change of a row is one
# that went and one that came: where both have the same key, they cancel out.
_CHANGES = {
    "insert": {"came": 1},
    "update": {"came": 1, "went": -1},
    "delete": {"went": -1},
}
_TRANSITIONS = {"came": "NEW TABLE AS came", "went": "OLD TABLE AS went"}
_ROWS = {"came": "NEW", "went": "OLD"}
_SCOPE = ("organization_id", "owner_id")


def create_count_triggers(table: str, *columns: str) -> None:
    """Keep how many rows a scope has in a table: all of them, and by the values of each column.

    What is there already is counted; nobody else can write to the table before the migration has ended.
    """
    if is_postgresql():
        _create_postgresql_triggers(table, columns)
    else:
        _create_sqlite_triggers(table, columns)
    there = _select_changes(columns, "", 1, f"FROM {table}")
    op.execute(_insert_statement(table, columns, there, entry="0"))


def drop_count_triggers(table: str) -> None:
    """Take back what `keep_counts` did."""
    for verb in _CHANGES:
        op.execute(f"DROP TRIGGER {table}_counted_{verb}" + (f" ON {table}" if is_postgresql() else ""))
    if is_postgresql():
        op.execute(f"DROP FUNCTION sartiq_count_{table}()")
    op.execute(f"DELETE FROM row_counts WHERE table_name = '{table}'")  # noqa: S608 - a name of ours


def _create_postgresql_triggers(table: str, columns: Sequence[str]) -> None:
    """Append changes, once for a statement: nobody waits for a row that others write too."""
    branches = ""
    for verb, sources in _CHANGES.items():
        source = " UNION ALL ".join(
            _select_changes(columns, "", n, f"FROM {name}") for name, n in sources.items()
        )
        branches += f"IF TG_OP = '{verb.upper()}' THEN {_insert_statement(table, columns, source)}; END IF; "
    # Of the system, because callers only read counts.
    op.execute(
        f"CREATE FUNCTION sartiq_count_{table}() RETURNS trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS "
        f"$$ BEGIN {branches} RETURN NULL; END $$"
    )
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
    """Add changes up at once: there is one writer anyway."""
    watched = (*_SCOPE, *columns)
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


def _select_changes(columns: Sequence[str], prefix: str, change: int, of: str = "") -> str:
    """The scope and the counted columns of rows, each of which changes the counts by a number."""
    scope = f"coalesce({', '.join(prefix + column for column in _SCOPE)}) AS scope_id"
    values = "".join(f", CAST({prefix}{column} AS TEXT) AS {column}" for column in columns)
    return f"SELECT {scope}{values}, {change} AS change {of}"


def _insert_statement(table: str, columns: Sequence[str], source: str, entry: str | None = None) -> str:
    """The statement that adds to the counts what `_selected` rows change, one row for each key."""
    of_all = f"SELECT '' AS column_name, '' AS value, scope_id, change FROM ({source}) AS changed"  # noqa: S608 - names of ours
    by_values = [
        f"SELECT '{column}', {column}, scope_id, change FROM ({source}) AS changed "  # noqa: S608 - the same
        f"WHERE {column} IS NOT NULL"
        for column in columns
    ]
    into, given = (", entry", f", {entry}") if entry else ("", "")
    return (
        f"INSERT INTO row_counts (table_name, column_name, value, scope_id{into}, number) "  # noqa: S608 - the same
        f"SELECT '{table}', column_name, value, scope_id{given}, sum(change) "
        f"FROM ({' UNION ALL '.join([of_all, *by_values])}) AS parts "
        "GROUP BY column_name, value, scope_id HAVING sum(change) <> 0"
    )
