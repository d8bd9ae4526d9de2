"""Create the two PostgreSQL roles of requests and jobs, and grant them to the server's login.

No client signs in as one of these roles. The login is a member of both and switches to one of them in each
transaction, so that requests never run as the owner of the tables or as a superuser, which bypass policies.
"""

from __future__ import annotations

import time
from itertools import product

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db.rls.session_role import APPLICATION_ROLE, SYSTEM_ROLE

ROLES = (APPLICATION_ROLE, SYSTEM_ROLE)
MAX_ATTEMPTS = 5

_INSUFFICIENT_PRIVILEGE = "42501"
# Roles belong to the whole cluster: a process that prepares another database may create them first.
_CONCURRENT_CHANGE_STATES = ("42710", "23505", "XX000", "40001")


class RolesMissing(Exception):
    """A role is missing or a login is not a member. The message names the statements to run."""


def prepare_roles(connection: Connection, login: str | None = None) -> None:
    """Create the roles that are missing, and make the current login and `login` members of both.

    `login` can also read the revision of the database: a server whose login owns nothing checks it at start.

    Raises:
        RolesMissing: The current login lacks the privileges, or `login` does not exist.
    """
    for attempt in range(MAX_ATTEMPTS):
        statements = _list_missing_statements(connection, login)
        try:
            # A savepoint, because a failed statement would end the caller's transaction.
            with connection.begin_nested():
                for statement in statements:
                    connection.execute(text(statement))
            return
        except DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None)
            if state == _INSUFFICIENT_PRIVILEGE:
                listing = "".join(f"\n    {statement};" for statement in statements)
                raise RolesMissing(f"A superuser of PostgreSQL must run, once:{listing}") from error
            if state not in _CONCURRENT_CHANGE_STATES or attempt == MAX_ATTEMPTS - 1:
                raise
            time.sleep(0.1 * (attempt + 1))


def _list_missing_statements(connection: Connection, login: str | None) -> list[str]:
    existing = set(connection.scalars(text("SELECT rolname FROM pg_roles")))
    current = connection.scalar(text("SELECT current_user"))
    # The attributes are explicit because row-level security relies on them.
    create_statements = [
        f"CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT"
        for role in ROLES
        if role not in existing
    ]
    logins = {str(name) for name in (current, login) if name is not None}
    is_member = text("SELECT pg_has_role(:login, :role, 'MEMBER')")
    quote = connection.dialect.identifier_preparer.quote
    unknown = logins - existing
    if unknown:
        raise RolesMissing(f"PostgreSQL has no role {unknown.pop()}, which DATABASE_URL signs in as")
    grant_statements = [
        f"GRANT {role} TO {quote(name)}"
        for name, role in product(sorted(logins), ROLES)
        if role not in existing or not connection.scalar(is_member, {"login": name, "role": role})
    ]
    return create_statements + grant_statements + _list_revision_grants(connection, login)


def _list_revision_grants(connection: Connection, login: str | None) -> list[str]:
    """Return the statement that lets a login read the revision, if the table exists and it cannot."""
    if login is None or connection.scalar(text("SELECT to_regclass('public.alembic_version')")) is None:
        return []
    can_read = text("SELECT has_table_privilege(:login, 'public.alembic_version', 'SELECT')")
    if connection.scalar(can_read, {"login": login}):
        return []
    return [
        f"GRANT SELECT ON public.alembic_version TO {connection.dialect.identifier_preparer.quote(login)}"
    ]
