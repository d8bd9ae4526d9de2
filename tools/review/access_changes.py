"""Compare who may call the operations of two bundles: permissions, roles and credentials.

Redocly does not know `x-permission`, and does not treat wider access as a change that a reviewer must see.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from tools.project import Document, build_permission_matrix, join_pointer
from tools.review.change import Change

Node = dict[str, Any]


class Access(NamedTuple):
    """Who may call an operation. `schemes` is empty for an operation without authentication."""

    operation_id: str
    permission: str | None
    roles: frozenset[str]
    schemes: frozenset[str]


def list_access_changes(base: Node, revision: Node) -> Iterator[Change]:
    """Yield the changes of roles and credentials. Wider access has the impact "security"."""
    before, after = _list_access(base), _list_access(revision)
    yield from _permission_changes(base, revision, before, after)
    for name, now in after.items():
        method, path = name.split(" ", 1)
        pointer = "#" + join_pointer(["paths", path, method.lower()])
        was = before.get(name)
        if not now.schemes and (was is None or was.schemes):
            text = f"`{now.operation_id}` can be called by everybody, without authentication."
            yield Change("security", (name,), text, pointer)
        if was is None:
            continue
        for scheme in sorted(now.schemes - was.schemes) if was.schemes else ():
            text = f"`{now.operation_id}` also accepts `{scheme}`."
            yield Change("security", (name,), text, f"{pointer}/security")
        # One sentence for each changed permission tells of the other operations. Without a permission no role
        # is known; a project rule reports that.
        if was.permission != now.permission and now.permission and now.schemes and was.schemes:
            pointer = f"{pointer}/x-permission"
            if removed := sorted(was.roles - now.roles):
                text = f"`{now.operation_id}` is no longer allowed for: {', '.join(removed)}."
                yield Change("breaking", (name,), text, pointer)
            if added := sorted(now.roles - was.roles):
                text = f"`{now.operation_id}` is now also allowed for: {', '.join(added)}."
                yield Change("security", (name,), text, pointer)


def _permission_changes(
    base: Node, revision: Node, before: dict[str, Access], after: dict[str, Access]
) -> Iterator[Change]:
    """Yield the changes of the roles of each permission, with the operations that need it."""
    old, new = base.get("x-permissions", {}), revision.get("x-permissions", {})
    for permission in old.keys() & new.keys():
        was, now = set(old[permission]), set(new[permission])
        names = tuple(
            name
            for name, access in after.items()
            if access.permission == permission and name in before and before[name].permission == permission
        )
        pointer = "#" + join_pointer(["x-permissions", permission])
        if names and (removed := sorted(was - now)):
            text = f"The permission `{permission}` is no longer granted to: {', '.join(removed)}."
            yield Change("breaking", names, text, pointer)
        if names and (added := sorted(now - was)):
            text = f"The permission `{permission}` is now also granted to: {', '.join(added)}."
            yield Change("security", names, text, pointer)


def _list_access(contract: Node) -> dict[str, Access]:
    """Return the access to each `METHOD path`."""
    # A permission that is missing in `x-permissions` is granted to no role. A project rule reports it.
    permissions = defaultdict(list, contract.get("x-permissions", {}))
    matrix = build_permission_matrix({**contract, "x-permissions": permissions})
    default: list[Node] = contract.get("security", [])
    security: dict[str, list[Node]] = {
        f"{one.method} {one.path}": one.definition.get("security", default)
        for one in Document(contract).operations()
    }
    table = {}
    for row in (row for rows in matrix.values() for row in rows):
        name = f"{row.method} {row.path}"
        # An empty requirement makes authentication optional.
        schemes = frozenset() if {} in security[name] else frozenset(map(_name_scheme, security[name]))
        table[name] = Access(row.operation_id, row.permission, row.roles, schemes)
    return table


def _name_scheme(requirement: Node) -> str:
    return " with ".join(sorted(requirement))
