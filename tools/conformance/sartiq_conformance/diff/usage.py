"""Find the operations of a document that use a part of it, in requests or in responses."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from .documents import METHODS, OPERATION_ROOTS, Node, follow, join_pointer, resolve_pointer, split_pointer

OTHER = {"request": "response", "response": "request"}
LEFT_OUT = {"request": "readOnly", "response": "writeOnly"}
"""The keywords of properties that are in no request, or in no response."""


class ComponentUsage:
    """The operations of a document that use each component, in requests or in responses."""

    def __init__(self, contract: Node) -> None:
        self.contract = contract
        self.names: dict[str, str] = {}
        """The operationId of each operation, or `METHOD path` if it has none."""
        self.steps: dict[str, list[str]] = {}
        self._uses: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
        self._seen: set[tuple[str, str, str]] = set()
        for root, path, item in list_path_items(contract):
            for method in (method for method in METHODS if method in item):
                name = name_operation(root, path, method)
                self.names[name] = item[method].get("operationId") or name
                self.steps[name] = [root, path, method]
                for node, direction in _list_parts(item, item[method], root == "paths"):
                    self._follow(node, name, direction)

    def _follow(self, node: Any, name: str, direction: str) -> None:
        pending = [node]
        while pending:
            node = pending.pop()
            if isinstance(node, list):
                pending += node
            if not isinstance(node, dict) or node.get(LEFT_OUT[direction]) is True:
                continue
            reference = node.get("$ref")
            if isinstance(reference, str) and (reference, name, direction) not in self._seen:
                self._seen.add((reference, name, direction))
                self._uses[_find_component(reference)][direction][name] = None
                pending.append(resolve_pointer(self.contract, reference))
            pending += node.values()

    def find_operations(self, pointer: str) -> tuple[tuple[str, ...], set[str]]:
        """Return the operations that use a node, and its directions: `request`, `response` or both."""
        root, *steps = split_pointer(pointer) or [""]
        if root in OPERATION_ROOTS and steps[1:2] and steps[1] in METHODS:
            return (name_operation(root, steps[0], steps[1]),), self._narrow(
                pointer, {_find_direction(root, steps)}
            )
        if root in OPERATION_ROOTS:
            wanted = [root, *steps[:1]]
            names = tuple(name for name, own in self.steps.items() if own[: len(wanted)] == wanted)
            return names, {"request" if root == "paths" else "response"}
        uses = self._uses.get(_find_component(pointer), {})
        names = tuple(name for name in self.names if any(name in operations for operations in uses.values()))
        return names, self._narrow(pointer, set(uses))

    def _narrow(self, pointer: str, directions: set[str]) -> set[str]:
        """Return the directions without those in which a property around the node is not sent."""
        steps = split_pointer(pointer)
        for length in range(len(steps) - 1, 3, -1):
            node = resolve_pointer(self.contract, join_pointer(steps[:length]))
            for direction, word in LEFT_OUT.items():
                if isinstance(node, dict) and node.get(word) is True and steps[length - 2] == "properties":
                    directions = directions - {direction}
        return directions

    def select_known(self, operations: tuple[str, ...], new: ComponentUsage) -> tuple[str, ...]:
        """Return the operations of the new contract that this one has, perhaps at another path."""
        ids = {_remove_names(one) for one in (*self.names, *self.names.values())}
        return tuple(name for name in operations if {_remove_names(name), new.names.get(name)} & ids)

    def has_other_success(self, pointer: str) -> bool:
        """Return whether a response is successful, and the operation had other successful responses only."""
        steps = split_pointer(pointer)
        if steps[:1] != ["paths"] or len(steps) != 5 or not steps[4].startswith("2"):
            return False
        responses = resolve_pointer(self.contract, join_pointer(steps[:4])) or {}
        return any(status.startswith("2") for status in responses)


def _remove_names(path: str) -> str:
    """Return a path without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def list_path_items(contract: Node) -> Iterator[tuple[str, str, Node]]:
    """Yield `paths` or `webhooks`, the path or the event, and its operations."""
    for root in OPERATION_ROOTS:
        for path, item in contract.get(root, {}).items():
            if root == "webhooks" or path.startswith("/"):
                yield root, path, follow(contract, item)


def name_operation(root: str, path: str, method: str) -> str:
    """Return the name of an operation in changes."""
    return f"{method.upper() if root == 'paths' else 'WEBHOOK'} {path}"


def operation_ids_by_path(contract: Node) -> dict[str, str]:
    """Return the operationId of each `METHOD path`. An operation without one has its name."""
    return {
        (name := name_operation(root, path, method)): item[method].get("operationId") or name
        for root, path, item in list_path_items(contract)
        if root == "paths"
        for method in METHODS
        if method in item
    }


def _list_parts(item: Node, operation: Node, is_sent_by_client: bool) -> Iterator[tuple[Any, str]]:
    """Yield the parts of an operation with their directions. A callback is sent by the server."""
    sent, received = ("request", "response") if is_sent_by_client else ("response", "request")
    yield [item.get("parameters"), operation.get("parameters"), operation.get("requestBody")], sent
    yield operation.get("responses"), received
    for callback in operation.get("callbacks", {}).values():
        for child in callback.values():
            for method in (method for method in METHODS if isinstance(child, dict) and method in child):
                yield from _list_parts(child, child[method], not is_sent_by_client)


def _find_direction(root: str, steps: list[str]) -> str:
    """Return the direction of a node of an operation: `steps` are the path, the method, and what follows."""
    direction, rest = "request" if root == "paths" else "response", steps[1:]
    while rest[1:2] == ["callbacks"]:
        # The method, `callbacks`, the name and the expression: the method of the callback follows.
        direction, rest = OTHER[direction], rest[4:]
    return OTHER[direction] if rest[1:2] == ["responses"] else direction


def _find_component(pointer: str) -> str:
    return "#/" + "/".join(pointer.removeprefix("#").removeprefix("/").split("/")[:3])
