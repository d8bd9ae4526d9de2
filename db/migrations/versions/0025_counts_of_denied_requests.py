"""Add a count to audit events, so that repeated denied requests are one event."""

import sqlalchemy as sa
from alembic import op

from db.rls.policies import is_postgresql
from db.rls.session_role import SYSTEM_ROLE

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

REFUSAL = "events of the audit log are neither changed nor deleted"
COLUMNS = (
    "id", "organization_id", "account_id", "actor_type", "actor_id", "actor_email", "action", "target_type",
    "target_id", "outcome", "reason", "changes", "address", "request_id", "created_at",
)  # fmt: skip
ON_SQLITE = """
    CREATE TRIGGER audit_events_update BEFORE UPDATE ON audit_events {condition}
    BEGIN SELECT RAISE(ABORT, '{refusal}'); END
"""
ON_POSTGRESQL = """
    CREATE TRIGGER audit_events_{name} BEFORE {verbs} ON audit_events
    FOR EACH ROW {condition} EXECUTE FUNCTION refuse_change_of_audit_events()
"""
IS_COUNTED = "NEW.count = OLD.count + 1 AND OLD.outcome = 'refused'"


def upgrade() -> None:
    # With a default, neither database rewrites the table, which would fire or drop the triggers.
    op.add_column("audit_events", sa.Column("count", sa.Integer(), nullable=False, server_default="1"))
    if is_postgresql():
        others = "(to_jsonb({}) - 'count' - 'updated_at')"
        unchanged = f"{others.format('NEW')} = {others.format('OLD')}"
        op.execute("DROP TRIGGER audit_events_change ON audit_events")
        op.execute(ON_POSTGRESQL.format(name="delete", verbs="DELETE", condition=""))
        condition = f"WHEN (NOT ({IS_COUNTED} AND {unchanged}))"
        op.execute(ON_POSTGRESQL.format(name="change", verbs="UPDATE", condition=condition))
        op.execute(f"GRANT UPDATE (count, updated_at) ON audit_events TO {SYSTEM_ROLE}")
    else:
        unchanged = " AND ".join(f"NEW.{column} IS OLD.{column}" for column in COLUMNS)
        op.execute("DROP TRIGGER audit_events_update")
        condition = f"WHEN NOT ({IS_COUNTED} AND {unchanged})"
        op.execute(ON_SQLITE.format(condition=condition, refusal=REFUSAL))


def downgrade() -> None:
    if is_postgresql():
        op.execute(f"REVOKE UPDATE (count, updated_at) ON audit_events FROM {SYSTEM_ROLE}")
        for name in ("delete", "change"):
            op.execute(f"DROP TRIGGER audit_events_{name} ON audit_events")
        op.execute(ON_POSTGRESQL.format(name="change", verbs="UPDATE OR DELETE", condition=""))
    else:
        op.execute("DROP TRIGGER audit_events_update")
        op.execute(ON_SQLITE.format(condition="", refusal=REFUSAL))
    op.drop_column("audit_events", "count")
