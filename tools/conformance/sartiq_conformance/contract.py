"""Read what the checks need from an OpenAPI document: parameters, rows, bodies, closed responses."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

METHODS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True)
class Operation:
    """One operation of a contract, with its parameters and those of its path resolved."""

    method: str
    path: str
    operation_id: str
    definition: dict[str, Any]
    parameters: tuple[dict[str, Any], ...]

    @property
    def label(self) -> str:
        """The method and the path."""
        return f"{self.method} {self.path}"

    def find(self, place: str, name: str) -> dict[str, Any] | None:
        """Return a parameter, if the operation has it."""
        return next((one for one in self.parameters if (one["in"], one["name"]) == (place, name)), None)

    def list_parameters(self, place: str) -> list[dict[str, Any]]:
        """Return the parameters in the path, query or header."""
        return [one for one in self.parameters if one["in"] == place]

    def build_ids(self) -> dict[str, str]:
        """Return path parameters: new UUIDs, and the examples of those that have another format."""
        return {one["name"]: _find_id(one["schema"]) for one in self.list_parameters("path")}


class Contract:
    """An OpenAPI document (3.0 or 3.1) whose references point into itself."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.operations = list(self._list_operations())
        self.by_label = {operation.label: operation for operation in self.operations}

    def resolve(self, node: Any) -> Any:
        """Follow references, and the only branch of a composition that is not null."""
        while isinstance(node, dict):
            if "$ref" in node:
                node = find_reference(self.document, node["$ref"])
                continue
            parts = next((node[word] for word in ("allOf", "anyOf", "oneOf") if word in node), None)
            branches = [part for part in parts or () if part.get("type") != "null"]
            if "properties" in node or "enum" in node or len(branches) != 1:
                return node
            node = branches[0]
        return node

    def find_body(self, operation: Operation) -> dict[str, Any] | None:
        """Return the schema of the JSON body, if the operation has one."""
        body = self.resolve(operation.definition.get("requestBody") or {})
        content = body.get("content", {}).get("application/json")
        return None if content is None else self.resolve(content["schema"])

    def find_row(self, operation: Operation) -> dict[str, Any]:
        """Return the properties of the rows that a list returns."""
        response = self.resolve(operation.definition["responses"]["200"])
        page = self.resolve(response["content"]["application/json"]["schema"])
        rows = self.resolve(page.get("properties", {}).get("data", {}))
        return dict(self.resolve(rows.get("items", {})).get("properties", {}))

    def build_body(self, schema: dict[str, Any], name: str) -> dict[str, Any]:
        """Return a body with the required properties only, of which `name` has this value."""
        properties = {key: self.resolve(schema["properties"][key]) for key in schema.get("required", ())}
        return {
            key: name if key == "name" else _find_example(schema["properties"][key], part)
            for key, part in properties.items()
        }

    def _list_operations(self) -> Iterator[Operation]:
        for path, item in self.document["paths"].items():
            item = self.resolve(item)
            for method in METHODS:
                if method not in item:
                    continue
                definition = item[method]
                if not any(status < "400" for status in definition["responses"]):
                    continue  # It has ended: the contract has its 410 alone.
                found = [*item.get("parameters", ()), *definition.get("parameters", ())]
                parameters = [self.resolve(one) for one in found]
                yield Operation(
                    method.upper(), path, definition["operationId"], definition, tuple(parameters)
                )


def find_reference(document: dict[str, Any], reference: str) -> Any:
    """Return what a reference within the document points to."""
    node: Any = document
    for step in reference.removeprefix("#/").split("/"):
        node = node[step.replace("~1", "/").replace("~0", "~")]
    return node


def _find_id(schema: dict[str, Any]) -> str:
    is_uuid = schema.get("format") == "uuid" or "example" not in schema
    return str(uuid.uuid4() if is_uuid else schema["example"])


def _find_example(schema: dict[str, Any], resolved: dict[str, Any]) -> Any:
    for one in (schema, resolved):
        if "example" in one:
            return one["example"]
        for word in ("examples", "enum"):
            if one.get(word):
                return one[word][0]
    raise LookupError(f"a required property has no example: {schema}")


def set_closed_responses(document: dict[str, Any], is_closed: bool) -> dict[str, Any]:
    """Return a copy in which objects of responses have the documented properties only, or any others too.

    Clients must ignore unknown properties, so published schemas of responses can be open. A server must not
    send them as long as its contract lacks them. An object that the contract opens explicitly stays open.
    """
    changed = copy.deepcopy(document)
    seen: set[int] = set()
    for item in changed["paths"].values():
        for method in METHODS:
            for response in item.get(method, {}).get("responses", {}).values():
                response = find_reference(changed, response["$ref"]) if "$ref" in response else response
                for content in response.get("content", {}).values():
                    _set_closed(changed, content.get("schema", {}), is_closed, seen)
    return changed


def _set_closed(document: dict[str, Any], schema: Any, is_closed: bool, seen: set[int]) -> None:
    if not isinstance(schema, dict) or id(schema) in seen:
        return
    seen.add(id(schema))
    if "$ref" in schema:
        _set_closed(document, find_reference(document, schema["$ref"]), is_closed, seen)
        return
    if "properties" in schema and schema.get("additionalProperties", False) is False:
        schema["additionalProperties"] = not is_closed
    # The parts of `allOf` describe one object together: none of them can be closed.
    parts = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    for part in (*parts, schema.get("items"), schema.get("additionalProperties")):
        _set_closed(document, part, is_closed, seen)
