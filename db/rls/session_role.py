"""Set the database role of a transaction, which PostgreSQL's row-level security policies read.

The policies themselves are in `db/migrations/frozen/policies.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Function,
    String,
    bindparam,
    case,
    func,
    literal_column,
    select,
    true,
)

from db.libpq.statements import Query

APPLICATION_ROLE = "sartiq_app"
"""The role of requests: policies limit it to the rows of one caller."""
SYSTEM_ROLE = "sartiq_system"
"""The role of sign-in, jobs and maintenance: it sees the rows of all tenants."""
MIGRATING = "sartiq.migrating"
"""The setting that lets the owner of the tables see all rows, for migrations."""


# Frozen, because roles are compared to find out whether a statement is needed to switch.
@dataclass(frozen=True)
class SessionRole:
    """A database role and, for the application role, the caller whose rows it sees.

    A guest has a `shooting_id`, no organizations, and the id of the review link as `user_id`.
    """

    name: str
    user_id: UUID | None = None
    organization_ids: Collection[UUID] = ()
    is_superuser: bool = False
    shooting_id: UUID | None = None


SYSTEM = SessionRole(SYSTEM_ROLE)
ANONYMOUS = SessionRole(APPLICATION_ROLE)
"""The application role without a caller: it sees public rows only."""


def set_config_expression(
    role: Any, user_id: Any, organizations: Any, is_superuser: Any, shooting_id: Any
) -> Function[str]:
    """Return an expression that sets the role of the rest of the transaction when a statement selects it.

    The settings are local to the transaction, so the pool gets the connection back unchanged. They are one
    column, and their names are literals, because the driver spends time on each column and parameter.

    The application role also gets generic plans. PostgreSQL takes a plan for the values of one execution to
    be cheaper wherever a value is rare or an array is short, and plans the policies anew for each request: a
    page of three products cost it more than one of twenty. The indexes of a tenant's rows fit any value. The
    system role keeps the default: the queues look for a few waiting rows among millions of ended ones.

    Args:
        role: The role's name, as a text expression of SQL. So are the others.
        user_id: The caller's id, or an empty text.
        organizations: The ids of the caller's organizations as an array literal, such as `{}`.
        is_superuser: `on` or `off`.
        shooting_id: The only shooting that a guest sees, or an empty text.
    """
    is_application = role == sql_literal(APPLICATION_ROLE)
    settings = {
        "role": role,
        "plan_cache_mode": case(
            (is_application, sql_literal("force_generic_plan")), else_=sql_literal("auto")
        ),
        "sartiq.user_id": user_id,
        "sartiq.organizations": organizations,
        "sartiq.is_superuser": is_superuser,
        "sartiq.shooting_id": shooting_id,
    }
    # `true()` makes each setting local to the transaction, like SET LOCAL.
    return func.concat(
        *(func.set_config(sql_literal(name), value, true()) for name, value in settings.items())
    )


def sql_literal(value: str) -> ColumnElement[str]:
    """Return a constant of this code base as a literal of SQL. It is not escaped."""
    return literal_column(f"'{value}'", String)


# Built once, because most transactions run it.
_SET_ROLE = select(
    set_config_expression(
        *map(bindparam, ("role", "user_id", "organizations", "is_superuser", "shooting_id"))
    )
)


def role_query(role: SessionRole) -> Query:
    """Return the query that sets the role for the rest of the running transaction."""
    return Query(
        _SET_ROLE,
        {
            "role": role.name,
            "user_id": str(role.user_id or ""),
            # Settings are text, so this is an array literal.
            "organizations": "{" + ",".join(map(str, role.organization_ids)) + "}",
            "is_superuser": "on" if role.is_superuser else "off",
            "shooting_id": str(role.shooting_id or ""),
        },
    )


def set_role(connection: Connection, role: SessionRole) -> None:
    """Set the role for the rest of the running transaction, with one statement."""
    connection.execute(*role_query(role))


def bypass_rls(connection: Connection) -> None:
    """Continue as the login, which sees every row if it owns the tables. For migrations and copies."""
    connection.execute(select(func.set_config("role", "none", True), func.set_config(MIGRATING, "on", True)))
