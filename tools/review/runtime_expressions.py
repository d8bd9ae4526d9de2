"""Resolve the runtime expressions of links and of workflows (Arazzo) against the contract.

Linters check the names of steps and inputs. The schemas of the contract say whether a response has what an
expression reads, an operation the status that a step expects, and a request what a step sends.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs

from tools.project import Document, join_pointer, split_pointer
from tools.review.source_map import SourceMap
from tools.review.yaml_errors import load_yaml

Node = dict[str, Any]
Path = list[str]
Found = Iterator[tuple[Path, str]]
EXPRESSION = re.compile(r"\$(?:[a-zA-Z][\w.\-]*)(?:#[^\s}\"']*)?")
CRITERION = re.compile(r"(?P<left>\$\S+) == (?P<right>.+)")
MAX_OFFERED = 8
CREDENTIAL = ("header", "Authorization")
"""A parameter that operations do not list: their `security` asks for it."""


def find_wrong_expressions(contract: Node, sources: SourceMap) -> list[str]:
    """Return a sentence, with file and line first, for each wrong part of a link or a workflow.

    A line of a workflow that several steps share by a YAML anchor has one sentence.
    """
    document = Document(contract)
    operations = {
        one.operation_id: Operation(document, one.definition, one.parameters) for one in document.operations()
    }
    found: dict[str, str] = {}
    for path, text in _check_links(document, operations):
        found.setdefault(sources.find_path(path), text)
    files = {path.name: load_yaml(path) for path in sorted(sources.folder.glob("workflows/*.arazzo.yaml"))}
    for name, file in files.items():
        workflows = _list_workflows(file, "")
        for one in file["sourceDescriptions"]:
            workflows |= _list_workflows(files.get(one["url"], {}), f"$sourceDescriptions.{one['name']}.")
        for path, text in _check_workflows(file, workflows, operations):
            found.setdefault(sources.find_in_file(f"workflows/{name}", path), text)
    return [f"{place} {text}" for place, text in found.items()]


@dataclass
class Operation:
    """An operation, and what expressions can read of its requests and responses."""

    document: Document
    definition: Node
    parameters: list[Node]

    @property
    def names(self) -> set[tuple[str, str]]:
        """The location and the name of each parameter."""
        return {(one["in"], one["name"]) for one in self.parameters}

    def find_response(self, status: str) -> Node | None:
        """Return a response, or None if the operation has none with this status."""
        response = self.definition["responses"].get(status)
        return None if response is None else self.document.resolve(response)

    @property
    def success(self) -> str:
        """The first status of success."""
        return min((one for one in self.definition["responses"] if one < "400"), default="")

    def find_body(self, media_type: str = "application/json") -> Node | None:
        """Return the schema of a request body, or None if the operation has none of this type."""
        body = self.document.resolve(self.definition.get("requestBody", {}))
        return _schema_of(body, media_type)

    def select(self, schema: Node | None, pointer: str) -> list[Node]:
        """Return the schemas of a part of a value: several for alternatives, none if it does not exist."""
        found = [] if schema is None else [schema]
        for step in split_pointer(pointer):
            found = [child for one in found for child in self._select_child(one, step)]
        return found

    def _select_child(self, schema: Node, step: str) -> Iterator[Node]:
        schema = self.document.resolve(schema)
        for word in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(word, []):
                yield from self._select_child(part, step)
        if step in schema.get("properties", {}):
            yield schema["properties"][step]
        elif step.isdigit() and "items" in schema:
            yield schema["items"]
        elif isinstance(schema.get("additionalProperties"), dict):
            yield schema["additionalProperties"]
        elif schema.get("type") == "object" and "properties" not in schema:
            yield {}  # an object without described properties

    def accepts(self, schemas: list[Node], value: Any) -> bool:
        """Return whether one of the schemas accepts a value."""
        components = {"components": self.document.spec.get("components", {})}
        return any(
            jsonschema_rs.Draft202012Validator({**one, **components}).is_valid(value) for one in schemas
        )


def _schema_of(node: Node, media_type: str = "application/json") -> Node | None:
    """Return the schema of a body or a response, or None."""
    content = node.get("content", {})
    alike = [one for kind, one in content.items() if kind == media_type or kind.endswith("+json")]
    schema: Node | None = alike[0].get("schema") if alike else None
    return schema


def _check_links(document: Document, operations: dict[str, Operation]) -> Found:
    for raw in document.operations():
        source = operations[raw.operation_id]
        for status in raw.definition["responses"]:
            response = source.find_response(status) or {}
            for name, link in response.get("links", {}).items():
                path = ["paths", raw.path, raw.method.lower(), "responses", status, "links", name]
                link, target_id = source.document.resolve(link), link.get("operationId", "")
                if target_id not in operations:
                    yield (
                        path,
                        f"the link `{name}` links to `{target_id}`, which does not exist: use an operationId",
                    )
                    continue
                known = {one["name"] for one in operations[target_id].parameters}
                for parameter, value in link.get("parameters", {}).items():
                    if parameter.rpartition(".")[2] not in known:
                        text = f"passes `{parameter}`, which `{target_id}` does not have"
                        offer = _offer(parameter, known)
                        yield [*path, "parameters", parameter], f"the link `{name}` {text}{offer}"
                    for _, text in _check_expressions(value, [], source, status, Scope()):
                        yield [*path, "parameters", parameter], f"the link `{name}`: {text}"


@dataclass
class Scope:
    """What the expressions of a workflow can refer to: its inputs and the outputs of the steps so far."""

    inputs: set[str] = field(default_factory=set)
    steps: dict[str, set[str]] = field(default_factory=dict)
    later: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    """The outputs of the workflow that a step runs."""


def _check_expressions(
    value: Any, path: Path, operation: Operation | None, status: str, scope: Scope
) -> Found:
    """Yield the path and a sentence of each expression in a value that reads what is not there."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _check_expressions(child, [*path, str(key)], operation, status, scope)
    elif isinstance(value, str) and "$file(" not in value:
        for found in EXPRESSION.findall(value):
            if text := _check_expression(found, operation, status, scope):
                yield path, text


