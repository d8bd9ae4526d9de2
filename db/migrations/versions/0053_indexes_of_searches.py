"""Index the trigrams of names, and add the functions that search them.

The indexes are built without blocking writers, outside a transaction; a build that failed is repeated.
"""

from __future__ import annotations

from alembic import op

from db.migrations.frozen.policies import SYSTEM_ROLE, give_to_system_role

revision = "0053"
down_revision = "0052"
branch_labels = None
depends_on = None

# The columns that the lists are searched in, and whether rows can be public.
TABLES = {
    "products": (("name", "sku"), True),
    "shootings": (("name",), False),
    "brands": (("name",), False),
    "guidelines": (("name",), False),
    "styles": (("name",), True),
    "subjects": (("name",), True),
    "shot_types": (("name",), True),
    "background_presets": (("name",), True),
    "resolution_presets": (("name",), True),
}
ARCHIVABLE = ("styles", "subjects", "shot_types")
TEXT = "sartiq_search_text"
PUBLIC = "'00000000-0000-0000-0000-000000000000'::uuid"
_PUNCTUATION = "\\ -_./"
_SAMPLE, _MANY, _NEWEST = 500, 50, 110_000


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public")
        # `pg_trgm` knows ASCII letters and digits, others only with some locales, and ignores the rest. So
        # other characters become the octal numbers of their bytes, and frequent punctuation a letter (six
        # characters: `translate` compares each one with all of them). A text that contains another one still
        # does. Not in SQL, because `convert_to` is declared as STABLE.
        op.execute(
            f"CREATE OR REPLACE FUNCTION {TEXT}(text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT "
            "PARALLEL SAFE AS $$ BEGIN RETURN translate("
            "encode(convert_to(lower($1), 'UTF8'), 'escape'), "
            f"'{_PUNCTUATION}', '{'q' * len(_PUNCTUATION)}'); END $$"
        )
        for table in TABLES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS ix_{table}_search")
            op.execute(
                f"CREATE INDEX CONCURRENTLY ix_{table}_search ON {table} "
                f"USING gin (({_scopes(table)}), ({_text(table)}) gin_trgm_ops) "
                # Sorting in 1,000 rows at a time took five times as long per row as 5,000, about 5 MB.
                "WITH (gin_pending_list_limit = 8192)"
            )
    # IMMUTABLE, so that the planner replaces it by its value. A condition that remains would keep LIKE, which
    # is not leakproof, from the indexes. A plan is never used by another role than the one it was made for:
    # PostgreSQL plans statements on tables with policies again when the role changes.
    op.execute(
        "CREATE FUNCTION sartiq_is_system_role() RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE "
        f"RETURN current_user = '{SYSTEM_ROLE}'"
    )
    for table in TABLES:
        op.execute(f"ALTER POLICY system ON {table} USING (sartiq_is_system_role())")
        _create_function(table)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP FUNCTION {_name(table)}")
        op.execute(f"ALTER POLICY system ON {table} USING (current_user = '{SYSTEM_ROLE}')")
        op.drop_index(f"ix_{table}_search", table)
    # The extension remains: others may use it.
    op.execute(f"DROP FUNCTION {TEXT}(text)")
    op.execute("DROP FUNCTION sartiq_is_system_role()")


def _name(table: str) -> str:
    return f"sartiq_search_{table}(uuid, boolean, text, text, integer)"


def _scopes(table: str) -> str:
    """Return the array of the tenant of a row and, if it is public, of the id that stands for public rows."""
    public = f", CASE WHEN public THEN {PUBLIC} END" if TABLES[table][1] else ""
    return f"ARRAY[coalesce(organization_id, owner_id){public}]"


def _text(table: str) -> str:
    (name, *others), _ = TABLES[table]
    return f"{TEXT}({name}" + "".join(f" || ' ' || coalesce({column}, '')" for column in others) + ")"


def _create_function(table: str) -> None:
    """Create the function that returns the ids of the rows of a tenant in which a text is found.

    Its arguments are the tenant, whether public rows are searched, the text, the LIKE pattern of the text,
    and the number of rows after which it stops. It returns the number of rows, and their ids as an array in
    text form. Without ids, reading the list in its order finds the text: it is in very many rows, has no
    letter or digit, or the caller does not belong to the tenant.

    It runs as its owner, the system role, for which the index can be used. The fixed search path keeps a
    caller from substituting tables or operators.
    """
    (name, *others), can_be_public = TABLES[table]
    archived = " AND archived_at IS NULL" if table in ARCHIVABLE else ""
    also = "".join(f" OR (starts_with(pattern, '%') AND {column} ILIKE pattern)" for column in others)
    matches = f"({name} ILIKE pattern{also}){archived}"
    columns = ", ".join([name, *others, *(["archived_at"] if archived else [])])
    public = f", CASE WHEN with_public THEN {PUBLIC} END" if can_be_public else ""
    newest = " UNION ALL ".join(
        f"(SELECT {columns} FROM {table} WHERE {tenant} ORDER BY created_at DESC, id DESC LIMIT rows)"  # noqa: S608 - names come from this module
        for tenant in ("organization_id = scope", "owner_id = scope AND organization_id IS NULL")
    )
    op.execute(
        f"""
        CREATE FUNCTION sartiq_search_{table}(
            scope uuid, with_public boolean, searched text, pattern text, most integer,
            OUT total integer, OUT ids text
        ) LANGUAGE plpgsql STABLE SECURITY DEFINER
        SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off
        SET plan_cache_mode = force_generic_plan
        AS $$
        DECLARE
            rows integer := {_SAMPLE};
            scopes uuid[] := ARRAY[scope{public}];
            trigrams text := {TEXT}(searched) || '%';
        BEGIN
            IF NOT coalesce(
                scope = ANY (sartiq_organizations()) OR scope = sartiq_user_id() OR sartiq_is_superuser(),
                false
            ) THEN
                RETURN;
            END IF;
            IF trigrams !~ '[a-z0-9]' THEN
                RETURN;
            END IF;
            SELECT count(*) INTO total FROM ({newest}) AS newest WHERE {matches};
            IF total >= {_MANY} THEN
                rows := {_NEWEST};
                SELECT count(*) INTO total
                FROM (SELECT FROM ({newest}) AS newest WHERE {matches} LIMIT most) AS found;
                IF total >= most THEN
                    RETURN;
                END IF;
            END IF;
            IF starts_with(pattern, '%') THEN
                trigrams := '%' || trigrams;
            END IF;
            SELECT count(*), coalesce(array_agg(id), '{{}}')::text INTO total, ids
            FROM (
                SELECT id FROM {table}
                WHERE {_scopes(table)} && scopes AND {_text(table)} LIKE trigrams AND {matches} LIMIT most
            ) AS found;
            IF total >= most THEN
                ids := NULL;
            END IF;
        END $$
        """  # noqa: S608 - names come from this module
    )
    give_to_system_role(_name(table))
