"""Record which images may have lost their last reference, so that garbage collection reads only those."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import deny_all, disable_rls, give_to_system_role

revision = "0055"
down_revision = "0054"
branch_labels = None
depends_on = None

FUNCTION = "sartiq_check_media"
REFERENCES = (
    ("export_items", "media_id"),
    ("brands", "logo_media_id"),
    ("products", "cover_media_id"),
    ("product_images", "media_id"),
    ("product_images", "mask_media_id"),
    ("product_image_cutouts", "media_id"),
    ("predictions", "media_id"),
    ("background_presets", "image_media_id"),
    ("subjects", "cover_media_id"),
    ("subject_base_images", "media_id"),
    ("organizations", "logo_media_id"),
    ("styles", "cover_media_id"),
)


def upgrade() -> None:
    op.create_table(
        "media_checks",
        sa.Column("entry", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("media_id", sa.Uuid(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_media_checks")),
    )
    op.create_index(op.f("ix_media_checks_due_at"), "media_checks", ["due_at"])
    deny_all("media_checks")
    # It runs as its owner, the system role, because callers cannot use the table. The interval is the grace
    # period of garbage collection.
    op.execute(
        f"""
        CREATE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
        AS $$
        DECLARE
            image uuid;
        BEGIN
            IF TG_OP = 'INSERT' THEN
                INSERT INTO media_checks (media_id, due_at) VALUES (NEW.id, now() + interval '24 hours');
            ELSE
                EXECUTE format('SELECT ($1).%I', TG_ARGV[0]) INTO image USING OLD;
                INSERT INTO media_checks (media_id, due_at) VALUES (image, now());
            END IF;
            RETURN NULL;
        END $$
        """  # noqa: S608 - the name comes from this module
    )
    give_to_system_role(f"{FUNCTION}()")
    for name, _, column, event, condition in _list_triggers():
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} FOR EACH ROW WHEN ({condition}) "
            f"EXECUTE FUNCTION {FUNCTION}('{column}')"
        )


def downgrade() -> None:
    for name, table, *_ in _list_triggers():
        op.execute(f"DROP TRIGGER {name} ON {table}")
    op.execute(f"DROP FUNCTION {FUNCTION}()")
    disable_rls("media_checks")
    op.drop_table("media_checks")


def _list_triggers() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield name, table, column with the image, event and condition of each trigger."""
    for table, column in REFERENCES:
        yield (
            f"{table}_{column}_check_delete",
            table,
            column,
            f"DELETE ON {table}",
            f"OLD.{column} IS NOT NULL",
        )
        changed = f"OLD.{column} IS NOT NULL AND OLD.{column} IS DISTINCT FROM NEW.{column}"
        yield f"{table}_{column}_check_update", table, column, f"UPDATE OF {column} ON {table}", changed
    table = "media_resources"
    yield f"{table}_check_insert", table, "id", f"INSERT ON {table}", "true"
    yield (
        f"{table}_check_update",
        table,
        "id",
        f"UPDATE OF public ON {table}",
        "OLD.public AND NOT NEW.public",
    )
