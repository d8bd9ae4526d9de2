"""Add the parts that operations have in common (`openapi/standard.yaml`) to a bundle.

`make openapi`, `make review` and `make preview` bundle the YAML files and then call `add_standard_parts`.
This module defines the conditions of `openapi/standard.yaml`. It does not know what the parts contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tools.project import METHODS, Document
from tools.review.source_map import SourceMap

Node = dict[str, Any]

EXTENSION = "x-standard-responses"
FILE_NAME = "standard.yaml"
KINDS = ("parameters", "headers", "responses")


class StandardPartsError(Exception):
    """`openapi/standard.yaml` or an exception from it is wrong. `place` is a file and a line."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place, self.message = place, message


@dataclass
class Subject:
    """An operation before the standard parts are added, and what the conditions ask about it."""

    node: Node
    pointer: list[str]
    security: list[Node]
    parameters: set[tuple[str, str]] = field(default_factory=set)
    """Location and name of each parameter, those of the path item included."""
    successes: list[Node] = field(default_factory=list)
    """Its 2xx responses."""

    @property
    def has_ended(self) -> bool:
        """Return whether the operation has no responses of its own."""
        return not self.node["responses"]

    def has_header(self, *names: str) -> bool:
        """Return whether the operation has all of these header parameters."""
        return all(("header", name) in self.parameters for name in names)


def _refers_to_a_resource(subject: Subject) -> bool:
    scopes = {("query", "organization_id"), ("query", "cursor")}
    return bool(scopes & subject.parameters) or any(place == "path" for place, _ in subject.parameters)


ENDED = "after its sunset"
"""An operation that has ended gets the parts of this condition only."""
CONDITIONS: dict[str, Callable[[Subject], bool]] = {
    "every operation": lambda subject: True,
    ENDED: lambda subject: subject.has_ended,
    "deprecated": lambda subject: bool(subject.node.get("deprecated")),
    "with a sunset": lambda subject: "x-sunset" in subject.node,
    "with rate limits": lambda subject: "x-not-limited" not in subject.node,
    "with a credential": lambda subject: bool(subject.security),
    "with a reference to a resource": _refers_to_a_resource,
    "with content": lambda subject: any("content" in one for one in subject.successes),
    "with a request body": lambda subject: "requestBody" in subject.node,
    "with the parameter If-None-Match": lambda subject: (
        # Of a write it prevents the write (412).
        subject.pointer[-1] == "get" and subject.has_header("If-None-Match")
    ),
    "with the parameters If-None-Match and Prefer": lambda subject: subject.has_header(
        "If-None-Match", "Prefer"
    ),
    "with the parameter Range": lambda subject: subject.has_header("Range"),
    "with the parameter If-Match": lambda subject: subject.has_header("If-Match"),
    "with the parameter Idempotency-Key": lambda subject: subject.has_header("Idempotency-Key"),
}


def add_standard_parts(contract: Node, folder: Path) -> None:
    """Add the standard parts to the operations of a bundle, in place, and remove unused components.

    Args:
        contract: A bundle. It has all parameters, headers and responses of the folder as components.
        folder: The folder of the YAML files. Without `standard.yaml`, nothing is added.

    Raises:
        StandardPartsError: A name or a condition in `standard.yaml` does not exist, or an operation omits a
            response that it would not get or gives no reason.
    """
    if not (folder / FILE_NAME).exists():
        return
    sources = SourceMap(folder)
    rules = load_rules(contract, sources)
    for subject in list_subjects(contract):
        _add_parts(subject, find_parts(subject, rules), sources)
    _remove_unused(contract)


