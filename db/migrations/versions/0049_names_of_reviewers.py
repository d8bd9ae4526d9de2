"""Add the names of reviewers to predictions, and fill those of accounts that still exist."""

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None

TABLE = "predictions"
USERS = sa.table("users", sa.column("id", sa.Uuid), sa.column("full_name"), sa.column("email"))
PREDICTIONS = sa.table(
    TABLE,
    sa.column("reviewed_by", sa.Uuid),
    sa.column("reviewed_at"),
    sa.column("reviewed_by_name"),
    sa.column("reviewer_named_at"),
)
# A process of release 0.2.0 that deletes an account clears the id only, by the foreign key.
CLEAR_REFERENCE = (
    "CREATE OR REPLACE FUNCTION sartiq_reference_predictions() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond'); "
    "{more}RETURN NEW; END $$"
)


def upgrade() -> None:
    op.add_column(TABLE, sa.Column("reviewed_by_name", sa.String(320), nullable=True))
    op.add_column(TABLE, sa.Column("reviewer_named_at", sa.DateTime(timezone=True), nullable=True))
    _replace_reference_function("NEW.reviewed_by_name := NULL; ")
    _fill_names()


def _fill_names() -> None:
    reviewers = sa.select(PREDICTIONS.c.reviewed_by)
    connection = op.get_bind()
    for user in connection.execute(sa.select(USERS).where(USERS.c.id.in_(reviewers))).all():
        # `updated_at` stays, so that the change feed does not repeat every reviewed prediction.
        named = sa.update(PREDICTIONS).where(PREDICTIONS.c.reviewed_by == user.id)
        name = user.full_name or user.email.partition("@")[0]
        connection.execute(named.values(reviewed_by_name=name, reviewer_named_at=PREDICTIONS.c.reviewed_at))


def _replace_reference_function(more: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute(CLEAR_REFERENCE.format(more=more))


def downgrade() -> None:
    _replace_reference_function("")
    op.drop_column(TABLE, "reviewer_named_at")
    op.drop_column(TABLE, "reviewed_by_name")
