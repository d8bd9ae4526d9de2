"""Move `updated_at` of a parent once per transaction, not once per savepoint, on PostgreSQL."""

from db.migrations.frozen.change_feed import create_touch_function

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None

TABLES = ("generations", "looks", "shootings", "shots")


def upgrade() -> None:
    for table in TABLES:
        create_touch_function(table)


def downgrade() -> None:
    # The revision before works with these functions, too: only their number of updates differs.
    pass
