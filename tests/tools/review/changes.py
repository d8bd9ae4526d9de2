"""What a change of the contract means for a client: Redocly's comparison of two bundles, in plain words.

Redocly does not know what our extensions mean, nor that a default and a header that always came are promises;
those are judged here. It takes an operation without `security` for an open one, so that is spelled out first.
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
# What a client can neither see nor rely on by itself; what follows from it is compared where it is used.
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
EVENTS = "data of events"


class Change(NamedTuple):
    """One difference: how grave, for which operations, in words, and where in the bundle."""

    impact: str
    operations: tuple[str, ...]
    text: str
    pointer: str


def required_bump(changes: list[Change]) -> str | None:
    """Return by which part of the version a release must rise, None when nothing has changed."""
    bumps = [BUMPS.get(change.impact, "patch") for change in changes]
    return next((bump for bump in ("major", "minor", "patch") if bump in bumps), None)


def list_changes(base: Node, revision: Node, folder: Path) -> list[Change]:
    """Return what has changed from one bundle to another, the gravest first; `folder` is for files."""
    before, after = folder / "before.json", folder / "after.json"
    for path, contract in ((before, base), (after, revision)):
        path.write_text(json.dumps(to_comparable(contract)), encoding="utf-8")
    old, new = ComponentUsage(to_comparable(base)), ComponentUsage(to_comparable(revision))
    found = [change for raw in compare_bundles(before, after) for change in _parse_change(raw, old, new)]
    found += _role_changes(base, revision)
    return sorted(set(found), key=lambda change: (IMPACTS.index(change.impact), change))


def to_comparable(contract: Node) -> Node:
    """Return a copy in which what Redocly does not see is said in words that it knows."""
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
    """Return a node with every schema in one piece: `allOf` of one reference only adds a description to it.

    Redocly would take it for another schema when a common enumeration gets a name of its own.
    """
    if isinstance(node, list):
        return [_flatten(child, contract) for child in node]
    if not isinstance(node, dict):
        return node
    return {key: _flatten(child, contract) for key, child in flatten_schema(node, contract).items()}


def flatten_schema(schema: Node, contract: Node) -> Node:
    """Return a schema merged with the one that it is `allOf`, where it says nothing else that counts."""
    whole = schema.get("allOf")
    if isinstance(whole, list) and len(whole) == 1 and set(schema) <= {"allOf", *ALL_OF_SIBLINGS}:
        return {**resolve(contract, whole[0]), **{key: schema[key] for key in schema if key != "allOf"}}
    return schema


class ComponentUsage:
    """Which operations of a bundle lead to one of its components, in requests or in answers."""

    def __init__(self, contract: Node) -> None:
        self.contract = contract
        self.names: dict[str, str] = {}
        self._uses: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for path, item in contract["paths"].items():
            for method in (method for method in METHODS if method in item):
                definition, name = item[method], f"{method.upper()} {path}"
                self.names[name] = definition.get("operationId", "")
                sent = [
                    item.get("parameters", []),
                    definition.get("parameters", []),
                    definition.get("requestBody", {}),
                ]
                self._follow(sent, name, "request")
                self._follow(
                    [definition.get("responses", {}), definition.get("callbacks", {})], name, "answer"
                )

    def _follow(self, node: Any, name: str, way: str) -> None:
        if isinstance(node, list):
            for child in node:
                self._follow(child, name, way)
        elif isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and name not in self._uses[reference][way]:
                self._uses[reference][way].add(name)
                self._follow(resolve_pointer(self.contract, reference), name, way)
            for child in node.values():
                self._follow(child, name, way)

    def find_operations(self, pointer: str) -> tuple[tuple[str, ...], set[str]]:
        """Return the operations that what a pointer names belongs to, and whether it is sent or answered."""
        steps = split_pointer(pointer)
        if steps[0] == "paths" and len(steps) > 2 and steps[2] in METHODS:
            way = {"responses": {"answer"}, "callbacks": {"answer"}}.get([*steps, ""][3], {"request"})
            return (f"{steps[2].upper()} {steps[1]}",), way
        if steps[0] == "paths":
            return tuple(name for name in self.names if name.split(" ", 1)[1:] == steps[1:2]), {"request"}
        uses = self._uses.get("#/" + "/".join(pointer.removeprefix("#/").split("/")[:3]), {})
        return tuple(
            name for name in self.names if any(name in find_operations for find_operations in uses.values())
        ), set(uses)


def resolve_pointer(contract: Node, pointer: str) -> Any:
    """Return what a JSON pointer names, None when there is nothing."""
    node: Any = contract
    for step in split_pointer(pointer):
        try:
            node = node[int(step)] if isinstance(node, list) else node[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return node


def _parse_change(raw: Node, old: ComponentUsage, new: ComponentUsage) -> Iterator[Change]:
    """Say one change of Redocly's report in our words."""
    kind, key = raw["kind"], raw.get("property", "")
    side, uses = ("base", old) if kind == "removed" else ("revision", new)
    place = pointer = raw[side]["pointer"]
    if kind == "modified" and split_pointer(pointer)[-1] == key:
        pointer = pointer.rsplit("/", 1)[0]
    operations, ways = uses.find_operations(pointer)
    steps = split_pointer(pointer)
    is_name = len(steps) < 4 and (kind != "modified" or key == "key")
    if steps[0] == "components" and steps[1] != "securitySchemes" and (is_name or not operations):
        return  # The name of a component is seen by nobody, and one that nothing uses neither.
    if key in INVISIBLE_KEYS or steps[0] in INVISIBLE_KEYS or raw["typeName"] == "SpecExtension":
        return
    impact = _impact(raw, ways)
    if raw["typeName"] in ("PathItem", "Operation") and kind != "modified":
        for name in operations:
            yield Change(
                impact,
                (name,),
                f"`{uses.names[name]}` is {'new' if kind == 'added' else 'gone'}.",
                "#" + join_pointer(["paths", name.split(" ", 1)[1], name.split(" ")[0].lower()]),
            )
        return
    subject = describe_subject(pointer, uses.contract)
    text = _modified_text(raw, subject, ways) if kind == "modified" else _added_or_removed_text(raw, subject)
    yield Change(impact, operations, text, place)


