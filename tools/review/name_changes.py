"""Compare names of two bundles that programs rely on and Redocly does not compare.

These are the codes of problems, the types of webhook events, and the names of schemas and tags, which are
the names of classes and modules in generated clients.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tools.project import join_pointer
from tools.review.change import Change

Node = dict[str, Any]
FindOperations = Callable[[str], tuple[str, ...]]
"""Returns the operations that use the node at a pointer of the old contract."""
PROBLEM_CODES = "x-problem-codes"
EVENT_TYPES = "WebhookEventType"
TEXTS = {"description", "title", "example"}


def list_name_changes(base: Node, revision: Node, find_operations: FindOperations) -> Iterator[Change]:
    """Yield the changes of problem codes, event types and names of schemas."""
    yield from _problem_code_changes(base, revision)
    yield from _event_type_changes(base, revision, find_operations)
    yield from _schema_name_changes(base, revision, find_operations)


def _problem_code_changes(base: Node, revision: Node) -> Iterator[Change]:
    old, new = base.get(PROBLEM_CODES), revision.get(PROBLEM_CODES)
    if old is None or new is None:
        return  # Contracts before 0.2 did not list their codes.
    for code, status in old.items():
        pointer = "#" + join_pointer([PROBLEM_CODES, code])
        if code not in new:
            yield Change("breaking", (), f"The problem code `{code}` was removed.", pointer)
        elif new[code] != status:
            text = f"The status of the problem code `{code}` is `{new[code]}`, was `{status}`."
            yield Change("breaking", (), text, pointer)
    for code in new.keys() - old.keys():
        pointer = "#" + join_pointer([PROBLEM_CODES, code])
        yield Change("added", (), f"The problem code `{code}` is new.", pointer)


def _event_type_changes(base: Node, revision: Node, find_operations: FindOperations) -> Iterator[Change]:
    """Yield the event types that are not sent any more. Redocly sees only a response that is narrower."""
    old, new = (_schemas(contract).get(EVENT_TYPES, {}).get("enum", []) for contract in (base, revision))
    pointer = f"#/components/schemas/{EVENT_TYPES}"
    for event_type in (one for one in old if new and one not in new):
        text = f"The webhook event `{event_type}` is no longer sent."
        yield Change("breaking", find_operations(pointer), text, f"{pointer}/enum")


def _schema_name_changes(base: Node, revision: Node, find_operations: FindOperations) -> Iterator[Change]:
    old, new = _schemas(base), _schemas(revision)
    added = {name: _fingerprint(new[name], name) for name in new.keys() - old.keys()}
    for name in old.keys() - new.keys():
        pointer = f"#/components/schemas/{name}"
        operations = find_operations(pointer)
        same = [one for one, text in added.items() if text == _fingerprint(old[name], name)]
        if same:
            text = f"The schema `{name}` is named `{same[0]}` now."
            yield Change("imports", operations, text, f"#/components/schemas/{same[0]}")
        elif operations:
            yield Change("imports", operations, f"There is no schema `{name}` any more.", pointer)


def _schemas(contract: Node) -> Node:
    schemas: Node = contract.get("components", {}).get("schemas", {})
    return schemas


def _fingerprint(schema: Node, name: str) -> str:
    """Return a text that is equal for two schemas that differ only in their names and descriptions."""
    text = json.dumps(_without_texts(schema), sort_keys=True)
    return text.replace(f'"#/components/schemas/{name}"', '"#"')


def _without_texts(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_texts(child) for child in node]
    if isinstance(node, dict):
        return {
            key: _without_texts(child)
            for key, child in node.items()
            if key not in TEXTS or isinstance(child, dict)
        }
    return node
