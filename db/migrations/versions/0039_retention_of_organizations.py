"""Add the retention of organizations, and let addresses of audit events be deleted, and nothing else."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import SYSTEM_ROLE

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

SETTINGS = ("retention_uploads_days", "retention_rejected_predictions_days", "retention_audit_addresses_days")
COLUMNS = (
    "id", "organization_id", "account_id", "actor_type", "actor_id", "actor_email", "action", "target_type",
    "target_id", "outcome", "reason", "request_id", "created_at",
)  # fmt: skip
"""The columns that never change, without `changes`: PostgreSQL does not compare values of the type JSON."""
HAS_ADDRESS = sa.text("address IS NOT NULL")
INDEX = "ix_audit_events_address"

# The other updates that the trigger accepts: the next number of a refused call, as since revision 0025.
IS_COUNTED = (
    "NEW.count = OLD.count + 1 AND OLD.outcome = 'refused' AND {same_address} AND {same_changes} AND {same}"
)
IS_CLEARED = (
    "NEW.address IS NULL AND OLD.address IS NOT NULL AND NEW.count = OLD.count "
    "AND NEW.updated_at = OLD.updated_at AND {same_changes} AND {same}"
)
TRIGGER = """
    CREATE TRIGGER audit_events_change BEFORE UPDATE ON audit_events
    FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse_change_of_audit_events()
"""
SIGNATURE = "sartiq_clear_audit_addresses(uuid, timestamptz, integer)"
# It runs with the rights of its caller. SKIP LOCKED: a refused call may be counted at the same moment.
CLEAR = """
    CREATE FUNCTION sartiq_clear_audit_addresses(organization uuid, before timestamptz, batch_size integer)
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
"""


def upgrade() -> None:
    for name in SETTINGS:
        op.add_column("organizations", sa.Column(name, sa.Integer(), nullable=True))
    op.create_index(INDEX, "audit_events", ["organization_id", "created_at"], postgresql_where=HAS_ADDRESS)
    _replace_trigger(f"NOT (({IS_COUNTED}) OR ({IS_CLEARED}))")
    op.execute(CLEAR)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {SIGNATURE} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {SYSTEM_ROLE}")
    op.execute(f"GRANT UPDATE (address) ON audit_events TO {SYSTEM_ROLE}")


def downgrade() -> None:
    op.execute(f"REVOKE UPDATE (address) ON audit_events FROM {SYSTEM_ROLE}")
    op.execute(f"DROP FUNCTION {SIGNATURE}")
    _replace_trigger(f"NOT ({IS_COUNTED})")
    op.drop_index(INDEX, "audit_events")
    for name in SETTINGS:
        op.drop_column("organizations", name)


def _replace_trigger(condition: str) -> None:
    same = "{} IS NOT DISTINCT FROM {}"
    condition = condition.format(
        same=" AND ".join(same.format(f"NEW.{column}", f"OLD.{column}") for column in COLUMNS),
        same_address=same.format("NEW.address", "OLD.address"),
        same_changes=same.format("CAST(NEW.changes AS text)", "CAST(OLD.changes AS text)"),
    )
    op.execute("DROP TRIGGER audit_events_change ON audit_events")
    op.execute(TRIGGER.format(condition=condition))
