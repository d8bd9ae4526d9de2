"""Add the function that tells how long the queue takes to start one more generation."""

from alembic import op

from db.migrations.frozen.policies import give_to_system_role

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

# A caller may know the speed of the queue of all tenants, and nothing else about it.
START_INTERVAL = """
CREATE FUNCTION sartiq_start_interval() RETURNS double precision
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
RETURN (
    SELECT avg(extract(epoch FROM completed_at - started_at))::double precision
        / greatest(1, (SELECT count(*) FROM generations WHERE status = 'running'))
    FROM (
        SELECT started_at, completed_at FROM generations WHERE status = 'completed'
        ORDER BY created_at DESC, id DESC LIMIT 20
    ) AS latest
)
"""


def upgrade() -> None:
    op.execute(START_INTERVAL)
    # Only the system role sees the generations of all tenants, so it must own the function.
    give_to_system_role("sartiq_start_interval()")


def downgrade() -> None:
    op.execute("DROP FUNCTION sartiq_start_interval()")
