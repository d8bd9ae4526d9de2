"""Compare two bundles and describe what each change means for clients, based on Redocly's comparison.

Redocly does not know this project's extensions, and does not treat a changed default or an optional header
that was required as breaking; this module does. Redocly takes an operation without `security` for a public
one, so the default of the contract is copied to each operation first.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from handlers.contract.document import METHODS, Document
from handlers.contract.json_pointer import join_pointer, split_pointer
from handlers.pages.permission_matrix import build_permission_matrix
from tests.architecture.bundle import resolve
from tests.tools.review.tools import compare_bundles

Node = dict[str, Any]
IMPACTS = ("breaking", "deprecated", "added", "changed", "wording")
BUMPS = {"breaking": "major", "deprecated": "minor", "added": "minor"}
WORDS = {"description", "summary", "title", "example", "version", "termsOfService", "url", "email"}
# Keys that clients do not see. Their effects, such as roles, are compared separately.
INVISIBLE_KEYS = {
    "x-permission",
    "x-permissions",
    "x-public",
    "x-not-limited",
    "x-not-audited",
    "x-signed-body",
}
INVISIBLE_TYPES = {"Example", "ExamplesMap", "Tag", "TagList", "Info", "License", "Contact", "ExternalDocs"}
ALL_OF_SIBLINGS = ("description", "example", "default", "readOnly", "writeOnly", "deprecated", "title")
EVENTS = "event data"


class Change(NamedTuple):
    """One change: its impact, the affected operations, a description, and its place in the bundle."""

    impact: str
    operations: tuple[str, ...]
    text: str
    pointer: str


def required_bump(changes: list[Change]) -> str | None:
    """Return the part of the version that a release must increase, or None if nothing has changed."""
    bumps = [BUMPS.get(change.impact, "patch") for change in changes]
    return next((bump for bump in ("major", "minor", "patch") if bump in bumps), None)


def list_changes(base: Node, revision: Node, folder: Path) -> list[Change]:
    """Return the changes from one bundle to another, breaking ones first.

    Args:
        folder: The folder for temporary files.
    """
    before, after = folder / "before.json", folder / "after.json"
    for path, contract in ((before, base), (after, revision)):
        path.write_text(json.dumps(to_comparable(contract)), encoding="utf-8")
    old, new = ComponentUsage(to_comparable(base)), ComponentUsage(to_comparable(revision))
    found = [change for raw in compare_bundles(before, after) for change in _parse_change(raw, old, new)]
    found += _role_changes(base, revision)
    return sorted(set(found), key=lambda change: (IMPACTS.index(change.impact), change))


def to_comparable(contract: Node) -> Node:
    """Return a copy with default security, event data and `allOf` in a form that Redocly compares."""
    contract = _flatten(copy.deepcopy(contract), contract)
    for item in contract["paths"].values():
        for method in (method for method in METHODS if method in item):
            item[method].setdefault("security", contract.get("security", []))
            for response in item[method].get("responses", {}).values():
                content = response.get("content", {})
                for media in list(content.values()):
                    if "x-event-data" in media:
                        content[EVENTS] = {"schema": media.pop("x-event-data")}
    return contract


def _flatten(node: Any, contract: Node) -> Any:
    """Return a node with each `allOf` of one reference merged into its schema.

    Otherwise Redocly would report another schema when an inline enumeration becomes a named one.
    """
    if isinstance(node, list):
        return [_flatten(child, contract) for child in node]
    if not isinstance(node, dict):
        return node
    return {key: _flatten(child, contract) for key, child in flatten_schema(node, contract).items()}


def flatten_schema(schema: Node, contract: Node) -> Node:
    """Return a schema merged with the single schema of its `allOf`, if it adds only annotations."""
    parts = schema.get("allOf")
    if isinstance(parts, list) and len(parts) == 1 and set(schema) <= {"allOf", *ALL_OF_SIBLINGS}:
        return {**resolve(contract, parts[0]), **{key: schema[key] for key in schema if key != "allOf"}}
    return schema


class ComponentUsage:
    """The operations of a bundle that use each component, in requests or in responses."""

    def __init__(self, contract: Node) -> None:
        self.contract = contract
        self.names: dict[str, str] = {}
        self._uses: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for path, item in contract["paths"].items():
            for method in (method for method in METHODS if method in item):
                definition, name = item[method], f"{method.upper()} {path}"
                self.names[name] = definition.get("operationId", "")
                request_nodes = [
                    item.get("parameters", []),
                    definition.get("parameters", []),
                    definition.get("requestBody", {}),
                ]
                self._follow(request_nodes, name, "request")
                self._follow(
                    [definition.get("responses", {}), definition.get("callbacks", {})], name, "response"
                )

    def _follow(self, node: Any, name: str, direction: str) -> None:
        if isinstance(node, list):
            for child in node:
                self._follow(child, name, direction)
        elif isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and name not in self._uses[reference][direction]:
                self._uses[reference][direction].add(name)
                self._follow(resolve_pointer(self.contract, reference), name, direction)
            for child in node.values():
                self._follow(child, name, direction)

    def find_operations(self, pointer: str) -> tuple[tuple[str, ...], set[str]]:
        """Return the operations that use a node, and its directions: `request`, `response` or both."""
        steps = split_pointer(pointer)
        if steps[0] == "paths" and len(steps) > 2 and steps[2] in METHODS:
            response = {"response"}
            directions = {"responses": response, "callbacks": response}.get([*steps, ""][3], {"request"})
            return (f"{steps[2].upper()} {steps[1]}",), directions
        if steps[0] == "paths":
            return tuple(name for name in self.names if name.split(" ", 1)[1:] == steps[1:2]), {"request"}
        uses = self._uses.get("#/" + "/".join(pointer.removeprefix("#/").split("/")[:3]), {})
        return tuple(
            name for name in self.names if any(name in operations for operations in uses.values())
        ), set(uses)


def resolve_pointer(contract: Node, pointer: str) -> Any:
    """Return the node at a JSON pointer, or None if there is none."""
    node: Any = contract
    for step in split_pointer(pointer):
        try:
            node = node[int(step)] if isinstance(node, list) else node[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return node


def _parse_change(raw: Node, old: ComponentUsage, new: ComponentUsage) -> Iterator[Change]:
    """Convert one change of Redocly's report."""
    kind, key = raw["kind"], raw.get("property", "")
    side, uses = ("base", old) if kind == "removed" else ("revision", new)
    change_pointer = pointer = raw[side]["pointer"]
    if kind == "modified" and split_pointer(pointer)[-1] == key:
        pointer = pointer.rsplit("/", 1)[0]
    operations, directions = uses.find_operations(pointer)
    steps = split_pointer(pointer)
    is_name = len(steps) < 4 and (kind != "modified" or key == "key")
    if steps[0] == "components" and steps[1] != "securitySchemes" and (is_name or not operations):
        return  # Clients see neither the name of a component nor a component that no operation uses.
    if key in INVISIBLE_KEYS or steps[0] in INVISIBLE_KEYS or raw["typeName"] == "SpecExtension":
        return
    impact = _impact(raw, directions)
    if raw["typeName"] in ("PathItem", "Operation") and kind != "modified":
        for name in operations:
            yield Change(
                impact,
                (name,),
                f"`{uses.names[name]}` {'is new' if kind == 'added' else 'was removed'}.",
                "#" + join_pointer(["paths", name.split(" ", 1)[1], name.split(" ")[0].lower()]),
            )
        return
    subject = describe_subject(pointer, uses.contract)
    if kind == "modified":
        text = _modified_text(raw, subject, directions)
    else:
        text = _added_or_removed_text(raw, subject)
    yield Change(impact, operations, text, change_pointer)


