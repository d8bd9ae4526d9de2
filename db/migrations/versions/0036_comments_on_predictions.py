"""Add comments on predictions."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import disable_rls, enable_rls

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

TABLE = "prediction_comments"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=True),
        sa.Column("author_name", sa.String(320), nullable=False),
        sa.Column("text", sa.String(2000), nullable=False),
        sa.Column("position_x", sa.Double(), nullable=True),
        sa.Column("position_y", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{parent}.id"], name=op.f(f"fk_{TABLE}_{column}"), ondelete=rule
            )
            for column, parent, rule in (
                ("owner_id", "users", "RESTRICT"),
                ("organization_id", "organizations", "RESTRICT"),
                ("prediction_id", "predictions", "CASCADE"),
                ("author_id", "users", "SET NULL"),
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
    )
    op.create_index(f"ix_{TABLE}_owner", TABLE, ["owner_id", "organization_id", "created_at", "id"])
    op.create_index(f"ix_{TABLE}_organization", TABLE, ["organization_id", "created_at", "id"])
    op.create_index(f"ix_{TABLE}_prediction", TABLE, ["prediction_id", "created_at", "id"])
    op.create_index(op.f(f"ix_{TABLE}_author_id"), TABLE, ["author_id"])
    enable_rls(TABLE)


def downgrade() -> None:
    disable_rls(TABLE)
    op.drop_table(TABLE)
