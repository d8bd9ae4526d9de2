"""Compare the credentials that the operations of two normalized documents need.

An operation without `security` has that of the document. Of several requirements, a caller needs to meet one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .change import Change
from .documents import METHODS, Node, join_pointer
from .usage import list_path_items, name_operation

WITH = " with "
"""What joins the names of credentials that are all needed."""
Requirement = dict[str, set[str]]
"""The scopes of each scheme of a requirement."""


def list_security_changes(base: Node, revision: Node) -> Iterator[Change]:
    """Yield the changes of credentials. Wider access has the impact "security"."""
    old, new = _list_operations(base), _list_operations(revision)
    for name, (label, pointer, now) in new.items():
        was = old[name][2] if name in old else None
        if {} in now and (was is None or {} not in was):
            text = f"`{label}` can be called by everybody, without authentication."
            yield Change("security", (name,), text, pointer)
        if was is None:
            continue
        yield from (
            Change("breaking", (name,), text, f"{pointer}/security") for text in _list_breaks(was, now)
        )
        if {} in was:
            continue
        schemes = [frozenset(one) for one in was]
        for added in sorted({frozenset(one) for one in now} - set(schemes) - {frozenset()}, key=sorted):
            if any(one < added for one in schemes):
                continue  # One more credential is asked for.
            text = f"`{label}` also accepts `{WITH.join(sorted(added))}`."
            yield Change("security", (name,), text, f"{pointer}/security")


def _list_breaks(was: list[Requirement], now: list[Requirement]) -> Iterator[str]:
    """Yield a sentence for each requirement that is not enough any more."""
    for requirement in was:
        if any(_is_enough(requirement, one) for one in now):
            continue
        names = " + ".join(requirement)
        scopes = {
            scope
            for one in now
            if one.keys() == requirement.keys()
            for name, needed in one.items()
            for scope in needed - requirement[name]
        }
        if not requirement:
            yield "Authentication became required."
        elif scopes:
            listed = ", ".join(f"`{scope}`" for scope in sorted(scopes))
            yield f"Security requirement `{names}` needs more scopes: {listed}."
        else:
            yield f"Security requirement `{names}` is no longer accepted."


def _is_enough(given: Requirement, needed: Requirement) -> bool:
    return all(name in given and scopes <= given[name] for name, scopes in needed.items())


def _list_operations(contract: Node) -> dict[str, tuple[str, str, list[Requirement]]]:
    """Return the operationId, the pointer and the requirements of each operation."""
    default = contract.get("security")
    return {
        (name := name_operation(root, path, method)): (
            item[method].get("operationId") or name,
            "#" + join_pointer([root, path, method]),
            _read(item[method].get("security", default)),
        )
        for root, path, item in list_path_items(contract)
        if root == "paths"
        for method in METHODS
        if method in item
    }


def _read(security: Any) -> list[Requirement]:
    """Return the requirements. Without one, or with an empty one, no credential is needed."""
    found = [
        {name: {str(scope) for scope in scopes or []} for name, scopes in one.items()}
        for one in security or []
        if isinstance(one, dict)
    ]
    return found or [{}]