def _impact(raw: Node, directions: set[str]) -> str:
    kind, key, name = raw["kind"], raw.get("property", ""), raw["typeName"]
    was, now = (raw.get(side, {}).get("value") for side in ("base", "revision"))
    is_breaking = raw["impact"] == "major"
    # Clients that omit the value get another one.
    is_breaking |= kind == "modified" and key == "default" and "request" in directions and was is not None
    # A header that was always present may be missing.
    is_breaking |= kind == "modified" and name == "Header" and key == "required" and was is True
    is_breaking |= kind == "added" and name == "RequestBody" and bool(now.get("required"))
    if is_breaking:
        return "breaking"
    if name in INVISIBLE_TYPES or (kind == "modified" and key in WORDS):
        return "wording"
    if kind == "modified" and key == "deprecated" and now:
        return "deprecated"
    return "added" if kind == "added" else "changed"


def _added_or_removed_text(raw: Node, subject: str) -> str:
    is_added = raw["kind"] == "added"
    if raw["typeName"].startswith("SecurityRequirement"):
        if raw["verdicts"]:
            return str(raw["verdicts"][0]["message"])
        schemes = raw["revision" if is_added else "base"].get("value") or {}
        verb = "also accepts" if is_added else "no longer accepts"
        credentials = _format_values(list(schemes)) or "requests without a token"
        return f"The operation {verb} {credentials}."
    if (
        raw["typeName"] in ("Parameter", "RequestBody")
        and is_added
        and raw["revision"]["value"].get("required")
    ):
        return f"{subject} must now be sent."
    return f"{subject} {'is new' if is_added else 'was removed'}."


