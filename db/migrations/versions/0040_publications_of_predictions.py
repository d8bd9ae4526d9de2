"""Add the publications of predictions, with the queue of their variants."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import disable_rls, enable_rls

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

TABLE = "prediction_publications"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leased_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.String(100), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
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
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
        sa.UniqueConstraint("prediction_id", name=op.f(f"uq_{TABLE}_prediction_id")),
        sa.UniqueConstraint("token_hash", name=op.f(f"uq_{TABLE}_token_hash")),
    )
    op.create_index(f"ix_{TABLE}_owner", TABLE, ["owner_id", "organization_id", "created_at", "id"])
    op.create_index(f"ix_{TABLE}_organization", TABLE, ["organization_id", "created_at", "id"])
    op.create_index(f"ix_{TABLE}_queue", TABLE, ["status", "requested_at", "id"])
    op.create_index(op.f(f"ix_{TABLE}_leased_at"), TABLE, ["leased_at"])
    enable_rls(TABLE)


def downgrade() -> None:
    disable_rls(TABLE)
    op.drop_table(TABLE)