def _check_expression(expression: str, operation: Operation | None, status: str, scope: Scope) -> str:
    name, mark, pointer = expression.partition("#")
    root, *rest = name.removeprefix("$").split(".")
    if mark and not pointer.startswith("/"):
        return f"`{expression}` has no JSON pointer: write `{name}#/{pointer}`"
    match root, rest:
        case "url" | "method" | "statusCode", []:
            return ""
        case "inputs", [key, *_]:
            return _miss(expression, "the workflow has no input", key, scope.inputs)
        case "outputs", [key, *_]:
            return _miss(expression, "the workflow of the step has no output", key, scope.outputs)
        case "steps", [step, "outputs", key, *_]:
            if step in scope.later:
                return f"`{expression}`: the step `{step}` runs later: move it up, or read an earlier step"
            return (
                ""
                if step not in scope.steps
                else _miss(expression, f"the step `{step}` has no output", key, scope.steps[step])
            )
        case "response" | "request", _ if operation is None:
            return ""
        case "response", ["body"]:
            schema = _schema_of((operation and operation.find_response(status)) or {})
            return _miss_part(expression, f"the response {status}", operation, schema, pointer)
        case "request", ["body"]:
            return _miss_part(
                expression, "the request", operation, operation.find_body() if operation else None, pointer
            )
        case "response", ["header", key]:
            headers = ((operation and operation.find_response(status)) or {}).get("headers", {})
            known = {one.lower(): one for one in headers}
            return (
                ""
                if key.lower() in known
                else _miss(expression, f"the response {status} has no header", key, set(headers))
            )
        case "request", ["path" | "query" | "header" as place, key]:
            known_names = {
                one for location, one in (operation.names if operation else ()) if location == place
            }
            return _miss(expression, f"the operation has no {place} parameter", key, known_names)
    return f"`{expression}` is no runtime expression: see OpenAPI, Runtime Expressions"


def _miss(expression: str, text: str, key: str, known: set[str]) -> str:
    return "" if key in known else f"`{expression}`: {text} `{key}`{_offer(key, known)}"


def _offer(key: str, known: set[str]) -> str:
    """Return the way out for a name that does not exist: the nearest name, or some of them."""
    near = difflib.get_close_matches(key, known, 1)
    others = ", ".join(sorted(known)[:MAX_OFFERED]) + ", ..." * (len(known) > MAX_OFFERED)
    return (
        f": use `{near[0]}`" if near else f": use one of {others}" if known else ": there is none, remove it"
    )


def _miss_part(
    expression: str, owner: str, operation: Operation | None, schema: Node | None, pointer: str
) -> str:
    if operation is None or operation.select(schema, pointer):
        return ""
    parent, _, last = pointer.rpartition("/")
    parents = [operation.document.resolve(one) for one in operation.select(schema, parent)]
    return _miss(
        expression, f"{owner} has no", last, {name for one in parents for name in one.get("properties", {})}
    )


def _list_workflows(document: Node, prefix: str) -> dict[str, Node]:
    return {prefix + one["workflowId"]: one for one in document.get("workflows", [])}


def _check_workflows(document: Node, workflows: dict[str, Node], operations: dict[str, Operation]) -> Found:
    """Yield the path and a sentence of each wrong part of a file of workflows."""
    for index, workflow in enumerate(document["workflows"]):
        path = ["workflows", str(index)]
        scope = Scope(_inputs(workflow), later={one["stepId"] for one in workflow["steps"]})
        for number, step in enumerate(workflow["steps"]):
            scope.later.discard(step["stepId"])
            yield from _check_step(step, [*path, "steps", str(number)], scope, workflows, operations)
            scope.steps[step["stepId"]] = set(step.get("outputs", {}))
        for name, value in workflow.get("outputs", {}).items():
            yield from _check_expressions(value, [*path, "outputs", name], None, "", scope)


