"""In whose name a transaction works: what PostgreSQL's row-level security goes by, beneath `db/tenancy.py`.

The policies themselves are in `db/rls/policies.py`. On SQLite all of this does nothing.
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
    func,
    literal_column,
    select,
    true,
)

APPLICATION_ROLE = "sartiq_app"
"""Requests of a caller: the rows that the policies let that caller see."""
SYSTEM_ROLE = "sartiq_system"
"""Work of the house itself: signing in, jobs, upkeep."""
MIGRATING = "sartiq.migrating"
"""The setting with which whoever owns the tables sees their rows."""


@dataclass(frozen=True)
class SessionRole:
    """A role of the database and, for the application's, whose rows it sees."""

    name: str
    user_id: UUID | None = None
    organization_ids: Collection[UUID] = ()
    is_superuser: bool = False


SYSTEM = SessionRole(SYSTEM_ROLE)
ANONYMOUS = SessionRole(APPLICATION_ROLE)
"""Sees what is public and nothing else."""


def set_config_expression(role: Any, user_id: Any, organizations: Any, is_superuser: Any) -> Function[str]:
    """What a statement selects to let the rest of its transaction work in a name; each is a text in SQL.

    Local to the transaction, so a connection goes back to the pool as the login that it was. One column, and
    no parameters beside those given, because the driver looks at each of them.
    """
    settings = {
        "role": role,
        "sartiq.user_id": user_id,
        "sartiq.organizations": organizations,
        "sartiq.is_superuser": is_superuser,
    }
    return func.concat(
        *(func.set_config(sql_literal(name), value, true()) for name, value in settings.items())
    )


def sql_literal(value: str) -> ColumnElement[str]:
    """A word of ours as it stands in a statement."""
    return literal_column(f"'{value}'", String)


_SET_ROLE = select(
    set_config_expression(*map(bindparam, ("role", "user_id", "organizations", "is_superuser")))
)


def set_role(connection: Connection, role: SessionRole) -> None:
    """Let the rest of the running transaction work in this name, by one statement."""
    if connection.dialect.name != "postgresql":
        return
    connection.execute(
        _SET_ROLE,
        {
            "role": role.name,
            "user_id": str(role.user_id or ""),
            "organizations": "{" + ",".join(map(str, role.organization_ids)) + "}",
            "is_superuser": "on" if role.is_superuser else "off",
        },
    )


def bypass_rls(connection: Connection) -> None:
    """Go on as the login, which sees every row when it owns the tables: for migrations and moves."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            select(func.set_config("role", "none", True), func.set_config(MIGRATING, "on", True))
        )
