"""Add the metadata of resources as rows, and the triggers that maintain them."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import (
    APPLICATION_ROLE,
    NONE,
    USER_ID,
    disable_rls,
    enable_rls,
    give_to_system_role,
)

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

TABLE = "metadata_entries"
# Whether rows can be public.
TABLES = {"products": True, "shootings": False, "looks": False, "shots": False}
OF_MY_SCOPES = f"(scope_id = ANY ((SELECT sartiq_organizations())::uuid[]) OR scope_id = {USER_ID} OR public)"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("resource_id", sa.Uuid(), nullable=False),
        sa.Column("pair", sa.String(541), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("resource_id", "pair", name=op.f(f"pk_{TABLE}")),
    )
    op.create_index(f"ix_{TABLE}_pair", TABLE, ["pair", "scope_id", "resource_id"])
    # Triggers write under the system role; callers read the entries of their tenants.
    enable_rls(TABLE, NONE, readable=OF_MY_SCOPES)
    op.execute(f"REVOKE INSERT, UPDATE, DELETE ON {TABLE} FROM {APPLICATION_ROLE}")
    for table in TABLES:
        _create_triggers(table)
        op.execute(f"{_insert(table, table)} WHERE {table}.metadata::text <> '{{}}'")


def downgrade() -> None:
    for table in TABLES:
        for verb in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER {table}_metadata_{verb} ON {table}")
        op.execute(f"DROP FUNCTION sartiq_index_metadata_{table}()")
    disable_rls(TABLE)
    op.drop_table(TABLE)


def _create_triggers(table: str) -> None:
    """Keep the entries of a table's rows. Rows without metadata cost one comparison."""
    columns = ["metadata", "owner_id", "organization_id", *(["public"] if TABLES[table] else [])]
    changed = " OR ".join(
        f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in ("metadata::text", *columns[1:])
    )
    delete = f"DELETE FROM {TABLE} WHERE resource_id = OLD.id"  # noqa: S608 - names come from this module
    insert = _insert(table, "NEW")
    events = {
        "insert": (f"INSERT ON {table}", "NEW.metadata::text <> '{}'", insert),
        "update": (f"UPDATE OF {', '.join(columns)} ON {table}", changed, f"{delete}; {insert}"),
        "delete": (f"DELETE ON {table}", "OLD.metadata::text <> '{}'", delete),
    }
    branches = "".join(
        f"IF TG_OP = '{verb.upper()}' THEN {statements}; END IF; "
        for verb, (_, _, statements) in events.items()
    )
    function = f"sartiq_index_metadata_{table}()"
    # It runs as its owner, because callers may only read entries. The fixed search path keeps a caller
    # from substituting tables or functions that it uses.
    op.execute(
        f"CREATE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, public, pg_temp AS $$ BEGIN {branches} RETURN NULL; END $$"
    )
    give_to_system_role(f"{function}")
    for verb, (event, condition, _) in events.items():
        head = f"CREATE TRIGGER {table}_metadata_{verb} AFTER {event} FOR EACH ROW WHEN"
        op.execute(f"{head} ({condition}) EXECUTE FUNCTION sartiq_index_metadata_{table}()")


def _insert(table: str, row: str) -> str:
    """Return the INSERT of the entries of NEW, or of all rows of the table."""
    public = f"{row}.public" if TABLES[table] else "false"
    pairs = f"json_each_text({row}.metadata) AS entry"
    source = pairs if row == "NEW" else f"{table} CROSS JOIN {pairs}"
    return (
        f"INSERT INTO {TABLE} (resource_id, pair, scope_id, public) "  # noqa: S608 - names come from this module
        f"SELECT {row}.id, entry.key || ':' || entry.value, "
        f"coalesce({row}.organization_id, {row}.owner_id), {public} FROM {source}"
    )
