"""Give images that superusers added to personal rows to the owners of these rows."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

PICTURES = [
    ("background_presets", "image_media_id"),
    ("brands", "logo_media_id"),
    ("product_images", "media_id"),
    ("products", "cover_media_id"),
    ("styles", "cover_media_id"),
    ("subject_base_images", "media_id"),
    ("subjects", "cover_media_id"),
]
# An image on a row of another owner stays, because it would disappear from there.
ON_NO_OTHER_ROW = """
    AND NOT EXISTS (
        SELECT 1 FROM {table} AS other WHERE other.{column} = media.id
        AND (other.organization_id IS NOT NULL OR other.owner_id <> shown.owner_id)
    )
"""
MISPLACED = """
    SELECT media.id, shown.owner_id, media.content_hash
    FROM {table} AS shown
    JOIN media_resources AS media ON media.id = shown.{column}
    JOIN users ON users.id = media.owner_id AND users.is_superuser
    WHERE shown.organization_id IS NULL AND media.organization_id IS NULL AND NOT media.public
    AND shown.owner_id <> media.owner_id
    {others}
    AND NOT EXISTS (SELECT 1 FROM organizations WHERE organizations.logo_media_id = media.id)
    AND NOT EXISTS (SELECT 1 FROM export_items WHERE export_items.media_id = media.id)
    ORDER BY shown.id
"""


def upgrade() -> None:
    bind = op.get_bind()
    media = sa.table(
        "media_resources",
        sa.column("id", sa.Uuid()),
        sa.column("owner_id", sa.Uuid()),
        sa.column("organization_id", sa.Uuid()),
        sa.column("content_hash", sa.String()),
    )
    others = "".join(
        ON_NO_OTHER_ROW.format(table=table, column=column)
        for table, column in [*PICTURES, ("predictions", "media_id")]
    )
    moved = set()
    for table, column in PICTURES:
        query = sa.text(MISPLACED.format(table=table, column=column, others=others))
        rows = bind.execute(query.columns(id=sa.Uuid(), owner_id=sa.Uuid(), content_hash=sa.String())).all()
        for media_id, owner_id, content_hash in rows:
            same = (media.c.owner_id == owner_id, media.c.content_hash == content_hash)
            existing = sa.select(media.c.id).where(*same, media.c.organization_id.is_(None))
            if media_id in moved or bind.execute(existing).first() is not None:
                continue
            moved.add(media_id)
            bind.execute(sa.update(media).where(media.c.id == media_id).values(owner_id=owner_id))


def downgrade() -> None:
    """Keep the owners: the rows do not show which ones were changed."""
