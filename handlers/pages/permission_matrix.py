"""Who may call what: the matrix of operations and roles, read from the contract alone.

The page for people and the tests of every role take it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from handlers.contract.document import Document

ROLES = ("superuser", "owner", "admin", "member", "viewer", "personal", "key", "anonymous")
"""The columns. `x-permissions` of the contract names all but the last; its description says what they are."""


@dataclass(frozen=True)
class Row:
    """One operation: the permission it wants and who has it, or why it wants no token."""

    operation_id: str
    method: str
    path: str
    tag: str
    permission: str | None
    roles: frozenset[str]
    public: str | None


def build_permission_matrix(contract: dict[str, Any]) -> dict[str, list[Row]]:
    """Return for each tag of a bundle the rows of its operations; KeyError for a permission of nobody."""
    tables: dict[str, list[Row]] = {}
    for operation in Document(contract).operations():
        definition = operation.definition
        tag, permission = definition["tags"][0], definition.get("x-permission")
        roles = contract["x-permissions"][permission] if permission else ROLES
        place = (operation.operation_id, operation.method, operation.path, tag)
        row = Row(*place, permission, frozenset(roles), definition.get("x-public"))
        tables.setdefault(tag, []).append(row)
    return tables
