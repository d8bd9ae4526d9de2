"""The two roles of PostgreSQL that requests and jobs work in: made once for a cluster, given to logins.

Nobody signs in as one of them. A login is a member of both and takes the one or the other on in each
transaction, so that neither the owner of the tables nor a superuser ever works.
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
# Databases of one cluster may be prepared at the same time: roles belong to all of them.
_CONCURRENT_CHANGE_STATES = ("42710", "23505", "XX000", "40001")


class RolesMissing(Exception):
    """The roles are not there, or a login is no member; the message says to a person what to run."""


def prepare_roles(connection: Connection, login: str | None = None) -> None:
    """Make the roles where they are missing, and the current login and `login` members of them.

    RolesMissing when the current login may not do that.
    """
    for attempt in range(MAX_ATTEMPTS):
        statements = _list_missing_statements(connection, login)
        try:
            with connection.begin_nested():
                for statement in statements:
                    connection.execute(text(statement))
            return
        except DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None)
            if state == _INSUFFICIENT_PRIVILEGE:
                told = "".join(f"\n    {statement};" for statement in statements)
                raise RolesMissing(f"A superuser of PostgreSQL must run, once:{told}") from error
            if state not in _CONCURRENT_CHANGE_STATES or attempt == MAX_ATTEMPTS - 1:
                raise
            time.sleep(0.1 * (attempt + 1))


def _list_missing_statements(connection: Connection, login: str | None) -> list[str]:
    there = set(connection.scalars(text("SELECT rolname FROM pg_roles")))
    current = connection.scalar(text("SELECT current_user"))
    making = [
        f"CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT" for role in ROLES if role not in there
    ]
    logins = {str(name) for name in (current, login) if name is not None}
    member = text("SELECT pg_has_role(:login, :role, 'MEMBER')")
    quoted = connection.dialect.identifier_preparer.quote
    unknown = logins - there
    if unknown:
        raise RolesMissing(f"PostgreSQL has no role {unknown.pop()}, which DATABASE_URL signs in as")
    granting = [
        f"GRANT {role} TO {quoted(name)}"
        for name, role in product(sorted(logins), ROLES)
        if role not in there or not connection.scalar(member, {"login": name, "role": role})
    ]
    return making + granting
