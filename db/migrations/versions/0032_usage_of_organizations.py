"""Record the usage of organizations per day, and what each generation and stored image counts for."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import (
    APPLICATION_ROLE,
    IN_CALLER_ORGANIZATIONS,
    NONE,
    disable_rls,
    enable_rls,
)
from db.migrations.frozen.usage import (
    AMOUNTS,
    FAILED,
    KEY,
    NO_KEY,
    create_usage_triggers,
    drop_usage_triggers,
)

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

TABLE = "usage_records"
APPENDED = sa.text(f"entry <> {NO_KEY}")
COLUMNS = {
    "generations": ("api_key_id", "product_id"),
    "media_resources": ("model_id", "api_key_id", "product_id"),
}
DIMENSIONS = {
    "day": "NULL",
    "model": "model_id",
    "member": "member_id",
    "api_key": "api_key_id",
    "product": "product_id",
}
# A text search, because PostgreSQL cannot read a JSON value that contains U+0000.
ASKED_PRODUCT = 'CAST(substring(inputs::text FROM \'"product_id": "([0-9a-f-]{36})"\') AS uuid)'
PRODUCT_OF_SHOT = """
    SELECT looks.main_product_id FROM shots JOIN looks ON looks.id = shots.look_id
    WHERE shots.id = generations.shot_id
"""
PRODUCT_OF_SOURCE = """
    SELECT source.product_id
    FROM predictions JOIN generations AS source ON source.id = predictions.generation_id
    WHERE predictions.id = generations.source_prediction_id
"""
OF_GENERATION = """
    SELECT generations.{column}
    FROM predictions JOIN generations ON generations.id = predictions.generation_id
    WHERE predictions.media_id = media_resources.id ORDER BY predictions.created_at LIMIT 1
"""
OF_PRODUCT_IMAGE = """
    SELECT product_images.product_id FROM product_images
    WHERE product_images.media_id = media_resources.id ORDER BY product_images.created_at LIMIT 1
"""
ATTRIBUTES = "model_id, owner_id AS member_id, api_key_id, product_id"
SOURCES = f"""
    SELECT organization_id, {{created}} AS day, {ATTRIBUTES}, 0 AS credits, 1 AS generations, 0 AS failures,
        0 AS storage_bytes
    FROM generations
    UNION ALL
    SELECT organization_id, {{ended}}, {ATTRIBUTES}, 0, 0, 1, 0 FROM generations WHERE status IN {FAILED}
    UNION ALL
    SELECT organization_id, {{moved}}, {ATTRIBUTES}, credit_movements.amount, 0, 0, 0
    FROM credit_movements JOIN generations ON generations.id = credit_movements.generation_id
    UNION ALL
    SELECT organization_id, {{created}}, {ATTRIBUTES}, 0, 0, 0, file_size FROM media_resources
"""  # noqa: S608 - names come from this module


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("dimension", sa.String(10), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("entry", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in AMOUNTS),
        sa.PrimaryKeyConstraint(*KEY.split(", "), name=op.f(f"pk_{TABLE}")),
    )
    for table, columns in COLUMNS.items():
        for column in columns:
            op.add_column(table, sa.Column(column, sa.Uuid(), nullable=True))
    _find_products()
    _record_existing_rows()
    op.create_index(f"ix_{TABLE}_day", TABLE, ["organization_id", "dimension", "day", "key"])
    op.create_index(f"ix_{TABLE}_appended", TABLE, ["entry"], postgresql_where=APPENDED)
    # Triggers write under the system role; callers read the usage of their organizations.
    enable_rls(TABLE, NONE, readable=IN_CALLER_ORGANIZATIONS)
    op.execute(f"REVOKE INSERT, UPDATE, DELETE ON {TABLE} FROM {APPLICATION_ROLE}")
    create_usage_triggers()


def downgrade() -> None:
    drop_usage_triggers()
    disable_rls(TABLE)
    op.drop_table(TABLE)
    for table, columns in COLUMNS.items():
        for column in columns:
            op.drop_column(table, column)


def _find_products() -> None:
    """Find out which products the existing generations and images count for."""
    for value, condition in (
        (f"({PRODUCT_OF_SHOT})", "shot_id IS NOT NULL"),
        (ASKED_PRODUCT, "product_id IS NULL"),
        (f"({PRODUCT_OF_SOURCE})", "product_id IS NULL AND source_prediction_id IS NOT NULL"),
    ):
        op.execute(f"UPDATE generations SET product_id = {value} WHERE {condition}")  # noqa: S608 - names come from this module
    op.execute(
        f"UPDATE media_resources SET model_id = ({OF_GENERATION.format(column='model_id')}), "  # noqa: S608 - names come from this module
        f"product_id = coalesce(({OF_GENERATION.format(column='product_id')}), ({OF_PRODUCT_IMAGE}))"
    )


def _record_existing_rows() -> None:
    """Record the usage of the existing rows. The organization of a deleted generation is unknown."""
    day = "CAST({} AT TIME ZONE 'UTC' AS date)"
    source = SOURCES.format(
        created=day.format("created_at"),
        ended=day.format("coalesce(completed_at, updated_at)"),
        moved=day.format("credit_movements.created_at"),
    )
    sums = ", ".join(f"sum({name})" for name in AMOUNTS)
    for dimension, column in DIMENSIONS.items():
        op.execute(
            f"INSERT INTO {TABLE} ({KEY}, {', '.join(AMOUNTS)}) "  # noqa: S608 - names come from this module
            f"SELECT organization_id, '{dimension}', coalesce({column}, CAST({NO_KEY} AS uuid)), day, "
            f"CAST({NO_KEY} AS uuid), {sums} FROM ({source}) AS source "
            f"WHERE organization_id IS NOT NULL GROUP BY 1, 3, 4"
        )
