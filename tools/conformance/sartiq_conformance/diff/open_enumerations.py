"""Bring enumerations that may grow into one form: an enumeration with a mark.

In the form of the RESTful API Guidelines of Zalando (rule 112), a text has its known values as
`x-extensible-enum`. A component that requests use as well is then two: `ShotStatus`, and `ShotStatusInput`
with the same values as `enum`.
"""

from __future__ import annotations

import copy
from typing import Any

from .documents import SCHEMAS, Node

MARK = "x-extensible-enum"
SUFFIX = "Input"
"""Ends the name of a component for requests."""


def close_enumerations(contract: Node) -> Node:
    """Return a copy of a document in which each of them is one component, with `enum` and a mark."""
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
    rename_references(contract, {SCHEMAS + name: SCHEMAS + new_name for name, new_name in names.items()})
    return contract


def copy_marks(source: Node, target: Node) -> None:
    """Mark the enumerations of a document that another one marks."""
    marked: Node = source.get("components", {}).get("schemas", {})
    for name, schema in target.get("components", {}).get("schemas", {}).items():
        if "enum" in schema and MARK in marked.get(name, {}):
            schema[MARK] = True


def rename_references(node: Any, references: dict[str, str]) -> None:
    """Replace references to schemas, also in the mapping of a discriminator."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if isinstance(child, str):
            node[key] = references.get(child, child)
        else:
            rename_references(child, references)
