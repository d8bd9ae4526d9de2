"""Row-level security on PostgreSQL, for migrations: which rows of a table whom it lets see and write.

It stands behind `db/tenancy.py` and asks for less: who may do what in an organization is not decided here.
A table that no migration protects is closed to both roles, so a forgotten line is found at once. SQLite has
nothing like it.
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

from db.rls.session_role import APPLICATION_ROLE, MIGRATING, SYSTEM_ROLE

# Evaluated once for a statement, not for each row, because they are subqueries without reference to it; the
# cast makes ANY take the array as a value.
USER_ID = "(SELECT sartiq_user_id())"
IS_SUPERUSER = "(SELECT sartiq_is_superuser())"
IN_CALLER_ORGANIZATIONS = "organization_id = ANY ((SELECT sartiq_organizations())::uuid[])"

OWNED = f"({IN_CALLER_ORGANIZATIONS} OR (organization_id IS NULL AND owner_id = {USER_ID}))"
IS_CALLER_ACCOUNT = f"user_id = {USER_ID}"
PUBLIC = "public"
NONE = "false"
ALL = "true"
ALL_PRIVILEGES = "SELECT, INSERT, UPDATE, DELETE"

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
    """The condition that the row of `parent` to which `column` refers is one that may be seen.

    A scalar subquery is one look into an index for each row. EXISTS would let the planner read all rows of
    the parent, once for each statement.
    """
    return f"(SELECT true FROM {parent} WHERE {parent}.id = {column})"  # noqa: S608 - names of ours


def enable_rls(
    table: str,
    mine: str = OWNED,
    readable: str = NONE,
    lockable: str = NONE,
    privileges: str = ALL_PRIVILEGES,
) -> None:
    """Let callers see and write only rows for which `mine` holds, and read those for which `readable` does.

    Those for which `lockable` holds, they may lock and not change. Superusers of the product see all, the
    system too. `privileges` are those of both roles: leave away what nobody may do, such as UPDATE.
    """
    if not is_postgresql():
        return
    deny_all(table, privileges)
    op.execute(f"GRANT {privileges} ON {table} TO {APPLICATION_ROLE}")
    # From the left to the right, so what holds for most rows comes first.
    mine = f"({mine}) OR {IS_SUPERUSER}"
    seen = mine if readable == NONE else f"{mine} OR {readable}"
    for command, rule in (
        ("SELECT", f"USING ({seen})"),
        ("INSERT", f"WITH CHECK ({mine})"),
        ("UPDATE", f"USING ({mine})"),
        ("DELETE", f"USING ({mine})"),
    ):
        name = f"caller_{command.lower()}"
        op.execute(f"CREATE POLICY {name} ON {table} FOR {command} TO {APPLICATION_ROLE} {rule}")
    if lockable != NONE:
        op.execute(
            f"CREATE POLICY caller_lock ON {table} FOR UPDATE TO {APPLICATION_ROLE} USING ({lockable}) "
            "WITH CHECK (false)"
        )


def deny_all(table: str, privileges: str = ALL_PRIVILEGES) -> None:
    """Close a table to all callers, superusers of the product included: its rows are the system's alone."""
    if not is_postgresql():
        return
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"GRANT {privileges} ON {table} TO {SYSTEM_ROLE}")
    # By name, because a login that inherits from the role would have its rows without ever asking for it.
    op.execute(f"CREATE POLICY system ON {table} TO {SYSTEM_ROLE} USING (current_user = '{SYSTEM_ROLE}')")
    op.execute(
        f"CREATE POLICY migrating ON {table} TO CURRENT_USER "
        f"USING (current_setting('{MIGRATING}', true) = 'on')"
    )


def disable_rls(table: str) -> None:
    """Take back what `protect` or `close` did."""
    if not is_postgresql():
        return
    callers = ("select", "insert", "update", "delete", "lock")
    for policy in ("system", "migrating", *(f"caller_{command}" for command in callers)):
        op.execute(f"DROP POLICY IF EXISTS {policy} ON {table}")
    op.execute(f"REVOKE ALL ON {table} FROM {APPLICATION_ROLE}, {SYSTEM_ROLE}")
    op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")


def create_reference_check(table: str, references: Sequence[tuple[str, str]]) -> None:
    """Make the function that `referred` asks: does one of these columns, of a row that may be seen, refer?

    The planner cannot look into it. The rows that it reads have policies too, and to plan all of them with
    every statement takes longer than most statements do. The cost keeps it from being asked for all rows.
    """
    if not is_postgresql():
        return
    questions = " OR ".join(
        f"EXISTS (SELECT 1 FROM public.{child} WHERE {column} = $1)"  # noqa: S608 - names of ours
        for child, column in references
    )
    op.execute(
        f"CREATE FUNCTION {_reference_check_name(table)}(uuid) RETURNS boolean "
        f"LANGUAGE plpgsql STABLE COST 100000 AS $$ BEGIN RETURN {questions}; END $$"
    )


def drop_reference_check(table: str) -> None:
    """Take back what `show_referred` did."""
    if is_postgresql():
        op.execute(f"DROP FUNCTION IF EXISTS {_reference_check_name(table)}")


def is_referenced(table: str) -> str:
    """The condition that a row which may be seen refers to the row of `table`."""
    return f"{_reference_check_name(table)}(id)"


def _reference_check_name(table: str) -> str:
    return f"sartiq_shows_{table}"


def create_functions() -> None:
    """Make the functions that read in policies who the caller is; without one, null, which equals no row."""
    if not is_postgresql():
        return
    for signature, body in _FUNCTIONS.items():
        op.execute(f"CREATE FUNCTION {signature} LANGUAGE sql STABLE PARALLEL SAFE RETURN {body}")


def drop_functions() -> None:
    """Take back what `create_functions` did."""
    if not is_postgresql():
        return
    for signature in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature.split(' ')[0]}")


def is_postgresql() -> bool:
    """Whether the migration that runs is one of PostgreSQL."""
    return op.get_bind().dialect.name == "postgresql"
