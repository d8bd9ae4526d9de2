"""Compare names of two bundles that programs rely on: codes of problems, and types of webhook events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tools.conformance.sartiq_conformance.diff.change import Change
from tools.project import join_pointer

Node = dict[str, Any]
FindOperations = Callable[[str], tuple[str, ...]]
"""Returns the operations that use the node at a pointer of the old contract."""
PROBLEM_CODES = "x-problem-codes"
EVENT_TYPES = "WebhookEventType"


def list_name_changes(base: Node, revision: Node, find_operations: FindOperations) -> Iterator[Change]:
    """Yield the changes of problem codes and event types."""
    yield from _problem_code_changes(base, revision)
    yield from _event_type_changes(base, revision, find_operations)


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
    """Yield the event types that are not sent any more. As a response, an enumeration may lose values."""
    old, new = (_schemas(contract).get(EVENT_TYPES, {}).get("enum", []) for contract in (base, revision))
    pointer = f"#/components/schemas/{EVENT_TYPES}"
    for event_type in (one for one in old if new and one not in new):
        text = f"The webhook event `{event_type}` is no longer sent."
        yield Change("breaking", find_operations(pointer), text, f"{pointer}/enum")


def _schemas(contract: Node) -> Node:
    schemas: Node = contract.get("components", {}).get("schemas", {})
    return schemas