def _inputs(workflow: Node) -> set[str]:
    return set(workflow.get("inputs", {}).get("properties", {}))


def _check_step(
    step: Node, path: Path, scope: Scope, workflows: dict[str, Node], operations: dict[str, Operation]
) -> Found:
    target = step.get("operationId", "").rpartition(".")[2]
    operation = operations.get(target)
    if target and operation is None:
        text = f"the step calls `{target}`, which does not exist: use an operationId of the contract"
        yield [*path, "operationId"], text
    called = workflows.get(step.get("workflowId", ""), {})
    scope.outputs = set(called.get("outputs", {}))
    status = _expected_status(step)
    if operation and operation.find_response(status) is None:
        status = operation.success
    for index, parameter in enumerate(step.get("parameters", [])):
        place = [*path, "parameters", str(index)]
        yield from _check_expressions(parameter["value"], [*place, "value"], operation, status, scope)
        name, location = parameter["name"], parameter.get("in", "")
        if called and name not in _inputs(called):
            yield place, f"`{called['workflowId']}` has no input `{name}`{_offer(name, _inputs(called))}"
        if operation and (location, name) not in operation.names | {CREDENTIAL}:
            known = {one for kind, one in operation.names if kind == location}
            yield place, f"`{target}` has no {location} parameter `{name}`{_offer(name, known)}"
    if operation:
        passed = {(one.get("in"), one["name"]) for one in step.get("parameters", [])}
        for location, name in sorted(operation.names - passed):
            if location == "path":
                yield path, f"the step passes no `{name}` to `{target}`: add the path parameter"
        yield from _check_body(step, path, operation)
    yield from _check_expressions(
        step.get("requestBody", {}), [*path, "requestBody"], operation, status, scope
    )
    for index, one in enumerate(step.get("successCriteria", [])):
        for text in _check_criterion(one["condition"], operation, target, status, scope):
            yield [*path, "successCriteria", str(index), "condition"], text
    for name, value in step.get("outputs", {}).items():
        yield from _check_expressions(value, [*path, "outputs", name], operation, status, scope)


def _expected_status(step: Node) -> str:
    """Return the status that a step expects, or an empty text."""
    conditions = " ".join(one["condition"] for one in step.get("successCriteria", []))
    found = re.search(r"\$statusCode == (\d+)", conditions)
    return found[1] if found else ""


def _check_criterion(
    condition: str, operation: Operation | None, target: str, status: str, scope: Scope
) -> Iterator[str]:
    parts = CRITERION.fullmatch(condition)
    if operation is None or parts is None:
        yield from (text for _, text in _check_expressions(condition, [], operation, status, scope))
    elif parts["left"] == "$statusCode":
        if parts["right"] not in operation.definition["responses"]:
            yield f"`{target}` has no response {parts['right']}: expect {operation.success}"
    elif text := _check_expression(parts["left"], operation, status, scope):
        yield text
    elif parts["left"].startswith("$response.body#"):
        schema = _schema_of(operation.find_response(status) or {})
        found = operation.select(schema, parts["left"].partition("#")[2])
        if not operation.accepts(found, json.loads(parts["right"])):
            yield f"`{condition}` is never true: the contract does not allow this value"


def _check_body(step: Node, path: Path, operation: Operation) -> Found:
    body = step.get("requestBody", {})
    accepted = operation.document.resolve(operation.definition.get("requestBody", {"content": {}}))
    if "payload" not in body:
        if accepted.get("required"):
            yield path, "the step sends no body, which the operation requires: add `requestBody`"
        return
    media_type = body.get("contentType", "application/json")
    schema = operation.find_body(media_type)
    if schema is None:
        offer = _offer(media_type, set(accepted["content"]))
        yield [*path, "requestBody", "contentType"], f"the operation accepts no `{media_type}`{offer}"
        return
    yield from _check_payload(body["payload"], schema, [*path, "requestBody", "payload"], operation)


def _check_payload(payload: Any, schema: Node, path: Path, operation: Operation) -> Found:
    schema = operation.document.resolve(schema)
    if isinstance(payload, str) and "$" in payload:
        return  # What an expression returns is known at run time.
    if not isinstance(payload, dict) and not isinstance(payload, list):
        if schema.get("format") != "binary" and not operation.accepts([schema], payload):
            yield path, f"`{json.dumps(payload)}` is not valid for the request: see the contract"
        return
    children = payload.items() if isinstance(payload, dict) else enumerate(payload)
    for key, value in children:
        found = operation.select(schema, join_pointer([str(key)]))
        if not found:
            offer = _offer(str(key), set(schema.get("properties", {})))
            yield [*path, str(key)], f"the request has no `{key}`{offer}"
        elif len(found) == 1:
            yield from _check_payload(value, found[0], [*path, str(key)], operation)
    for name in schema.get("required", []):
        has_other_spelling = isinstance(payload, dict) and difflib.get_close_matches(name, payload)
        if isinstance(payload, dict) and name not in payload and not has_other_spelling:
            yield path, f"the request needs `{name}`: add it"
