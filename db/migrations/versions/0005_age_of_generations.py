"""Index the oldest generations per status."""

from db.migrations.batch import alter_table as changing

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with changing("generations") as table:
        table.create_index("ix_generations_age", ["status", "created_at", "id"])


def downgrade() -> None:
    with changing("generations") as table:
        table.drop_index("ix_generations_age")
