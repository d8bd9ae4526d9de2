"""Create and drop row-level security policies.

The policies keep tenants apart when a query lacks the tenant filter of `db/tenancy.py`. They do not know the
permissions of roles in an organization. A table without a policy is closed to both roles, so that a migration
which forgets one fails the first test that reads the table.
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

APPLICATION_ROLE = "sartiq_app"
SYSTEM_ROLE = "sartiq_system"

# Subqueries without a reference to the row are evaluated once per statement; plain function calls would run
# once per row. The cast makes ANY compare with the elements of one array, not with the rows of a subquery.
USER_ID = "(SELECT sartiq_user_id())"
IS_SUPERUSER = "(SELECT sartiq_is_superuser())"
IN_CALLER_ORGANIZATIONS = "organization_id = ANY ((SELECT sartiq_organizations())::uuid[])"

OWNED = f"({IN_CALLER_ORGANIZATIONS} OR (organization_id IS NULL AND owner_id = {USER_ID}))"
IS_CALLER_ACCOUNT = f"user_id = {USER_ID}"
PUBLIC = "public"
NONE = "false"
ALL = "true"
ALL_PRIVILEGES = "SELECT, INSERT, UPDATE, DELETE"

# `nullif`: a setting that was set with SET LOCAL is an empty string, not null, after the transaction.
_FUNCTIONS = {
    "sartiq_user_id() RETURNS uuid": "nullif(current_setting('sartiq.user_id', true), '')::uuid",
    "sartiq_organizations() RETURNS uuid[]": (
        "nullif(current_setting('sartiq.organizations', true), '')::uuid[]"
    ),
    "sartiq_is_superuser() RETURNS boolean": (
        "coalesce(current_setting('sartiq.is_superuser', true) = 'on', false)"
    ),
}


def parent_is_visible(parent: str, column: str) -> str:
    """Return the condition that the row of `parent` which `column` refers to is visible.

    A scalar subquery costs one index lookup per row. With EXISTS the planner may choose to read the whole
    parent table once per statement.
    """
    return f"(SELECT true FROM {parent} WHERE {parent}.id = {column})"  # noqa: S608 - names come from migrations


def enable_rls(
    table: str,
    mine: str = OWNED,
    readable: str = NONE,
    lockable: str = NONE,
    privileges: str = ALL_PRIVILEGES,
) -> None:
    """Enable row-level security on a table.

    The system role and superusers of the product see all rows.

    Args:
        table: The name of the table.
        mine: The SQL condition for rows that a caller sees and writes.
        readable: The condition for further rows that a caller only reads.
        lockable: The condition for further rows that a caller may lock (`FOR UPDATE`) but not change.
        privileges: The privileges of both roles. Leave out what no code needs, such as UPDATE of a log.
    """
    deny_all(table, privileges)
    op.execute(f"GRANT {privileges} ON {table} TO {APPLICATION_ROLE}")
    # PostgreSQL evaluates OR from left to right, so the condition that holds for most rows comes first.
    mine = f"({mine}) OR {IS_SUPERUSER}"
    visible = mine if readable == NONE else f"{mine} OR {readable}"
    for command, rule in (
        ("SELECT", f"USING ({visible})"),
        ("INSERT", f"WITH CHECK ({mine})"),
        ("UPDATE", f"USING ({mine})"),
        ("DELETE", f"USING ({mine})"),
    ):
        name = f"caller_{command.lower()}"
        op.execute(f"CREATE POLICY {name} ON {table} FOR {command} TO {APPLICATION_ROLE} {rule}")
    if lockable != NONE:
        # FOR UPDATE requires an UPDATE policy; `WITH CHECK (false)` rejects every actual change.
        op.execute(
            f"CREATE POLICY caller_lock ON {table} FOR UPDATE TO {APPLICATION_ROLE} USING ({lockable}) "
            "WITH CHECK (false)"
        )


def deny_all(table: str, privileges: str = ALL_PRIVILEGES) -> None:
    """Close a table to all callers, including superusers of the product. Only the system role uses it."""
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    # Without FORCE the owner of the table bypasses its policies.
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"GRANT {privileges} ON {table} TO {SYSTEM_ROLE}")
    # The policy compares the current user because a login that inherits the role would otherwise see all rows
    # without a SET ROLE.
    op.execute(f"CREATE POLICY system ON {table} TO {SYSTEM_ROLE} USING (current_user = '{SYSTEM_ROLE}')")
    op.execute(
        f"CREATE POLICY migrating ON {table} TO CURRENT_USER "
        "USING (current_setting('sartiq.migrating', true) = 'on')"
    )


def disable_rls(table: str) -> None:
    """Undo `enable_rls` or `deny_all`."""
    callers = ("select", "insert", "update", "delete", "lock")
    for policy in ("system", "migrating", *(f"caller_{command}" for command in callers)):
        op.execute(f"DROP POLICY IF EXISTS {policy} ON {table}")
    op.execute(f"REVOKE ALL ON {table} FROM {APPLICATION_ROLE}, {SYSTEM_ROLE}")
    op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")


def create_reference_check(table: str, references: Sequence[tuple[str, str]]) -> None:
    """Create the function behind `is_referenced`: whether a visible row refers to a given row of `table`.

    It is a PL/pgSQL function, which the planner does not inline. The tables it reads have policies too;
    planning all of them with every statement takes longer than most statements run. The high COST makes
    PostgreSQL evaluate cheaper conditions first.

    Args:
        table: The table whose rows are referred to.
        references: The referring tables and columns.
    """
    conditions = " OR ".join(
        f"EXISTS (SELECT 1 FROM public.{child} WHERE {column} = $1)"  # noqa: S608 - names come from migrations
        for child, column in references
    )
    op.execute(
        f"CREATE FUNCTION {_reference_check_name(table)}(uuid) RETURNS boolean "
        f"LANGUAGE plpgsql STABLE COST 100000 AS $$ BEGIN RETURN {conditions}; END $$"
    )


def drop_reference_check(table: str) -> None:
    """Undo `create_reference_check`."""
    op.execute(f"DROP FUNCTION IF EXISTS {_reference_check_name(table)}")


def is_referenced(table: str) -> str:
    """Return the condition that a visible row refers to the row of `table`."""
    return f"{_reference_check_name(table)}(id)"


def _reference_check_name(table: str) -> str:
    return f"sartiq_shows_{table}"


def give_to_system_role(function: str) -> None:
    """Make the system role the owner of a function that runs with the rights of its owner.

    Args:
        function: The name of the function, with the types of its arguments where there are several.
    """
    # ALTER ... OWNER TO requires that the new owner may create objects in the schema.
    op.execute(f"GRANT CREATE ON SCHEMA public TO {SYSTEM_ROLE}")
    op.execute(f"ALTER FUNCTION {function} OWNER TO {SYSTEM_ROLE}")
    op.execute(f"REVOKE CREATE ON SCHEMA public FROM {SYSTEM_ROLE}")


def create_functions() -> None:
    """Create the functions with which policies read the caller.

    Without a caller they return null, which equals no column of any row.
    """
    for signature, body in _FUNCTIONS.items():
        op.execute(f"CREATE FUNCTION {signature} LANGUAGE sql STABLE PARALLEL SAFE RETURN {body}")


def drop_functions() -> None:
    """Undo `create_functions`."""
    for signature in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature.split(' ')[0]}")
