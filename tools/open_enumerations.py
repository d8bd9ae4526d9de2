"""Publish the enumerations that may grow as open ones, where clients read them.

The YAML marks such an enumeration with `x-extensible-enum: true`. In a bundle, responses have the form of the
RESTful API Guidelines of Zalando (rule 112): a text, with its known values as `x-extensible-enum`. So
generated clients accept values that a later release adds. Requests keep `enum`. A component that both use is
published as two: `ShotStatus` and, for requests, `ShotStatusInput`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from tools.project import METHODS

Node = dict[str, Any]

MARK = "x-extensible-enum"
SUFFIX = "Input"
"""Ends the name of the component for requests."""
_SCHEMAS = "#/components/schemas/"
_SENT, _RECEIVED = ("parameters", "requestBody"), ("responses", "callbacks")


def open_enumerations(contract: Node) -> None:
    """Give the marked enumerations of a bundle the form that clients read."""
    schemas: Node = contract["components"]["schemas"]
    marked = {name for name, schema in schemas.items() if schema.get(MARK) is True}
    requests = list(_list_parts(contract, sent=True))
    containing = {name for name in schemas if marked & _list_used(schemas, [schemas[name]], {name})}
    sent = containing & _list_used(schemas, requests)
    shared = sent & _list_used(schemas, _list_parts(contract, sent=False))
    inputs = {name: name + SUFFIX if name in shared else name for name in sent}
    if taken := {inputs[name] for name in shared} & set(schemas):
        raise ValueError(f"schemas for requests have these names: {', '.join(sorted(taken))}")
    for name, new_name in inputs.items():
        schemas[new_name] = copy.deepcopy(schemas[name])
    for part in [*requests, *(schemas[name] for name in inputs.values())]:
        _rename(part, {_SCHEMAS + name: _SCHEMAS + new_name for name, new_name in inputs.items()})
    for name in marked & set(inputs):
        del schemas[inputs[name]][MARK]
    for name in marked - (sent - shared):
        schemas[name][MARK] = schemas[name].pop("enum")


def close_enumerations(contract: Node) -> Node:
    """Return a copy of a bundle in the form of the YAML: the opposite of `open_enumerations`."""
    contract = copy.deepcopy(contract)
    schemas: Node = contract.get("components", {}).get("schemas", {})
    names: dict[str, str] = {}
    for name, schema in schemas.items():
        if isinstance(values := schema.get(MARK), list):
            schema |= {"enum": values, MARK: True}
            if schemas.get(name + SUFFIX, {}).get("enum") == values:
                names[name + SUFFIX] = name
    for name in names:
        del schemas[name]
    _rename(contract, {_SCHEMAS + name: _SCHEMAS + new_name for name, new_name in names.items()})
    return contract


def copy_marks(source: Node, target: Node) -> None:
    """Mark the enumerations of a closed bundle that another one marks."""
    marked: Node = source.get("components", {}).get("schemas", {})
    for name, schema in target.get("components", {}).get("schemas", {}).items():
        if "enum" in schema and MARK in marked.get(name, {}):
            schema[MARK] = True


def _list_parts(contract: Node, *, sent: bool) -> Iterator[Any]:
    """Yield the parts of a bundle that clients send, or those that they receive."""
    components = contract["components"]
    for kind in ("parameters", "requestBodies") if sent else ("responses", "headers"):
        yield components.get(kind, {})
    for root in ("paths", "webhooks"):
        # The server sends the request of a webhook, and the client the response.
        words = _SENT if sent == (root == "paths") else _RECEIVED
        for item in contract.get(root, {}).values():
            yield [definition.get(word) for definition in _list_definitions(item) for word in words]


def _list_definitions(item: Node) -> Iterator[Node]:
    yield item
    yield from (item[method] for method in METHODS if method in item)


def _list_used(schemas: Node, parts: Iterable[Any], names: Iterable[str] = ()) -> set[str]:
    """Return these names, and those of the components that parts of a bundle refer to, also indirectly."""
    found, pending = set(names), list(parts)
    while pending:
        for name in set(_list_references(pending.pop())) - found:
            found.add(name)
            pending.append(schemas[name])
    return found


def _list_references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if str(node.get("$ref")).startswith(_SCHEMAS):
            yield node["$ref"].removeprefix(_SCHEMAS)
        for child in node.values():
            yield from _list_references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _list_references(child)


def _rename(node: Any, references: dict[str, str]) -> None:
    """Replace references to schemas, also in the mapping of a discriminator."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if isinstance(child, str):
            node[key] = references.get(child, child)
        else:
            _rename(child, references)
