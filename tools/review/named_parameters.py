"""Give each parameter of an operation a name under which Redocly finds it in the other contract.

Redocly pairs the members of a list that are equal, and then those with similar texts. Two parameters of one
operation whose descriptions change were reported as renamed and as having each other's bounds.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from tools.project import METHODS, join_pointer

Node = dict[str, Any]
COMPONENTS = "#/components/parameters/"


def name_parameters(contract: Node) -> tuple[Node, dict[str, str]]:
    """Return a copy whose inline parameters are components, and their old pointers by the new ones.

    Parameters in paths stay: their similarity shows that one was renamed.
    """
    contract = copy.deepcopy(contract)
    components = contract.setdefault("components", {}).setdefault("parameters", {})
    pointers: dict[str, str] = {}
    for path, item in contract["paths"].items():
        for method in (method for method in METHODS if method in item):
            # Also an empty list: otherwise the loss of all parameters would look like that of the operation.
            parameters = item[method].setdefault("parameters", [])
            for index, parameter in enumerate(parameters):
                if "$ref" in parameter or parameter.get("in") == "path":
                    continue
                # A hash, because similar references would be paired, too.
                text = f"{method} {path} {parameter.get('in')} {parameter.get('name')}"
                name = hashlib.sha256(text.encode()).hexdigest()
                components[name], parameters[index] = parameter, {"$ref": COMPONENTS + name}
                pointers[COMPONENTS + name] = "#" + join_pointer(
                    ["paths", path, method, "parameters", str(index)]
                )
    return contract, pointers


def restore_pointers(raw: Node, base: dict[str, str], revision: dict[str, str]) -> Node | None:
    """Return a change of Redocly's report with the old pointers, or None if it is about the new names."""
    for side, pointers in (("base", base), ("revision", revision)):
        pointer = raw.get(side, {}).get("pointer", "")
        if pointer in pointers and raw["kind"] != "modified":
            return None
        if pointer:
            raw[side]["pointer"] = restore_pointer(pointer, pointers)
    return raw


def restore_pointer(pointer: str, pointers: dict[str, str]) -> str:
    """Return the old pointer of a node."""
    component = "/".join(pointer.split("/")[:4])
    return pointers.get(component, component) + pointer.removeprefix(component)
