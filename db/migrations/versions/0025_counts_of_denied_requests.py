"""Add a count to audit events, so that repeated denied requests are one event."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import SYSTEM_ROLE

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TRIGGER = """
    CREATE TRIGGER audit_events_{name} BEFORE {verbs} ON audit_events
    FOR EACH ROW {condition} EXECUTE FUNCTION refuse_change_of_audit_events()
"""
IS_COUNTED = "NEW.count = OLD.count + 1 AND OLD.outcome = 'refused'"


def upgrade() -> None:
    # With a default, PostgreSQL does not rewrite the table, and no trigger fires.
    op.add_column("audit_events", sa.Column("count", sa.Integer(), nullable=False, server_default="1"))
    others = "(to_jsonb({}) - 'count' - 'updated_at')"
    unchanged = f"{others.format('NEW')} = {others.format('OLD')}"
    op.execute("DROP TRIGGER audit_events_change ON audit_events")
    op.execute(TRIGGER.format(name="delete", verbs="DELETE", condition=""))
    condition = f"WHEN (NOT ({IS_COUNTED} AND {unchanged}))"
    op.execute(TRIGGER.format(name="change", verbs="UPDATE", condition=condition))
    op.execute(f"GRANT UPDATE (count, updated_at) ON audit_events TO {SYSTEM_ROLE}")


def downgrade() -> None:
    op.execute(f"REVOKE UPDATE (count, updated_at) ON audit_events FROM {SYSTEM_ROLE}")
    for name in ("delete", "change"):
        op.execute(f"DROP TRIGGER audit_events_{name} ON audit_events")
    op.execute(TRIGGER.format(name="change", verbs="UPDATE OR DELETE", condition=""))
    op.drop_column("audit_events", "count")
