"""Add the names of reviewers to predictions, and fill those of accounts that still exist."""

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None

LOST = {"predictions": ("reviewed_by_name",)}

TABLE = "predictions"
USERS = sa.table("users", sa.column("id", sa.Uuid), sa.column("full_name"), sa.column("email"))
PREDICTIONS = sa.table(
    TABLE,
    sa.column("id", sa.Uuid),
    sa.column("reviewed_by", sa.Uuid),
    sa.column("reviewed_at"),
    sa.column("reviewed_by_name"),
    sa.column("reviewer_named_at"),
)
BATCH_SIZE = 5_000
# A process of release 0.2.0 that deletes an account clears the id only, by the foreign key.
CLEAR_REFERENCE = (
    "CREATE OR REPLACE FUNCTION sartiq_reference_predictions() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond'); "
    "{more}RETURN NEW; END $$"
)


def upgrade() -> None:
    for column in (
        sa.Column("reviewed_by_name", sa.String(320), nullable=True),
        sa.Column("reviewer_named_at", sa.DateTime(timezone=True), nullable=True),
    ):
        # They exist if an earlier attempt was interrupted after its first commit.
        op.add_column(TABLE, column, if_not_exists=True)
    op.execute(CLEAR_REFERENCE.format(more="NEW.reviewed_by_name := NULL; "))
    _commit()
    _fill_names()


def _fill_names() -> None:
    connection = op.get_bind()
    reviewers = sa.select(PREDICTIONS.c.reviewed_by)
    for user in connection.execute(sa.select(USERS).where(USERS.c.id.in_(reviewers))).all():
        unnamed = sa.select(PREDICTIONS.c.id).where(
            PREDICTIONS.c.reviewed_by == user.id, PREDICTIONS.c.reviewed_by_name.is_(None)
        )
        # `updated_at` stays, so that the change feed does not repeat every reviewed prediction.
        named = sa.update(PREDICTIONS).values(
            reviewed_by_name=user.full_name or user.email.partition("@")[0],
            reviewer_named_at=PREDICTIONS.c.reviewed_at,
        )
        while True:
            # In the order in which requests lock predictions.
            ids = connection.scalars(unnamed.order_by(PREDICTIONS.c.id).limit(BATCH_SIZE).with_for_update())
            batch = ids.all()
            if not batch:
                break
            connection.execute(named.where(PREDICTIONS.c.id.in_(batch)))
            _commit()


def _commit() -> None:
    """Release the locks: adding columns has locked the table, and each batch its rows."""
    with op.get_context().autocommit_block():
        pass


def downgrade() -> None:
    op.execute(CLEAR_REFERENCE.format(more=""))
    op.drop_column(TABLE, "reviewer_named_at")
    op.drop_column(TABLE, "reviewed_by_name")