def list_subjects(contract: Node) -> Iterator[Subject]:
    """Yield the operations of `paths`; webhooks are requests that the server sends."""
    document = Document(contract)
    for path, item in contract["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            node = item[method]
            subject = Subject(
                node,
                ["paths", path, method],
                node.get("security", contract.get("security", [])),
            )
            for parameter in item.get("parameters", []) + node.get("parameters", []):
                resolved = document.resolve(parameter)
                subject.parameters.add((resolved["in"], resolved["name"]))
            subject.successes = [
                document.resolve(response)
                for status, response in node["responses"].items()
                if str(status).startswith("2")
            ]
            yield subject


def find_parts(subject: Subject, rules: dict[str, dict[str, Node]]) -> dict[str, Node]:
    """Return references to the standard parts of an operation, by kind and name."""
    parts: dict[str, Node] = {kind: {} for kind in KINDS}
    for condition, added in rules.items():
        if CONDITIONS[condition](subject) and (not subject.has_ended or condition == ENDED):
            for kind, references in added.items():
                parts[kind] |= references
    return parts


def load_rules(contract: Node, sources: SourceMap) -> dict[str, dict[str, Node]]:
    """Return references to the parts of each condition, by kind and name."""
    rules = yaml.load((sources.folder / FILE_NAME).read_bytes(), yaml.CSafeLoader)
    loaded: dict[str, dict[str, Node]] = {}
    for condition, parts in rules.items():
        place = sources.find_in_file(FILE_NAME, [condition])
        if condition not in CONDITIONS:
            raise StandardPartsError(
                place, f"there is no condition `{condition}`, only: {', '.join(CONDITIONS)}"
            )
        loaded[condition] = {}
        for kind, names in parts.items():
            if kind not in KINDS:
                raise StandardPartsError(place, f"`{kind}` is none of: {', '.join(KINDS)}")
            components = contract["components"].get(kind, {})
            references = loaded[condition].setdefault(kind, {})
            for key, name in names.items() if isinstance(names, dict) else zip(names, names, strict=True):
                if name not in components:
                    line = sources.find_in_file(FILE_NAME, [condition, kind, key])
                    raise StandardPartsError(line, f"components/{kind}.yaml has no `{name}`")
                references[key] = {"$ref": f"#/components/{kind}/{name}"}
    return loaded


def _add_parts(subject: Subject, parts: dict[str, Node], sources: SourceMap) -> None:
    node = subject.node
    exception = node.pop(EXTENSION, None)
    if exception is not None:
        for status in _check_exception(subject, exception, parts["responses"], sources):
            del parts["responses"][status]
    for response in node["responses"].values():
        if "$ref" not in response:
            headers = parts["headers"] | response.pop("headers", {})
            _insert(response, "headers", headers, after="description")
    responses = parts["responses"] | node.pop("responses")
    own = node.pop("parameters", [])
    parameters = [one for one in parts["parameters"].values() if one not in own] + own
    body = {"requestBody": node.pop("requestBody")} if "requestBody" in node else {}
    node |= {
        "parameters": parameters,
        **body,
        "responses": dict(sorted(responses.items(), key=lambda item: str(item[0]))),
    }


def _check_exception(subject: Subject, exception: Any, responses: Node, sources: SourceMap) -> list[str]:
    """Return the statuses that an operation omits."""
    place = sources.find_path([*subject.pointer, EXTENSION])
    if not isinstance(exception, dict) or set(exception) != {"omit", "reason"} or not exception["reason"]:
        raise StandardPartsError(place, f"{EXTENSION} must have `omit` (a list of statuses) and `reason`")
    statuses = [str(status) for status in exception["omit"]]
    for status in statuses:
        if status not in responses:
            raise StandardPartsError(place, f"{status} is not a standard response of this operation")
    return statuses


def _insert(node: Node, key: str, value: Any, after: str) -> None:
    """Insert a key after another one, in place."""
    items = list(node.items())
    node.clear()
    for name, child in items:
        node[name] = child
        if name == after:
            node[key] = value
    node.setdefault(key, value)


def _remove_unused(contract: Node) -> None:
    """Remove the parameters, headers and responses that nothing refers to."""
    document = Document(contract)
    used: set[str] = set()
    pending: list[Any] = [{key: child for key, child in contract.items() if key != "components"}]
    pending += [child for kind, child in contract["components"].items() if kind not in KINDS]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            pending += node.values()
            reference = node.get("$ref")
            if isinstance(reference, str) and reference not in used:
                used.add(reference)
                pending.append(document.resolve(node))
    for kind in KINDS:
        components = contract["components"].get(kind, {})
        for name in [name for name in components if f"#/components/{kind}/{name}" not in used]:
            del components[name]
