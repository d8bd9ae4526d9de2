"""Compare what extensions say about callers in two bundles: permissions, roles, limits and audit.

The comparison of any two documents does not know them; it compares credentials. An extension is judged by its
effect on callers: see `EXTENSIONS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tools.conformance.sartiq_conformance.diff.change import Change
from tools.project import BodyLimits, Document, build_permission_matrix, join_pointer

Node = dict[str, Any]


KEY = "key"
"""The role of API keys."""
Effect = tuple[str, str]
"""An impact and a sentence."""


def _compare_limits(text: str, default: int) -> Callable[[Any, Any], Effect | None]:
    """Return the judge of a limit. An operation without the extension has the default."""

    def compare(was: int | None, now: int | None) -> Effect | None:
        old, new = (default if value is None else value for value in (was, now))
        if old == new:
            return None
        return "breaking" if new < old else "changed", f"{text} is `{new}`, was `{old}`."

    return compare


def _compare_flags(gained: Effect, lost: Effect) -> Callable[[Any, Any], Effect | None]:
    """Return the judge of an extension that is there or not. Its value may be a reason, which is a text."""

    def compare(was: Any, now: Any) -> Effect | None:
        return None if bool(was) == bool(now) else gained if now else lost

    return compare


EXTENSIONS: dict[str, Callable[[Any, Any], Effect | None]] = {
    "x-max-body-bytes": _compare_limits("The maximum size of the request body in bytes", BodyLimits().json),
    "x-max-items": _compare_limits("The maximum number of values in the request body", BodyLimits().items),
    "x-guest-access": _compare_flags(
        ("security", "Guests with a review link can now call the operation."),
        ("breaking", "Guests with a review link can no longer call the operation."),
    ),
    "x-not-audited": _compare_flags(
        ("security", "The audit log no longer has the operation (`x-not-audited`)."),
        ("changed", "The audit log now has the operation."),
    ),
    "x-not-limited": _compare_flags(
        ("security", "The operation has no rate limit any more (`x-not-limited`)."),
        ("changed", "The operation now has a rate limit."),
    ),
    "x-signed-body": _compare_flags(
        ("breaking", "The body must now be signed."),
        ("security", "The signature of the body is no longer verified (`x-signed-body`)."),
    ),
    "x-provider-session-access": _compare_flags(
        ("security", "Sessions of identity providers can now call the operation."),
        ("breaking", "Sessions of identity providers can no longer call the operation."),
    ),
    "x-ignores-unknown-parameters": _compare_flags(
        ("changed", "The operation now ignores query parameters that it does not list."),
        ("breaking", "The operation now rejects query parameters that it does not list."),
    ),
}
"""What the change of an extension of an operation means for callers."""


class Access(NamedTuple):
    """Who may call an operation."""

    operation_id: str
    permission: str | None
    roles: frozenset[str]
    needs_credential: bool
    definition: Node


def list_access_changes(base: Node, revision: Node) -> Iterator[Change]:
    """Yield the changes of roles and limits. Wider access has the impact "security"."""
    before, after = _list_access(base), _list_access(revision)
    yield from _permission_changes(base, revision, before, after)
    for name, now in after.items():
        method, path = name.split(" ", 1)
        pointer = "#" + join_pointer(["paths", path, method.lower()])
        was = before.get(name)
        if was is None:
            continue
        for extension, compare in EXTENSIONS.items():
            if effect := compare(was.definition.get(extension), now.definition.get(extension)):
                yield Change(effect[0], (name,), effect[1], f"{pointer}/{extension}")
        for media_type, (old, new) in _list_limits(base, revision, was, now):
            compare = _compare_limits(f"The maximum size of `{media_type}` in bytes", BodyLimits().upload)
            if effect := compare(old, new):
                yield Change(effect[0], (name,), effect[1], f"{pointer}/requestBody")
        # Without a permission no role is known; a project rule reports that.
        if (
            was.permission != now.permission
            and now.permission
            and now.needs_credential
            and was.needs_credential
        ):
            for impact, text in _compare_permissions(was, now):
                yield Change(impact, (name,), text, f"{pointer}/x-permission")


def _list_limits(base: Node, revision: Node, was: Access, now: Access) -> Iterator[tuple[str, list[Any]]]:
    """Yield the limits of each media type that both operations accept."""
    old, new = (
        Document(contract).resolve(one.definition.get("requestBody", {})).get("content", {})
        for contract, one in ((base, was), (revision, now))
    )
    for media_type in old.keys() & new.keys():
        yield media_type, [one[media_type].get("x-max-body-bytes") for one in (old, new)]


def _compare_permissions(was: Access, now: Access) -> Iterator[Effect]:
    """Yield the effects of another permission. One sentence for each permission tells of changed roles."""
    operation = f"`{now.operation_id}`"
    if removed := sorted(was.roles - now.roles):
        yield "breaking", f"{operation} is no longer allowed for: {', '.join(removed)}."
    if added := sorted(now.roles - was.roles):
        yield "security", f"{operation} is now also allowed for: {', '.join(added)}."
    if was.permission and KEY in was.roles & now.roles:
        # Roles have permissions, but an API key has only those that its maker chose as scopes.
        yield (
            "breaking",
            f"API keys need the scope `{now.permission}` for {operation}, was `{was.permission}`.",
        )
        yield "security", f"API keys with the scope `{now.permission}` can now call {operation}."
    elif was.roles == now.roles:
        yield (
            "changed",
            f"{operation} needs `{now.permission}`, was `{was.permission}`, which the same roles have.",
        )


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
    definitions = {f"{one.method} {one.path}": one.definition for one in Document(contract).operations()}
    table = {}
    for row in (row for rows in matrix.values() for row in rows):
        name = f"{row.method} {row.path}"
        # An empty requirement makes authentication optional.
        security = definitions[name].get("security", default)
        needs_credential = bool(security) and {} not in security
        table[name] = Access(row.operation_id, row.permission, row.roles, needs_credential, definitions[name])
    return table
