"""Read the bundle in tests: operations, parameters, and every schema that they refer to."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import pytest

from handlers.contract.coercion import plain_type
from handlers.contract.deprecation import has_ended
from handlers.contract.document import METHODS
from handlers.contract.json_pointer import join_pointer, split_pointer
from tests.architecture.sources import format_findings

COMPOSITIONS = ("allOf", "anyOf", "oneOf")
NULL = {"type": "null"}

Node = dict[str, Any]
T = TypeVar("T")


class Operation(NamedTuple):
    path: str
    method: str
    node: Node

    @property
    def id(self) -> str:
        return self.node["operationId"]


def list_operations(contract: Node) -> Iterator[Operation]:
    """Yield the operations that have not ended."""
    for path, item in contract["paths"].items():
        for method in METHODS:
            if method in item and not has_ended(item[method]):
                yield Operation(path, method, item[method])


def resolve(contract: Node, node: Node) -> Node:
    """Return the node that a reference points to, or the node itself."""
    while "$ref" in node:
        target: Any = contract
        for step in split_pointer(node["$ref"]):
            target = target[step]
        node = target
    return node


def list_parameters(contract: Node, operation: Operation) -> Iterator[Node]:
    shared = contract["paths"][operation.path].get("parameters", [])
    for parameter in shared + operation.node.get("parameters", []):
        yield resolve(contract, parameter)


def is_scalar(schema: Node) -> bool:
    """Return whether a value is a string, number or boolean, or null in their place."""
    return plain_type(schema) in ("string", "integer", "number", "boolean")


def list_inner_schemas(schema: Node) -> Iterator[tuple[str, Node]]:
    for name, child in schema.get("properties", {}).items():
        yield f"properties/{name}", child
    for word in COMPOSITIONS:
        for index, child in enumerate(schema.get(word, [])):
            yield f"{word}/{index}", child
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield word, schema[word]


def list_schemas(contract: Node, roots: list[tuple[str, Node]]) -> Iterator[tuple[str, Node]]:
    """Yield every schema that the roots refer to, once, with a name for messages."""
    seen: set[int] = set()
    pending = list(roots)
    while pending:
        name, schema = pending.pop()
        if "$ref" in schema:
            name, schema = schema["$ref"].removeprefix("#/components/schemas/"), resolve(contract, schema)
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        yield name, schema
        pending += [(f"{name}/{step}", child) for step, child in list_inner_schemas(schema)]


def request_roots(contract: Node) -> list[tuple[str, Node]]:
    return [
        (f"{operation.id} body", media["schema"])
        for operation in list_operations(contract)
        for media in resolve(contract, operation.node.get("requestBody", {})).get("content", {}).values()
    ]


def webhook_roots(contract: Node) -> list[tuple[str, Node]]:
    """Return the schemas of webhook messages, which the server sends like responses."""
    return [
        (event_type, item["post"]["requestBody"]["content"]["application/json"]["schema"])
        for event_type, item in contract.get("webhooks", {}).items()
    ]


def response_roots(contract: Node) -> list[tuple[str, Node]]:
    return webhook_roots(contract) + [
        (f"{operation.id} {status}", media[word])
        for operation in list_operations(contract)
        for status, response in operation.node["responses"].items()
        for media in resolve(contract, response).get("content", {}).values()
        for word in ("schema", "x-event-data")
        if word in media
    ]


def parameter_roots(contract: Node) -> list[tuple[str, Node]]:
    return [
        (f"{operation.id} {parameter['in']} {parameter['name']}", parameter["schema"])
        for operation in list_operations(contract)
        for parameter in list_parameters(contract, operation)
    ]


def all_schemas(contract: Node) -> Iterator[tuple[str, Node]]:
    yield from list_schemas(
        contract, request_roots(contract) + response_roots(contract) + parameter_roots(contract)
    )


def list_nodes(node: Any, pointer: str = "#") -> Iterator[tuple[str, Node]]:
    """Yield every object of the document, except values of examples, defaults and enums."""
    if isinstance(node, dict):
        yield pointer, node
        for key, child in node.items():
            if key not in ("example", "examples", "default", "enum"):
                yield from list_nodes(child, pointer + join_pointer([key]))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from list_nodes(child, pointer + join_pointer([index]))


def seed(contract: T) -> T:
    """Return a copy in which a test seeds mistakes that its rule must find. A review ends the test here.

    A review checks the contract and not its rules, and the contract that it checks may lack what they change.
    """
    if "REVIEWED_BUNDLE" in os.environ:
        pytest.skip("the test seeds mistakes to check its rule; a review checks the contract only")
    return copy.deepcopy(contract)


def assert_no_findings(findings: Iterable[str], remedy: str = "") -> None:
    """Fail with the findings, one a line, each with what to do about it."""
    listed = [f"{finding}: {remedy}" if remedy else finding for finding in sorted(set(findings))]
    assert not listed, format_findings(listed)


def compare_lists(found: Iterable[Any], listed: Iterable[Any], remedy: str) -> None:
    """Fail if the exceptions in a list of a rule are not exactly those of the contract."""
    found, listed = set(map(_join, found)), set(map(_join, listed))
    stale = [f"{name}: is listed in the rule and not in the contract, remove it" for name in listed - found]
    assert_no_findings([*(f"{name}: {remedy}" for name in found - listed), *stale])


def _join(name: Any) -> str:
    return name if isinstance(name, str) else " ".join(name)
