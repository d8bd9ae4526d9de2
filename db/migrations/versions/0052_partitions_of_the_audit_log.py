"""Partition the audit log by month, with half of the bytes in indexes.

The table becomes the first partition without a copy. What takes long, its indexes and the check of its times,
runs before the swap and blocks no request.
"""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import (
    IN_CALLER_ORGANIZATIONS,
    SYSTEM_ROLE,
    USER_ID,
    deny_all,
    disable_rls,
    enable_rls,
)

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None

TABLE, FIRST, LEFT = "audit_events", "audit_events_first", "audit_events_left"
BOUND = "audit_events_bound"
KEY = "audit_events_first_pkey"
MINE = f"({IN_CALLER_ORGANIZATIONS} OR (organization_id IS NULL AND account_id = {USER_ID}))"
PRIVILEGES = "SELECT, INSERT"
MAX_WAIT = "60s"
"""How long the steps before the swap wait for older transactions. Requests do not wait for these steps."""

# No ids behind the times: events of one microsecond are sorted. A target belongs to one tenant, and an actor
# to a few. The addresses are found by day, because equal keys of an index take little space.
INDEXES = {
    "organization": "(organization_id, created_at)",
    "actor": "(actor_id, created_at)",
    "action": "(organization_id, action, created_at)",
    "target": "(target_id, created_at)",
    "target_type": "(organization_id, target_type, created_at)",
    "denied": "(organization_id, created_at) WHERE outcome = 'refused'",
    "account": "(account_id, created_at) WHERE account_id IS NOT NULL",
    "address": ("(organization_id, CAST(created_at AT TIME ZONE 'UTC' AS date)) WHERE address IS NOT NULL"),
}
FORMER_INDEXES = {
    **{
        name: ", ".join(["organization_id", *columns, "created_at", "id"])
        for name, *columns in (
            ("organization",), ("actor", "actor_id"), ("action", "action"), ("target", "target_id"),
            ("target_type", "target_type"), ("outcome", "outcome"),
        )
    },
    "account": "account_id, created_at, id",
}  # fmt: skip

# The month after the next one: if the migration is interrupted, no event violates the check for a month.
NEXT_BOUND = "SELECT CAST(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months' AS date)::text"
IS_INVALID = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
TRIGGERS = f"""
    SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger
    WHERE tgrelid = '{TABLE}'::regclass AND NOT tgisinternal AND tgparentid = 0 ORDER BY tgname
"""  # noqa: S608 - a constant of this module