def _modified_text(raw: Node, subject: str, directions: set[str]) -> str:
    key, was, now = raw["property"], raw["base"].get("value"), raw["revision"].get("value")
    if_required, if_optional = _requirement_phrases(directions)
    if key == "required" and isinstance(was or now, list):
        added, removed = _difference(was, now)
        parts = [f"{subject}: {_format_values(added)} {if_required}"] if added else []
        parts += [f"{subject}: {_format_values(removed)} {if_optional}"] if removed else []
        return "; ".join(parts) + "."
    if key == "required":
        return f"{subject} {if_required if now else if_optional}."
    if key == "enum":
        added, removed = _difference(was, now)
        parts = [f"can also be {_format_values(added)}"] if added else []
        parts += [f"can no longer be {_format_values(removed)}"] if removed else []
        return f"{subject} {' and '.join(parts)}."
    if key == "nullable":
        return f"{subject} {'can now be null' if now else 'can no longer be null'}."
    if key == "deprecated":
        return f"{subject} is {'' if now else 'no longer '}deprecated."
    if key == "key":
        return f"{subject} is the new name of `{was}`."
    if key == "operationId":
        return f"`{was}` is renamed to `{now}`; the names of methods in generated clients change."
    if key in WORDS:
        return f"{subject} has a different {key}."
    return f"{subject}: {key} is {_format_value(now)}, was {_format_value(was)}."


def _requirement_phrases(directions: set[str]) -> tuple[str, str]:
    """Return the phrases for something that becomes required and for something that becomes optional."""
    if directions == {"request"}:
        return "must now be sent", "can now be omitted"
    return "can no longer be missing", "can now be missing"


def _difference(was: Any, now: Any) -> tuple[list[Any], list[Any]]:
    was, now = was or [], now or []
    return [one for one in now if one not in was], [one for one in was if one not in now]


def _format_values(values: list[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _format_value(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def describe_subject(pointer: str, contract: Node) -> str:
    """Return a readable name of a node: `Brand.name`, "The query parameter `limit`" ..."""
    steps, words, trail = split_pointer(pointer), [], ""
    rest = steps[3:] if steps[0] == "paths" else steps
    prefix = steps[: len(steps) - len(rest)]
    while rest:
        step, following = rest[0], rest[1] if len(rest) > 1 else ""
        consumed = 2
        node_steps = prefix + rest[:2]
        match step:
            case "components" if following in ("schemas", "parameters", "headers", "responses"):
                name = rest[2] if len(rest) > 2 else following
                node = resolve_pointer(contract, join_pointer(rest[:3])) or {}
                if following == "schemas":
                    trail = name
                elif following == "parameters":
                    words.append(f"the {node.get('in', '')} parameter `{node.get('name', name)}`")
                else:
                    words.append(f"the {following.removesuffix('s')} `{name}`")
                consumed = 3
            case "parameters" if following:
                node = resolve_pointer(contract, join_pointer(node_steps)) or {}
                node = resolve_pointer(contract, node["$ref"]) if "$ref" in node else node
                words.append(f"the {node.get('in')} parameter `{node.get('name')}`")
            case "requestBody":
                words, consumed = [*words, "the request body"], 1
            case "responses" if following:
                words.append(f"the response {following}")
            case "content" if following:
                words.append("(event data)" if following == EVENTS else f"as `{following}`")
            case "headers" if following:
                words.append(f"the header `{following}` of")
                words.insert(0, words.pop())
            case "properties" if following:
                trail += f".{following}"
            case "items":
                trail, consumed = trail + "[]", 1
            case "oneOf" | "anyOf" | "allOf":
                pass
            case "schema" | "parameters" | "responses":
                consumed = 1
            case _:
                words, consumed = [*words, f"`{step}`"], 1
        prefix, rest = prefix + rest[:consumed], rest[consumed:]
    if trail:
        words = [" ".join(words) + ":"] * bool(words) + [f"`{trail.removeprefix('.')}`"]
    text = " ".join(words) or "the operation"
    return text[0].upper() + text[1:]


def _role_changes(base: Node, revision: Node) -> Iterator[Change]:
    """Yield the changes of the roles that may call an operation."""
    before, after = _role_table(base), _role_table(revision)
    for name in before.keys() & after.keys():
        (was, operation_id), (now, _) = before[name], after[name]
        method, path = name.split(" ", 1)
        pointer = "#" + join_pointer(["paths", path, method.lower(), "x-permission"])
        if removed := sorted(was - now - {"anonymous"}):
            text = f"`{operation_id}` is no longer allowed for: {', '.join(removed)}."
            yield Change("breaking", (name,), text, pointer)
        if added := sorted(now - was - {"anonymous"}):
            text = f"`{operation_id}` is now also allowed for: {', '.join(added)}."
            yield Change("added", (name,), text, pointer)


def _role_table(contract: Node) -> dict[str, tuple[frozenset[str], str]]:
    # A permission that is missing in `x-permissions` is granted to no role. A project rule reports it.
    permissions = defaultdict(list, contract.get("x-permissions", {}))
    rows = [
        row
        for rows in build_permission_matrix({**contract, "x-permissions": permissions}).values()
        for row in rows
    ]
    return {f"{row.method} {row.path}": (row.roles, row.operation_id) for row in rows}


def operation_ids_by_path(contract: Node) -> dict[str, str]:
    """Return the operationId of each `METHOD path`."""
    return {f"{one.method} {one.path}": one.operation_id for one in Document(contract).operations()}
