"""Add the links that share predictions, so that they can be listed and ended."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import disable_rls, enable_rls, parent_is_visible

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

TABLE = "prediction_shares"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=False),
        sa.Column("membership_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{parent}.id"], name=op.f(f"fk_{TABLE}_{column}"), ondelete="CASCADE"
            )
            for column, parent in (
                ("prediction_id", "predictions"),
                ("created_by_id", "users"),
                ("membership_id", "memberships"),
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
    )
    op.create_index(f"ix_{TABLE}_prediction", TABLE, ["prediction_id", "created_at", "id"])
    for column in ("created_by_id", "membership_id", "expires_at"):
        op.create_index(op.f(f"ix_{TABLE}_{column}"), TABLE, [column])
    enable_rls(TABLE, parent_is_visible("predictions", "prediction_id"))


def downgrade() -> None:
    disable_rls(TABLE)
    op.drop_table(TABLE)