def _impact(raw: Node, ways: set[str]) -> str:
    kind, key, name = raw["kind"], raw.get("property", ""), raw["typeName"]
    was, now = (raw.get(side, {}).get("value") for side in ("base", "revision"))
    broken = raw["impact"] == "major"
    # Whoever leaves it out gets something else now.
    broken |= kind == "modified" and key == "default" and "request" in ways and was is not None
    # A header that always came may be missing.
    broken |= kind == "modified" and name == "Header" and key == "required" and was is True
    broken |= kind == "added" and name == "RequestBody" and bool(now.get("required"))
    if broken:
        return "breaking"
    if name in INVISIBLE_TYPES or (kind == "modified" and key in WORDS):
        return "wording"
    if kind == "modified" and key == "deprecated" and now:
        return "deprecated"
    return "added" if kind == "added" else "changed"


def _added_or_removed_text(raw: Node, subject: str) -> str:
    has_come = raw["kind"] == "added"
    if raw["typeName"].startswith("SecurityRequirement"):
        if raw["verdicts"]:
            return str(raw["verdicts"][0]["message"])
        schemes = raw["revision" if has_come else "base"].get("value") or {}
        verb = "takes" if has_come else "no longer takes"
        credentials = _format_values(list(schemes)) or "calls without a token"
        return f"The operation {verb} {credentials}{' too' * has_come}."
    if (
        raw["typeName"] in ("Parameter", "RequestBody")
        and has_come
        and raw["revision"]["value"].get("required")
    ):
        return f"{subject} must be sent now."
    return f"{subject} is {'new' if has_come else 'gone'}."


def _modified_text(raw: Node, subject: str, ways: set[str]) -> str:
    key, was, now = raw["property"], raw["base"].get("value"), raw["revision"].get("value")
    comes, goes = _consequences(ways)
    if key == "required" and isinstance(was or now, list):
        gained, lost = _difference(was, now)
        parts = [f"{subject}: {_format_values(gained)} {comes}"] if gained else []
        return "; ".join([*parts, *([f"{subject}: {_format_values(lost)} {goes}"] if lost else [])]) + "."
    if key == "required":
        return f"{subject} {comes if now else goes}."
    if key == "enum":
        gained, lost = _difference(was, now)
        parts = [f"can be {_format_values(gained)} too"] if gained else []
        parts += [f"can no longer be {_format_values(lost)}"] if lost else []
        return f"{subject} {' and '.join(parts)}."
    if key == "nullable":
        return f"{subject} {'can be null now' if now else 'can no longer be null'}."
    if key == "deprecated":
        return f"{subject} is {'' if now else 'no longer '}deprecated."
    if key == "key":
        return f"{subject} is the new name of `{was}`."
    if key == "operationId":
        return f"`{was}` is called `{now}` now; generated clients have another method."
    if key == "default":
        return (
            f"{subject} is {_format_value(now)} where it is left out (default), it was {_format_value(was)}."
        )
    if key in WORDS:
        return f"{subject} has another {key}."
    return f"{subject}: {key} is {_format_value(now)}, was {_format_value(was)}."