ENDS = r"'TO \(''([^'']+)''\)'"
"""The pattern of the end of a partition in its bounds."""
RETENTION = "sartiq_audit_retention_months"
MAINTENANCE = "maintain_audit_partitions"
# It runs as the owner of the tables, the only role that may create and drop partitions. So it takes no
# arguments: what it drops depends on the clock and on a function that only the owner can replace. The lock of
# the parent lets two calls wait for each other, and no request for them. A table is made before it is
# attached, which locks the parent less than PARTITION OF. Release 0.2.0 requires the two policies of each
# protected table; without privileges, they show a partition to no role.
CREATE_MAINTENANCE = rf"""
    CREATE FUNCTION {MAINTENANCE}() RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
    SET lock_timeout = '3s' AS $$
    DECLARE
        this_month CONSTANT timestamptz := date_trunc('month', now());
        retention CONSTANT integer := public.{RETENTION}();
        former_setting CONSTANT text := coalesce(current_setting('sartiq.migrating', true), '');
        wanted record;
        existing record;
        dropped text[] := '{{}}';
    BEGIN
        PERFORM set_config('sartiq.migrating', 'on', true);
        LOCK TABLE public.audit_events IN SHARE UPDATE EXCLUSIVE MODE;
        FOR wanted IN
            SELECT 'audit_events_default' AS name, 'DEFAULT' AS bounds, NULL::timestamptz AS begins
            UNION ALL
            SELECT 'audit_events_' || to_char(month, 'YYYY_MM'),
                format('FOR VALUES FROM (%L) TO (%L)', month, month + interval '1 month'), month
            FROM generate_series(this_month, this_month + interval '24 months', interval '1 month') AS month
            ORDER BY begins NULLS FIRST
        LOOP
            CONTINUE WHEN to_regclass('public.' || wanted.name) IS NOT NULL OR EXISTS (
                SELECT FROM pg_class
                WHERE oid = to_regclass('public.{FIRST}') AND wanted.begins <
                    substring(pg_get_expr(relpartbound, oid) FROM {ENDS})::timestamptz
            );
            BEGIN
                EXECUTE format('
                    CREATE TABLE public.%1$I (LIKE public.audit_events INCLUDING DEFAULTS);
                    ALTER TABLE public.%1$I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
                    CREATE POLICY system ON public.%1$I TO {SYSTEM_ROLE}
                        USING (current_user = ''{SYSTEM_ROLE}'');
                    CREATE POLICY migrating ON public.%1$I TO CURRENT_USER
                        USING (current_setting(''sartiq.migrating'', true) = ''on'');
                    CREATE TRIGGER audit_events_truncate BEFORE TRUNCATE ON public.%1$I
                        FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change_of_audit_events();
                    ALTER TABLE public.audit_events ATTACH PARTITION public.%1$I %2$s
                ', wanted.name, wanted.bounds);
            EXCEPTION WHEN check_violation THEN
                RAISE WARNING '% cannot be created: its events are in audit_events_default', wanted.name;
            END;
        END LOOP;
        FOR existing IN
            SELECT relname AS name, substring(pg_get_expr(relpartbound, oid) FROM {ENDS})::timestamptz AS ends
            FROM pg_inherits JOIN pg_class ON oid = inhrelid
            WHERE inhparent = 'public.audit_events'::regclass ORDER BY ends
        LOOP
            -- Null without a retention, and for the default partition.
            CONTINUE WHEN (existing.ends <= this_month - make_interval(months => greatest(retention, 1))
                AND retention IS NOT NULL) IS NOT TRUE;
            INSERT INTO public.audit_events (
                id, actor_type, action, target_type, outcome, changes, request_id, created_at, updated_at
            ) VALUES (
                gen_random_uuid(), 'system', 'drop_audit_partition', 'audit_partition', 'succeeded',
                json_build_array(
                    json_build_object('field', 'name', 'before', existing.name, 'after', NULL),
                    json_build_object('field', 'created_before', 'before', existing.ends, 'after', NULL)
                ),
                '{MAINTENANCE}', now(), now()
            );
            EXECUTE format('DROP TABLE public.%I', existing.name);
            dropped := dropped || existing.name::text;
        END LOOP;
        PERFORM set_config('sartiq.migrating', former_setting, true);
        RETURN dropped;
    END $$
"""  # noqa: S608 - constants of this module

SIGNATURE = "sartiq_clear_audit_addresses(organization uuid, before timestamptz, batch_size integer)"
# It runs with the rights of its caller. SKIP LOCKED: a denied request may be counted at the same moment. The
# days are those of the index, and the time limits the partitions.
CLEAR = f"""
    CREATE OR REPLACE FUNCTION {SIGNATURE}
    RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
        WITH batch AS (
            SELECT id, created_at FROM audit_events
            WHERE organization_id = $1 AND created_at < $2 AND address IS NOT NULL
                AND CAST(created_at AT TIME ZONE 'UTC' AS date) <= CAST($2 AT TIME ZONE 'UTC' AS date)
            ORDER BY CAST(created_at AT TIME ZONE 'UTC' AS date) LIMIT $3 FOR UPDATE SKIP LOCKED
        ), cleared AS (
            UPDATE audit_events SET address = NULL FROM batch
            WHERE audit_events.id = batch.id AND audit_events.created_at = batch.created_at
                AND audit_events.created_at < $2
            RETURNING 1
        )
        SELECT count(*) FROM cleared
    $$
"""  # noqa: S608 - constants of this module
FORMER_CLEAR = f"""
    CREATE OR REPLACE FUNCTION {SIGNATURE}
    RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
        WITH batch AS (
            SELECT id FROM audit_events
            WHERE organization_id = $1 AND created_at < $2 AND address IS NOT NULL
            ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED
        ), cleared AS (
            UPDATE audit_events SET address = NULL FROM batch WHERE audit_events.id = batch.id RETURNING 1
        )
        SELECT count(*) FROM cleared
    $$
"""  # noqa: S608 - constants of this module


def upgrade() -> None:
    bound = op.get_bind().scalar(sa.text(NEXT_BOUND))
    _prepare(f"'{bound} 00:00:00+00'")
    _swap(f"'{bound} 00:00:00+00'")
    op.execute(
        f"CREATE FUNCTION {RETENTION}() RETURNS integer LANGUAGE sql STABLE RETURN CAST(NULL AS integer)"
    )
    op.execute(CREATE_MAINTENANCE)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {MAINTENANCE} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {MAINTENANCE} TO {SYSTEM_ROLE}")
    op.execute(f"SELECT {MAINTENANCE}()")
    op.execute(CLEAR)


