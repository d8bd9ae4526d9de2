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

from tools.conformance.sartiq_conformance.diff.documents import SCHEMAS
from tools.conformance.sartiq_conformance.diff.open_enumerations import MARK, SUFFIX, rename_references
from tools.project import METHODS

Node = dict[str, Any]

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
        rename_references(part, {SCHEMAS + name: SCHEMAS + new_name for name, new_name in inputs.items()})
    for name in marked & set(inputs):
        del schemas[inputs[name]][MARK]
    for name in marked - (sent - shared):
        schemas[name][MARK] = schemas[name].pop("enum")


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
        if str(node.get("$ref")).startswith(SCHEMAS):
            yield node["$ref"].removeprefix(SCHEMAS)
        for child in node.values():
            yield from _list_references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _list_references(child)
