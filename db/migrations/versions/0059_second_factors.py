"""Add the second factors of accounts, sign-ins that wait for one, and organizations that require one."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import IS_CALLER_ACCOUNT, deny_all, disable_rls, enable_rls

revision = "0059"
down_revision = "0058"
branch_labels = None
depends_on = None

FACTORS, CHALLENGES = "second_factors", "second_factor_challenges"
REQUIREMENT = "second_factor_from"
# Challenges end after five minutes.
LOST = {FACTORS: (), "organizations": (REQUIREMENT,)}


def upgrade() -> None:
    # The default is for processes of the older release, which run until the last one has ended.
    op.add_column(
        "users", sa.Column("has_second_factor", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    for table in ("organizations", "memberships"):
        op.add_column(table, sa.Column(REQUIREMENT, sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        FACTORS,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("name", sa.String(100), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("secret_key", sa.String(16), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=True),
        sa.Column("code_hashes", sa.JSON(), nullable=True),
        sa.Column("credential_id", sa.LargeBinary(), nullable=True),
        sa.Column("public_key", sa.LargeBinary(), nullable=True),
        sa.Column("sign_count", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f(f"fk_{FACTORS}_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{FACTORS}")),
        sa.UniqueConstraint("credential_id", name=op.f(f"uq_{FACTORS}_credential_id")),
    )
    op.create_index(f"ix_{FACTORS}_user", FACTORS, ["user_id", "created_at", "id"])
    op.create_index(op.f(f"ix_{FACTORS}_secret_key"), FACTORS, ["secret_key"])
    enable_rls(FACTORS, IS_CALLER_ACCOUNT)
    op.create_table(
        CHALLENGES,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.String(128), nullable=False),
        sa.Column("password_hash", sa.String(64), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f(f"fk_{CHALLENGES}_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{CHALLENGES}")),
        sa.UniqueConstraint("token_hash", name=op.f(f"uq_{CHALLENGES}_token_hash")),
    )
    op.create_index(op.f(f"ix_{CHALLENGES}_user_id"), CHALLENGES, ["user_id"])
    deny_all(CHALLENGES)


def downgrade() -> None:
    for table in (CHALLENGES, FACTORS):
        disable_rls(table)
        op.drop_table(table)
    for table in ("memberships", "organizations"):
        op.drop_column(table, REQUIREMENT)
    op.drop_column("users", "has_second_factor")
