"""Create and drop the triggers that write the change feed and move `updated_at`.

Triggers see what the ORM session does not: cascades of foreign keys, bulk statements and imports. They roll
back with the transaction. There are three kinds:

- **Feed triggers** insert a row of `changes` for each row that is created, deleted or moved to another
  tenant, and for each update that moves `updated_at`. An update of internal columns, such as a lease, does
  not move it. Inserts and deletes have one call per statement. Updates have one per row, with a condition
  that PostgreSQL evaluates itself: the ORM updates rows one by one, and a lease then costs no call at all.
- **Touch triggers** move `updated_at` of the parents whose representation contains counts or statuses of the
  row. A parent moves once per transaction, although a batch changes many of its rows. They never wait for a
  lock: a parent that another transaction has locked is left to a periodic task, as a row of
  `pending_touches`. Otherwise workers that finish shots of one shooting would commit one after the other, and
  could deadlock with requests that lock the shooting first.
- **Reference triggers** move `updated_at` where a foreign key sets a reference to null.

Drop and create the triggers of a table that gets an `external_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alembic import op

from db.migrations.frozen.policies import SYSTEM_ROLE, give_to_system_role

Parents = Mapping[str, str]
"""Parent tables by the columns that refer to them."""

MAX_TOUCHED_LENGTH = 100_000
"""The maximum length of the setting with the rows that a transaction has moved; about 2,700 ids."""

_COLUMNS = "organization_id, owner_id, resource_type, resource_id, external_id, change, xid, changed_at"
# The clocks of the database and of the servers differ, but the value must grow.
_TOUCH = "updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')"
# An update that moves a row to another tenant.
_IS_MOVED = (
    "(OLD.organization_id IS DISTINCT FROM NEW.organization_id OR "
    "(OLD.organization_id IS NULL AND NEW.organization_id IS NULL "
    "AND OLD.owner_id IS DISTINCT FROM NEW.owner_id))"
)
# Runs as its owner, the system role. The fixed search path keeps a caller from substituting tables.
_DEFINER = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp"


def create_change_triggers(table: str, resource_type: str, has_external_id: bool = False) -> None:
    """Record the changes of a table of tenants from now on. Existing rows are not recorded.

    Args:
        table: The table, with the columns of `Owned`.
        resource_type: The type in the feed, as the audit log names it.
        has_external_id: Whether the table has a column `external_id`.
    """

    def insert(change: str, source: str = "", prefix: str = "", where: str = "true") -> str:
        values = _select_values(resource_type, change, prefix, has_external_id)
        values += ", pg_current_xact_id()::text::bigint, clock_timestamp()"
        has_tenant = f"coalesce({prefix}organization_id, {prefix}owner_id) IS NOT NULL"
        return f"INSERT INTO changes ({_COLUMNS}) SELECT {values} {source} WHERE {has_tenant} AND {where}; "

    op.execute(
        f"CREATE FUNCTION sartiq_feed_{table}() RETURNS trigger {_DEFINER} AS $$ BEGIN "
        f"IF TG_OP = 'INSERT' THEN {insert('created', 'FROM came')}"
        f"ELSIF TG_OP = 'DELETE' THEN {insert('deleted', 'FROM went')}"
        f"ELSIF {_IS_MOVED} THEN "
        f"{insert('deleted', prefix='OLD.')}{insert('created', prefix='NEW.')}"
        f"ELSE {insert('updated', prefix='NEW.')}"
        "END IF; RETURN NULL; END $$"
    )
    give_to_system_role(f"sartiq_feed_{table}()")
    function = f"EXECUTE FUNCTION sartiq_feed_{table}()"
    op.execute(
        f"CREATE TRIGGER {table}_feed_insert AFTER INSERT ON {table} "
        f"REFERENCING NEW TABLE AS came FOR EACH STATEMENT {function}"
    )
    op.execute(
        f"CREATE TRIGGER {table}_feed_delete AFTER DELETE ON {table} "
        f"REFERENCING OLD TABLE AS went FOR EACH STATEMENT {function}"
    )
    op.execute(
        f"CREATE TRIGGER {table}_feed_update AFTER UPDATE ON {table} FOR EACH ROW "
        f"WHEN (OLD.updated_at <> NEW.updated_at OR {_IS_MOVED}) {function}"
    )


def drop_change_triggers(table: str) -> None:
    """Undo `create_change_triggers`."""
    _drop(table, "feed", ("insert", "update", "delete"))


def create_touch_triggers(
    table: str,
    watched: Sequence[str],
    insert: Parents | None = None,
    update: Parents | None = None,
    delete: Parents | None = None,
) -> None:
    """Move `updated_at` of the parents of a row, whose representation contains something of the row.

    Args:
        table: The table of the row.
        watched: The columns whose changes move the parents of `update`.
        insert: The parents that a new row moves. Leave out those that the code which creates the row changes
            in the same transaction anyway.
        update: The parents that a change of one of the columns `watched` moves.
        delete: The parents that a deletion moves.
    """

    def touch(parents: Parents | None, ids: str) -> str:
        calls = (
            f"PERFORM sartiq_touch_{parent}({ids.format(column=column)});"
            for column, parent in (parents or {}).items()
        )
        return " ".join(calls) or "NULL;"

    def select_ids(source: str) -> str:
        return f"ARRAY(SELECT DISTINCT {{column}} FROM {source} WHERE {{column}} IS NOT NULL)"  # noqa: S608 - names come from migrations

    op.execute(
        f"CREATE FUNCTION sartiq_touched_by_{table}() RETURNS trigger {_DEFINER} AS $$ BEGIN "
        f"IF TG_OP = 'INSERT' THEN {touch(insert, select_ids('came'))} "
        f"ELSIF TG_OP = 'DELETE' THEN {touch(delete, select_ids('went'))} "
        f"ELSE {touch(update, 'ARRAY[NEW.{column}]')} END IF; RETURN NULL; END $$"
    )
    give_to_system_role(f"sartiq_touched_by_{table}()")
    function = f"EXECUTE FUNCTION sartiq_touched_by_{table}()"
    for verb, parents, transition in (
        ("insert", insert, "NEW TABLE AS came"),
        ("delete", delete, "OLD TABLE AS went"),
    ):
        if parents:
            op.execute(
                f"CREATE TRIGGER {table}_touch_{verb} AFTER {verb.upper()} ON {table} "
                f"REFERENCING {transition} FOR EACH STATEMENT {function}"
            )
    if update:
        is_changed = " OR ".join(f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in watched)
        op.execute(
            f"CREATE TRIGGER {table}_touch_update AFTER UPDATE ON {table} FOR EACH ROW "
            f"WHEN ({is_changed}) {function}"
        )


def drop_touch_triggers(table: str, *verbs: str) -> None:
    """Undo `create_touch_triggers` for some of `insert`, `update` and `delete`."""
    _drop(table, "touch", verbs)


def create_reference_triggers(table: str, columns: Sequence[str]) -> None:
    """Move `updated_at` of a row when a foreign key sets one of `columns` to null."""
    cleared = " OR ".join(f"(OLD.{column} IS NOT NULL AND NEW.{column} IS NULL)" for column in columns)
    op.execute(
        f"CREATE FUNCTION sartiq_reference_{table}() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond'); "
        "RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_reference_update BEFORE UPDATE ON {table} FOR EACH ROW "
        f"WHEN (OLD.updated_at = NEW.updated_at AND ({cleared})) "
        f"EXECUTE FUNCTION sartiq_reference_{table}()"
    )


def drop_reference_triggers(table: str) -> None:
    """Undo `create_reference_triggers`."""
    _drop(table, "reference", ["update"])


def create_touch_function(parent: str) -> None:
    """Create or replace the function with which touch triggers move `updated_at` of rows.

    It moves a row once per transaction: a batch of 500 approvals of one shooting writes one update of the
    shooting and one feed entry of it. A second update of a row would also wait for locks, because PostgreSQL
    checks the foreign keys of a row again that its transaction has written. Two checks leave out rows:

    - `xmin` is the id of the running transaction if that wrote the row outside of savepoints. A savepoint has
      an id of its own.
    - A setting contains the ids of the rows that this function has moved or left to the periodic task. It is
      local to the transaction, so a rollback to a savepoint undoes it together with the update. Beyond
      `MAX_TOUCHED_LENGTH` it does not grow, and further rows are moved once per savepoint.
    """
    setting = f"sartiq.touched_{parent}"
    function = (
        f"CREATE OR REPLACE FUNCTION sartiq_touch_{parent}(ids uuid[]) RETURNS void {_DEFINER} AS $$ "  # noqa: S608 - names come from migrations
        "DECLARE candidates uuid[]; unlocked uuid[]; "
        # NULL in a session that never had the setting, and empty after a transaction that had it.
        f"touched text := coalesce(current_setting('{setting}', true), ''); BEGIN "
        f"candidates := ARRAY(SELECT id FROM {parent} WHERE id = ANY (ids) "
        "AND xmin <> pg_current_xact_id()::xid AND position(id::text IN touched) = 0); "
        "IF cardinality(candidates) = 0 THEN RETURN; END IF; "
        f"unlocked := ARRAY(SELECT id FROM {parent} WHERE id = ANY (candidates) "
        "ORDER BY id FOR NO KEY UPDATE SKIP LOCKED); "
        f"UPDATE {parent} SET {_TOUCH} WHERE id = ANY (unlocked); "
        "IF cardinality(unlocked) < cardinality(candidates) THEN "
        f"INSERT INTO pending_touches (table_name, row_id) SELECT '{parent}', row_id "
        "FROM unnest(candidates) AS row_id WHERE row_id <> ALL (unlocked); END IF; "
        "touched := touched || array_to_string(candidates, ',') || ','; "
        f"IF length(touched) <= {MAX_TOUCHED_LENGTH} THEN "
        f"PERFORM set_config('{setting}', touched, true); END IF; END $$"
    )
    op.execute(f"GRANT CREATE ON SCHEMA public TO {SYSTEM_ROLE}")
    # Only the owner can replace a function. A login that does not inherit is a member, but no owner.
    op.execute(f"SET LOCAL ROLE {SYSTEM_ROLE}")
    op.execute(function)
    # A caller could otherwise move the rows of other tenants.
    op.execute(f"REVOKE EXECUTE ON FUNCTION sartiq_touch_{parent}(uuid[]) FROM PUBLIC")
    op.execute("SET LOCAL ROLE NONE")
    op.execute(f"REVOKE CREATE ON SCHEMA public FROM {SYSTEM_ROLE}")


def drop_touch_function(parent: str) -> None:
    """Undo `create_touch_function`."""
    op.execute(f"DROP FUNCTION sartiq_touch_{parent}(uuid[])")


def _select_values(resource_type: str, change: str, prefix: str, has_external_id: bool) -> str:
    external_id = f"{prefix}external_id" if has_external_id else "NULL"
    personal_owner = f"CASE WHEN {prefix}organization_id IS NULL THEN {prefix}owner_id END"
    return (
        f"{prefix}organization_id, {personal_owner}, '{resource_type}', {prefix}id, {external_id}, '{change}'"
    )


def _drop(table: str, kind: str, verbs: Sequence[str]) -> None:
    functions = {"feed": "feed", "touch": "touched_by", "reference": "reference"}
    for verb in verbs:
        op.execute(f"DROP TRIGGER {table}_{kind}_{verb} ON {table}")
    op.execute(f"DROP FUNCTION sartiq_{functions[kind]}_{table}()")
