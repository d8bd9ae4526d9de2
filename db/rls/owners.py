"""Check who owns the functions and policies of row-level security.

A function runs with the rights of its owner (SECURITY DEFINER), or its owner may replace it. A dump that
another role restores can give functions to that role and leave out policies, without stopping.
"""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import OperationalError

from db.engine import build_engine
from db.rls.session_role import MIGRATING, SYSTEM_ROLE
from db.rls.setup import RolesMissing

OF_THE_OWNER = "maintain_audit_partitions"
"""The only function that runs with the rights of the owner of the tables: it creates and drops partitions."""

# The owner of the revision's table is the login that migrates. A new database has no such table, so both
# statements return nothing. A superuser may own functions that do not run with its rights.
_WRONG_FUNCTIONS = text("""
SELECT quote_ident(proname) || '(' || pg_get_function_identity_arguments(pg_proc.oid) || ')' AS name,
    quote_ident(
        CASE WHEN prosecdef AND proname <> :of_the_owner THEN :system_role ELSE pg_get_userbyid(relowner) END
    ) AS owner
FROM pg_proc
JOIN pg_class ON pg_class.oid = to_regclass('public.alembic_version')
JOIN pg_roles ON pg_roles.oid = proowner
WHERE pronamespace = to_regnamespace('public')
    AND (starts_with(proname, 'sartiq_') OR proname = :of_the_owner)
    AND CASE WHEN prosecdef AND proname <> :of_the_owner THEN rolname <> :system_role
        ELSE proowner <> relowner AND (prosecdef OR NOT rolsuper) END
ORDER BY name
""").bindparams(system_role=SYSTEM_ROLE, of_the_owner=OF_THE_OWNER)

_WRONG_POLICIES = text("""
SELECT quote_ident(relname) AS name, quote_ident(pg_get_userbyid(relowner)) AS owner,
    migrating.oid IS NOT NULL AS exists, system.oid IS NOT NULL AS is_complete
FROM pg_class
LEFT JOIN pg_policy AS migrating ON migrating.polrelid = pg_class.oid AND migrating.polname = 'migrating'
LEFT JOIN pg_policy AS system ON system.polrelid = pg_class.oid AND system.polname = 'system'
WHERE relnamespace = to_regnamespace('public') AND relforcerowsecurity
    AND (migrating.oid IS NULL OR system.oid IS NULL OR NOT relowner = ANY (migrating.polroles))
ORDER BY name
""")


class OwnersChanged(RolesMissing):
    """Functions or policies belong to another role. The message names the statements to run."""


def require_owners_of(url: str) -> None:
    """Check the functions and policies of a database, as `require_owners`, if it can be reached."""
    engine = build_engine(url, pool_size=1)
    try:
        # A process that only waits for its database must not end here: it connects again later.
        with suppress(OperationalError), engine.connect() as connection:
            require_owners(connection)
    finally:
        engine.dispose()


def require_owners(connection: Connection) -> None:
    """Check that each function and policy of row-level security belongs to its role.

    Raises:
        OwnersChanged: One belongs to another role, or policies are missing.
    """
    policies = connection.execute(_WRONG_POLICIES).all()
    incomplete = [row.name for row in policies if not row.is_complete]
    if incomplete:
        raise OwnersChanged(
            f"Policies of these tables are missing, so the dump was not restored completely: "
            f"{', '.join(incomplete)}. Restore it again after `CREATE ROLE sartiq_app; CREATE ROLE "
            f"sartiq_system;`, or use `make restore`"
        )
    functions = connection.execute(_WRONG_FUNCTIONS).all()
    statements = [f"ALTER FUNCTION public.{row.name} OWNER TO {row.owner}" for row in functions]
    statements += map(_build_statement, policies)
    if statements:
        listing = "".join(f"\n    {statement};" for statement in statements)
        raise OwnersChanged(
            "Row-level security belongs to another role, as after a dump that another role restored. "
            f"A superuser of PostgreSQL must run, in this database:{listing}"
        )


def _build_statement(policy: Row[tuple[str, str, bool, bool]]) -> str:
    if policy.exists:
        return f"ALTER POLICY migrating ON public.{policy.name} TO {policy.owner}"
    condition = f"current_setting('{MIGRATING}', true) = 'on'"
    return f"CREATE POLICY migrating ON public.{policy.name} TO {policy.owner} USING ({condition})"
