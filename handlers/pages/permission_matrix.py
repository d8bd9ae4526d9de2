"""The matrix of operations and roles, read from the contract. The permissions page and the tests use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from handlers.contract.deprecation import has_ended
from handlers.contract.document import Document

ROLES = ("superuser", "owner", "admin", "member", "viewer", "personal", "key", "guest", "anonymous")
"""The columns: the roles in `x-permissions` of the contract, guests, and callers without a token."""


@dataclass(frozen=True)
class Row:
    """An operation with its permission and the roles that have it, or the reason why it is public."""

    operation_id: str
    method: str
    path: str
    tag: str
    permission: str | None
    roles: frozenset[str]
    public: str | None


def build_permission_matrix(contract: dict[str, Any]) -> dict[str, list[Row]]:
    """Return the rows of the operations that have not ended, by tag.

    Raises:
        KeyError: No role has a permission.
    """
    tables: dict[str, list[Row]] = {}
    for operation in Document(contract).operations():
        definition = operation.definition
        if has_ended(definition):
            continue
        tag, permission = definition["tags"][0], definition.get("x-permission")
        roles = set(contract["x-permissions"][permission]) if permission else set(ROLES)
        if definition.get("x-guest-access"):
            roles.add("guest")
        row = Row(
            operation.operation_id,
            operation.method,
            operation.path,
            tag,
            permission,
            frozenset(roles),
            definition.get("x-public"),
        )
        tables.setdefault(tag, []).append(row)
    return tables