def _consequences(ways: set[str]) -> tuple[str, str]:
    """Return how what becomes required, and what no longer is, reads for who sends it or gets it."""
    if ways == {"request"}:
        return "must be sent now", "need not be sent any more"
    return "always comes now", "may be missing now"


def _difference(was: Any, now: Any) -> tuple[list[Any], list[Any]]:
    was, now = was or [], now or []
    return [one for one in now if one not in was], [one for one in was if one not in now]


def _format_values(values: list[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _format_value(value: Any) -> str:
    if value is None:
        return "not said"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def describe_subject(pointer: str, contract: Node) -> str:
    """Return what a pointer names as a person would call it: `Brand.name`, query parameter `limit` ..."""
    steps, words, trail = split_pointer(pointer), [], ""
    rest = steps[3:] if steps[0] == "paths" else steps
    prefix = steps[: len(steps) - len(rest)]
    while rest:
        step, following = rest[0], rest[1] if len(rest) > 1 else ""
        taken = 2
        prefix_here = prefix + rest[:2]
        match step:
            case "components" if following in ("schemas", "parameters", "headers", "responses"):
                name = rest[2] if len(rest) > 2 else following
                thing = resolve_pointer(contract, join_pointer(rest[:3])) or {}
                if following == "schemas":
                    trail = name
                elif following == "parameters":
                    words.append(f"the {thing.get('in', '')} parameter `{thing.get('name', name)}`")
                else:
                    words.append(f"the {following.removesuffix('s')} `{name}`")
                taken = 3
            case "parameters" if following:
                thing = resolve_pointer(contract, join_pointer(prefix_here)) or {}
                thing = resolve_pointer(contract, thing["$ref"]) if "$ref" in thing else thing
                words.append(f"the {thing.get('in')} parameter `{thing.get('name')}`")
            case "requestBody":
                words, taken = [*words, "the body"], 1
            case "responses" if following:
                words.append(f"the answer {following}")
            case "content" if following:
                words.append("(data of its events)" if following == EVENTS else f"as `{following}`")
            case "headers" if following:
                words.append(f"the header `{following}` of")
                words.insert(0, words.pop())
            case "properties" if following:
                trail += f".{following}"
            case "items":
                trail, taken = trail + "[]", 1
            case "oneOf" | "anyOf" | "allOf":
                pass
            case "schema" | "parameters" | "responses":
                taken = 1
            case _:
                words, taken = [*words, f"`{step}`"], 1
        prefix, rest = prefix + rest[:taken], rest[taken:]
    if trail:
        words = [" ".join(words) + ":"] * bool(words) + [f"`{trail.removeprefix('.')}`"]
    text = " ".join(words) or "the operation"
    return text[0].upper() + text[1:]


def _role_changes(base: Node, revision: Node) -> Iterator[Change]:
    """Tell for which roles an operation opened or closed."""
    before, after = _role_table(base), _role_table(revision)
    for name in before.keys() & after.keys():
        (was, operation_id), (now, _) = before[name], after[name]
        method, path = name.split(" ", 1)
        pointer = "#" + join_pointer(["paths", path, method.lower(), "x-permission"])
        if lost := sorted(was - now - {"anonymous"}):
            yield Change(
                "breaking", (name,), f"`{operation_id}` is no longer for: {', '.join(lost)}.", pointer
            )
        if gained := sorted(now - was - {"anonymous"}):
            yield Change(
                "added", (name,), f"`{operation_id}` is for these too: {', '.join(gained)}.", pointer
            )


def _role_table(contract: Node) -> dict[str, tuple[frozenset[str], str]]:
    # A permission that the table lacks is granted to no role; a project rule reports it.
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