def _prepare(bound: str) -> None:
    """Build the indexes of a partition, and check that all times are before the bound."""
    # An earlier attempt that was interrupted has left it, and indexes; one that was not completed is invalid.
    op.execute(f"ALTER TABLE {TABLE} DROP CONSTRAINT IF EXISTS {BOUND}")
    op.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT {BOUND} CHECK (created_at < {bound}) NOT VALID")
    with op.get_context().autocommit_block():
        op.execute(f"SET lock_timeout = '{MAX_WAIT}'")
        op.execute(f"ALTER TABLE {TABLE} VALIDATE CONSTRAINT {BOUND}")
        for name, columns in {KEY: "(id, created_at)", **_name_indexes(FIRST)}.items():
            if op.get_bind().scalar(sa.text(IS_INVALID), {"name": name}):
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            unique = "UNIQUE " if name == KEY else ""
            op.execute(f"CREATE {unique}INDEX CONCURRENTLY IF NOT EXISTS {name} ON {TABLE} {columns}")
        op.execute("RESET lock_timeout")


def _swap(bound: str) -> None:
    """Give the name of the table to a partitioned one, and attach the table to it."""
    op.execute(f"LOCK TABLE {TABLE}")
    triggers = op.get_bind().execute(sa.text(TRIGGERS)).all()
    op.execute(f"ALTER TABLE {TABLE} RENAME TO {FIRST}")
    for name in (*FORMER_INDEXES, "address"):
        op.drop_index(f"ix_{TABLE}_{name}", FIRST)
    op.execute(f"ALTER TABLE {FIRST} DROP CONSTRAINT pk_{TABLE}")
    op.execute(f"ALTER TABLE {FIRST} ADD CONSTRAINT {KEY} PRIMARY KEY USING INDEX {KEY}")
    # ATTACH creates the triggers of rows for the partition. No role but the owner gets at a partition itself.
    for name in ("change", "delete"):
        op.execute(f"DROP TRIGGER {TABLE}_{name} ON {FIRST}")
    disable_rls(FIRST)
    deny_all(FIRST, "SELECT")
    op.execute(f"REVOKE ALL ON {FIRST} FROM {SYSTEM_ROLE}")
    op.execute(f"CREATE TABLE {TABLE} (LIKE {FIRST} INCLUDING DEFAULTS) PARTITION BY RANGE (created_at)")
    op.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT pk_{TABLE} PRIMARY KEY (id, created_at)")
    for name, columns in _name_indexes(TABLE, "ix_").items():
        op.execute(f"CREATE INDEX {name} ON {TABLE} {columns}")
    _protect(triggers)
    op.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {FIRST} FOR VALUES FROM (MINVALUE) TO ({bound})")
    op.execute(f"ALTER TABLE {FIRST} DROP CONSTRAINT {BOUND}")


def _name_indexes(table: str, prefix: str = "") -> dict[str, str]:
    return {f"{prefix}{table}_{name}": columns for name, columns in INDEXES.items()}


def _protect(triggers: list[tuple[str, str]]) -> None:
    """Give the new table the policies, privileges and triggers of the former one."""
    enable_rls(TABLE, MINE, privileges=PRIVILEGES)
    op.execute(f"GRANT UPDATE (count, updated_at, address) ON {TABLE} TO {SYSTEM_ROLE}")
    for _, definition in triggers:
        op.execute(definition)


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {MAINTENANCE}()")
    op.execute(f"DROP FUNCTION {RETENTION}()")
    triggers = op.get_bind().execute(sa.text(TRIGGERS)).all()
    op.execute(f"ALTER TABLE {TABLE} RENAME TO {LEFT}")
    op.execute(f"CREATE TABLE {TABLE} (LIKE {LEFT} INCLUDING DEFAULTS)")
    op.execute(f"INSERT INTO {TABLE} SELECT * FROM {LEFT}")  # noqa: S608 - constants of this module
    op.execute(f"DROP TABLE {LEFT}")
    op.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT pk_{TABLE} PRIMARY KEY (id)")
    for name, columns in FORMER_INDEXES.items():
        op.execute(f"CREATE INDEX ix_{TABLE}_{name} ON {TABLE} ({columns})")
    op.create_index(
        f"ix_{TABLE}_address",
        TABLE,
        ["organization_id", "created_at"],
        postgresql_where=sa.text("address IS NOT NULL"),
    )
    _protect(triggers)
    op.execute(FORMER_CLEAR)
