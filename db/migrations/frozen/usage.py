"""Create and drop the triggers that record usage.

Triggers see what the ORM session does not (cascades of foreign keys, bulk statements) and roll back with the
transaction. `db/usage/queries.py` explains the design.
"""

from __future__ import annotations

from alembic import op

from db.migrations.frozen.policies import give_to_system_role

KEY = "organization_id, dimension, key, day, entry"
AMOUNTS = ("credits", "generations", "failures", "storage_bytes")
NO_KEY = "'00000000000000000000000000000000'"
"""The `entry` of a compacted record, and the `key` of a row that has none, in SQL."""
FAILED = "('failed', 'expired')"
_MEMBERS = {
    "model": "model_id",
    "member": "owner_id",
    "api_key": "api_key_id",
    "product": "product_id",
}
_Statement = tuple[str, str, dict[str, str]]
"""The arguments of `build_record`."""
_STORAGE_COLUMNS = "organization_id, owner_id, file_size, model_id, api_key_id, product_id"


def create_usage_triggers() -> None:
    """Record the usage of all generations and stored images from now on."""
    for table, changes in _CHANGES.items():
        _create_function(table, changes)
    for name, table, event in _TRIGGERS:
        op.execute(f"CREATE TRIGGER {name} AFTER {event} EXECUTE FUNCTION sartiq_record_{table}()")


def drop_usage_triggers() -> None:
    """Undo `create_usage_triggers`."""
    for name, table, _ in _TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON {table}")
    for table in _CHANGES:
        op.execute(f"DROP FUNCTION sartiq_record_{table}()")


def build_record(row: str, time: str, amounts: dict[str, str]) -> str:
    """Return the INSERT that records amounts of one row, once per dimension.

    Args:
        row: `NEW` or `OLD`.
        time: The column with the time at which the amounts count.
        amounts: SQL expressions by column; absent ones are 0.
    """
    groups = "SELECT 'day' AS dimension, CAST(NULL AS uuid) AS key" + "".join(
        f" UNION ALL SELECT '{dimension}', {row}.{column}" for dimension, column in _MEMBERS.items()
    )
    values = ", ".join(amounts.get(name, "0") for name in AMOUNTS)
    # Each change is a row of its own: with one total, all writers of a tenant would wait for each other.
    return (
        f"INSERT INTO usage_records ({KEY}, {', '.join(AMOUNTS)}) "  # noqa: S608 - names come from this module
        f"SELECT {row}.organization_id, dimension, coalesce(key, {NO_KEY}), "
        f"CAST({time} AT TIME ZONE 'UTC' AS date), gen_random_uuid(), {values} "
        f"FROM ({groups}) AS changed WHERE {row}.organization_id IS NOT NULL"
    )


def _is_failed(row: str) -> str:
    return f"CASE WHEN {row}.status IN {FAILED} THEN 1 ELSE 0 END"


_CREATED = (
    "NEW",
    "NEW.created_at",
    {"credits": "NEW.cost_credits", "generations": "1", "failures": _is_failed("NEW")},
)
_ENDED = (
    "NEW",
    "NEW.updated_at",
    {
        "credits": "NEW.cost_credits - OLD.cost_credits",
        "failures": f"{_is_failed('NEW')} - {_is_failed('OLD')}",
    },
)
_STORED = ("NEW", "NEW.created_at", {"storage_bytes": "NEW.file_size"})
_REMOVED = ("OLD", "OLD.created_at", {"storage_bytes": "-OLD.file_size"})
_HAS_ENDED = f"NEW.cost_credits <> OLD.cost_credits OR {_is_failed('NEW')} <> {_is_failed('OLD')}"

_TRIGGERS = (
    ("generations_usage_insert", "generations", "INSERT ON generations FOR EACH ROW"),
    (
        "generations_usage_update",
        "generations",
        f"UPDATE OF status, cost_credits ON generations FOR EACH ROW WHEN ({_HAS_ENDED})",
    ),
    ("media_resources_usage_insert", "media_resources", "INSERT ON media_resources FOR EACH ROW"),
    ("media_resources_usage_delete", "media_resources", "DELETE ON media_resources FOR EACH ROW"),
    (
        "media_resources_usage_update",
        "media_resources",
        f"UPDATE OF {_STORAGE_COLUMNS} ON media_resources FOR EACH ROW",
    ),
)
_CHANGES: dict[str, dict[str, tuple[_Statement, ...]]] = {
    "generations": {"INSERT": (_CREATED,), "UPDATE": (_ENDED,)},
    "media_resources": {"INSERT": (_STORED,), "DELETE": (_REMOVED,), "UPDATE": (_REMOVED, _STORED)},
}


def _create_function(table: str, changes: dict[str, tuple[_Statement, ...]]) -> None:
    branches = " ".join(
        f"IF TG_OP = '{verb}' THEN {' '.join(f'{build_record(*statement)};' for statement in statements)} "
        "END IF;"
        for verb, statements in changes.items()
    )
    # The function runs as its owner, the system role, because callers only read usage. The fixed search path
    # keeps a caller from substituting tables or functions that it uses.
    op.execute(
        f"CREATE FUNCTION sartiq_record_{table}() RETURNS trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS "
        f"$$ BEGIN {branches} RETURN NULL; END $$"
    )
    give_to_system_role(f"sartiq_record_{table}()")
