"""Count the stored bytes of each tenant in the counter cache, and add the function that reads them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import SYSTEM_ROLE, give_to_system_role

revision = "0057"
down_revision = "0056"
branch_labels = None
depends_on = None

LOST = {"users": ("storage_low_at",)}

# The tables of stored files: the tenant of a row, and its bytes.
TABLES = {
    "media_resources": ("coalesce(organization_id, owner_id)", "file_size + variant_bytes"),
    "uploads": ("coalesce(organization_id, owner_id)", "stored_bytes"),
    "exports": ("coalesce(organization_id, owner_id)", "coalesce(file_size, 0)"),
    "account_exports": ("user_id", "coalesce(file_size, 0)"),
}
SOURCES = {
    "INSERT": {"came": ""},
    "UPDATE": {"came": "", "went": "-"},
    "DELETE": {"went": "-"},
}
TRANSITIONS = {"came": "NEW TABLE AS came", "went": "OLD TABLE AS went"}
READING = "sartiq_storage(uuid, uuid)"


def upgrade() -> None:
    op.add_column(
        "media_resources", sa.Column("variant_bytes", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("uploads", sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("users", sa.Column("storage_low_at", sa.DateTime(timezone=True), nullable=True))
    # A file that arrived before has the size that was announced, which is not known of all.
    op.execute("UPDATE uploads SET stored_bytes = coalesce(size, 0) WHERE status = 'received'")
    for table in TABLES:
        _create_triggers(table)
        op.execute(_insert(table, {table: ""}, ", entry", ", 0"))
    _create_function()


def downgrade() -> None:
    # The older release does not know the event.
    op.execute("DELETE FROM webhook_deliveries WHERE event_type = 'storage.low'")
    op.execute(
        "UPDATE webhook_endpoints SET event_types = (event_types::jsonb - 'storage.low')::json "
        "WHERE event_types::jsonb ? 'storage.low'"
    )
    op.execute(f"DROP FUNCTION {READING}")
    for table in TABLES:
        for verb in SOURCES:
            op.execute(f"DROP TRIGGER {table}_bytes_{verb.lower()} ON {table}")
        op.execute(f"DROP FUNCTION sartiq_count_bytes_of_{table}()")
    op.execute("DELETE FROM row_counts WHERE column_name = 'bytes'")
    op.drop_column("users", "storage_low_at")
    op.drop_column("uploads", "stored_bytes")
    op.drop_column("media_resources", "variant_bytes")


def _create_triggers(table: str) -> None:
    """Append the changes of each statement as new rows, so that writers never wait for a shared total."""
    branches = " ".join(
        f"IF TG_OP = '{verb}' THEN {_insert(table, sources)}; END IF;" for verb, sources in SOURCES.items()
    )
    op.execute(
        f"CREATE FUNCTION sartiq_count_bytes_of_{table}() RETURNS trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS "
        f"$$ BEGIN {branches} RETURN NULL; END $$"
    )
    give_to_system_role(f"sartiq_count_bytes_of_{table}()")
    for verb, sources in SOURCES.items():
        transitions = " ".join(TRANSITIONS[name] for name in sources)
        op.execute(
            f"CREATE TRIGGER {table}_bytes_{verb.lower()} AFTER {verb} ON {table} "
            f"REFERENCING {transitions} FOR EACH STATEMENT EXECUTE FUNCTION sartiq_count_bytes_of_{table}()"
        )


def _insert(table: str, sources: dict[str, str], entry_column: str = "", entry: str = "") -> str:
    """Return the INSERT that writes the bytes of the rows of some sources, one row per tenant."""
    tenant, size = TABLES[table]
    rows = " UNION ALL ".join(
        f"SELECT {tenant} AS scope_id, {sign}({size}) AS bytes FROM {source}"  # noqa: S608 - names come from this module
        for source, sign in sources.items()
    )
    return (
        f"INSERT INTO row_counts (table_name, column_name, value, scope_id{entry_column}, number) "  # noqa: S608 - names come from this module
        f"SELECT '{table}', 'bytes', '', scope_id{entry}, sum(bytes) FROM ({rows}) AS changed "
        "WHERE scope_id IS NOT NULL GROUP BY scope_id HAVING sum(bytes) <> 0"
    )


def _create_function() -> None:
    """Create the function that returns the bytes that count for the plan of a tenant, and its tier.

    Its arguments are the organization, whose owner has the plan, or NULL, and the account. It returns no row
    to a caller who does not belong to the tenant. It runs as its owner, the system role: a member sees
    neither the subscription nor the other organizations of its owner.
    """
    tables = ", ".join(f"'{table}'" for table in TABLES)
    op.execute(
        f"""
        CREATE FUNCTION sartiq_storage(
            organization uuid, account uuid, OUT payer_id uuid, OUT used_bytes bigint, OUT tier text
        ) RETURNS SETOF record LANGUAGE plpgsql STABLE SECURITY DEFINER
        SET search_path = pg_catalog, public, pg_temp
        AS $$
        BEGIN
            IF NOT coalesce(
                current_setting('role') = '{SYSTEM_ROLE}'
                OR organization = ANY (sartiq_organizations())
                OR (organization IS NULL AND account = sartiq_user_id())
                OR sartiq_is_superuser(),
                false
            ) THEN
                RETURN;
            END IF;
            payer_id := account;
            IF organization IS NOT NULL THEN
                SELECT user_id INTO payer_id FROM memberships
                WHERE organization_id = organization AND role = 'owner';
            END IF;
            SELECT coalesce(sum(number), 0) INTO used_bytes FROM row_counts
            WHERE table_name IN ({tables}) AND column_name = 'bytes' AND value = '' AND scope_id IN (
                SELECT organization_id FROM memberships WHERE user_id = payer_id AND role = 'owner'
                UNION ALL SELECT payer_id
            );
            SELECT subscriptions.tier INTO tier FROM subscriptions
            WHERE user_id = payer_id AND is_active AND grace_period_end > now();
            RETURN NEXT;
        END $$
        """  # noqa: S608 - names come from this module
    )
    give_to_system_role(READING)
