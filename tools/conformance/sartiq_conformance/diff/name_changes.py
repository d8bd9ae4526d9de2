"""Compare the names of schemas, which are the names of classes in generated clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from .change import Change
from .documents import SCHEMAS, Node

FindOperations = Callable[[str], tuple[str, ...]]
"""Returns the operations that use the node at a pointer of the old document."""
TEXTS = {"description", "title", "example"}


def list_schema_name_changes(base: Node, revision: Node, find_operations: FindOperations) -> Iterator[Change]:
    """Yield the schemas that have another name, or are gone."""
    old, new = (contract["components"].get("schemas", {}) for contract in (base, revision))
    added = {name: _fingerprint(new[name], name) for name in new.keys() - old.keys()}
    for name in old.keys() - new.keys():
        pointer = SCHEMAS + name
        operations = find_operations(pointer)
        same = [one for one, text in added.items() if text == _fingerprint(old[name], name)]
        if same:
            text = f"The schema `{name}` is named `{same[0]}` now."
            yield Change("imports", operations, text, SCHEMAS + same[0])
        elif operations:
            yield Change("imports", operations, f"There is no schema `{name}` any more.", pointer)


def _fingerprint(schema: Any, name: str) -> str:
    """Return a text that is equal for two schemas that differ only in their names and descriptions."""
    text = json.dumps(_without_texts(schema), sort_keys=True)
    return text.replace(f'"{SCHEMAS}{name}"', '"#"')


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
