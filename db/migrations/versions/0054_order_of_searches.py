"""Return the ids of searches in the default order of lists, so that a page reads only its own."""

from __future__ import annotations

from alembic import op

from db.migrations.frozen.policies import SYSTEM_ROLE

revision = "0054"
down_revision = "0053"
branch_labels = None
depends_on = None

TABLES = (
    "products",
    "shootings",
    "brands",
    "guidelines",
    "styles",
    "subjects",
    "shot_types",
    "background_presets",
    "resolution_presets",
)
UNORDERED, ORDERED = "array_agg(id)", "array_agg(id ORDER BY created_at DESC, id DESC)"
IDS, IDS_AND_TIMES = "SELECT id FROM", "SELECT id, created_at FROM"


def upgrade() -> None:
    _replace((UNORDERED, ORDERED), (IDS, IDS_AND_TIMES))


def downgrade() -> None:
    _replace((ORDERED, UNORDERED), (IDS_AND_TIMES, IDS))


def _replace(*changes: tuple[str, str]) -> None:
    """Replace parts of the functions. What a function is for is described in revision 0053."""
    definition = "pg_get_functiondef('sartiq_search_%s(uuid, boolean, text, text, integer)'::regprocedure)"
    op.execute(f"GRANT CREATE ON SCHEMA public TO {SYSTEM_ROLE}")
    # Only the owner can replace a function.
    op.execute(f"SET LOCAL ROLE {SYSTEM_ROLE}")
    for table in TABLES:
        source = definition % table
        for old, new in changes:
            source = f"replace({source}, '{old}', '{new}')"
        op.execute(f"DO $do$ BEGIN EXECUTE {source}; END $do$")
    op.execute("SET LOCAL ROLE NONE")
    op.execute(f"REVOKE CREATE ON SCHEMA public FROM {SYSTEM_ROLE}")
