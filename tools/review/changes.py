"""Compare two bundles and describe what each change means for clients, based on Redocly's comparison.

Redocly does not know this project's extensions, and does not treat a changed default or an optional header
that was required as breaking; this module does. Redocly takes an operation without `security` for a public
one, so the default of the contract is copied to each operation first.
"""

from __future__ import annotations

import copy
import datetime
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.open_enumerations import close_enumerations, copy_marks
from tools.project import CODE_SAMPLES, METHODS, Document, join_pointer, split_pointer
from tools.review.access_changes import list_access_changes
from tools.review.change import Change, merge_changes
from tools.review.change_texts import (
    EVENTS,
    NULL,
    OPERATION_ROOTS,
    WORDS,
    describe_added_or_removed,
    describe_modified,
    describe_subject,
    describe_text_change,
    resolve_pointer,
)
from tools.review.deprecations import list_sunset_changes, take_ended
from tools.review.name_changes import list_name_changes
from tools.review.named_parameters import name_parameters, restore_pointer, restore_pointers
from tools.review.schema_changes import MAX_DIFFERENCES, Difference, SchemaJudge, align, list_differences
from tools.review.tools import compare_bundles

Node = dict[str, Any]
NAMED_MEMBERS = {"links", "headers", "content", "examples", "callbacks", "properties"}
"""Objects whose keys are names: a new one is described by its members."""
INVISIBLE_TYPES = {"Example", "ExamplesMap", "Tag", "TagList", "Info", "License", "Contact", "ExternalDocs"}
CONTENT_WORDS = {"contentEncoding", "contentMediaType"}
DEPRECATION_HEADERS = ("Deprecation", "DeprecationLink", "Sunset")
SCHEMAS = "#/components/schemas/"
ANNOTATIONS = (
    *("description", "example", "default", "readOnly", "writeOnly", "deprecated", "title"),
    *("x-deprecated-at", "x-sunset", "x-replacement", "x-documented"),
)


def list_changes(
    base: Node, revision: Node, folder: Path, now: datetime.datetime | None = None
) -> list[Change]:
    """Return the changes from one bundle to another, breaking ones first.

    Args:
        folder: The folder for temporary files.
        now: The time at which sunsets are past or not; by default the current one.
    """
    before, after = folder / "before.json", folder / "after.json"
    base, revision = close_enumerations(base), close_enumerations(revision)
    # Also the description of a release without marks says that enumerations can have new values.
    copy_marks(revision, base)
    # `allOf` is not merged here, so that named enumerations are found.
    used = ComponentUsage(base)

    def find_operations(pointer: str) -> tuple[str, ...]:
        return used.find_operations(pointer)[0]

    ended = list(take_ended(base, revision, now))
    comparable = [to_comparable(contract) for contract in (base, revision)]
    old, new = (ComponentUsage(contract) for contract in comparable)
    (named, old_pointers), (new_named, new_pointers) = (name_parameters(one) for one in comparable)
    judge, differences = SchemaJudge(named, new_named), []
    for difference in list_differences(named, new_named):
        if judge.mean_the_same(difference):
            align(difference)
        else:
            differences.append(difference._replace(pointer=restore_pointer(difference.pointer, old_pointers)))
    before.write_text(json.dumps(named), encoding="utf-8")
    after.write_text(json.dumps(new_named), encoding="utf-8")
    found = [
        change
        for raw in compare_bundles(before, after)
        if (restored := restore_pointers(raw, old_pointers, new_pointers))
        for change in _parse_change(restored, old, new)
    ]
    found = _add_examples(found, differences, judge, old, new)
    found += list_access_changes(base, revision)
    found += list_tag_changes(base, revision)
    found += list_name_changes(base, revision, find_operations)
    ended += list_sunset_changes(base, revision, now)
    found += [Change(impact, find_operations(pointer), text, pointer) for impact, text, pointer in ended]
    return merge_changes(found)


def _add_examples(
    changes: list[Change],
    differences: list[Difference],
    judge: SchemaJudge,
    old: ComponentUsage,
    new: ComponentUsage,
) -> list[Change]:
    """Return the changes with values that show breaks, and a break for each value that no rule explains."""
    explained: dict[str, list[Change]] = defaultdict(list)
    pointers = {one.pointer for one in differences}
    for change in (one for one in changes if one.impact == "breaking"):
        steps = split_pointer(change.pointer)
        while steps and (pointer := "#" + join_pointer(steps)) not in pointers:
            steps.pop()
        explained[pointer].append(change)
    found = dict.fromkeys(changes)
    for difference in sorted(differences)[:MAX_DIFFERENCES]:
        operations, directions = old.find_operations(difference.pointer)
        operations = old.select_known(operations, new)
        for direction, find, text in (
            ("request", judge.find_broken_request, "some values are no longer accepted"),
            ("response", judge.find_unexpected_response, "some values are possible that were not"),
        ):
            if not operations or direction not in directions or not (example := find(difference)):
                continue
            subject = describe_subject(difference.pointer, new.contract)
            named = explained[difference.pointer]
            change = (
                named[0]
                if named
                else Change("breaking", operations, f"{subject}: {text}.", difference.pointer)
            )
            found.pop(change, None)
            found[change._replace(example=example)] = None
            break
    return list(found)


def to_comparable(contract: Node) -> Node:
    """Return a copy without code samples, with security, events, `allOf`, null as Redocly compares them."""
    contract = _flatten(copy.deepcopy(contract), contract)
    # Redocly compares lists by position, so a new tag would change all that follow it.
    contract.pop("tags", None)
    for root, _, item in _list_path_items(contract):
        for method in (method for method in METHODS if method in item):
            # A published document has them, a bundle has not.
            item[method].pop(CODE_SAMPLES, None)
            item[method].setdefault("security", contract.get("security", []) if root == "paths" else [])
            for response in item[method].get("responses", {}).values():
                # `deprecated` and the dates say the same.
                for name, header in list(response.get("headers", {}).items()):
                    if header.get("$ref", "").rpartition("/")[2] in DEPRECATION_HEADERS:
                        del response["headers"][name]
                content = response.get("content", {})
                for media in list(content.values()):
                    if "x-event-data" in media:
                        content[EVENTS] = {"schema": media.pop("x-event-data")}
    return contract


def _flatten(node: Any, contract: Node) -> Any:
    """Return a node in which a schema with a name and one without, and a nullable one, are comparable."""
    if isinstance(node, list):
        return [_flatten(child, contract) for child in node]
    if not isinstance(node, dict):
        return node
    node = {
        key: child if key == "anyOf" and "$ref" in child[0] else _flatten(child, contract)
        for key, child in flatten_schema(node, contract).items()
    }
    if isinstance(node.get("pattern"), str):
        node["pattern"] = _normalize_pattern(node["pattern"])
    return node


def _normalize_pattern(pattern: str) -> str:
    r"""Return a pattern with `\x00` as `\u0000`, which means the same."""
    return re.sub(r"\\(?:x([0-9A-Fa-f]{2})|.)", lambda one: f"\\u00{one[1]}" if one[1] else one[0], pattern)


def flatten_schema(schema: Node, contract: Node) -> Node:
    """Return a schema that refers to one component, with annotations or null, in one form.

    An object has the form `anyOf`: when it becomes nullable, there is one more branch. All other schemas are
    merged. Otherwise Redocly would report another schema when an inline enumeration gets a name, and a break
    when a property of a response can no longer be null.
    """
    for word in ("$ref", "allOf", "anyOf"):
        if word in schema and not set(schema) - {word, *ANNOTATIONS}:
            parts = [{"$ref": schema["$ref"]}] if word == "$ref" else schema[word]
            if parts[1:] not in ([], [NULL]) or not str(parts[0].get("$ref", "")).startswith(SCHEMAS):
                return schema
            target = Document(contract).resolve(parts[0])
            annotations = {key: schema[key] for key in schema if key != word}
            if target.get("type") == "object":
                return {**annotations, "anyOf": parts}
            if isinstance(kind := target.get("type"), str) and word != "$ref":
                return {**target, **annotations, "type": [kind, "null"] if parts[1:] else kind}
    return schema


def list_tag_changes(base: Node, revision: Node) -> Iterator[Change]:
    """Yield the tags that are new, were removed or have another description."""
    old, new = ({tag["name"]: tag for tag in contract.get("tags", [])} for contract in (base, revision))
    places = {name: f"#/tags/{position}" for position, name in enumerate(new)}
    for name in old.keys() - new.keys():
        yield Change("wording", (), f"The tag `{name}` was removed.", "#/tags")
    for name in new.keys() - old.keys():
        yield Change("wording", (), f"The tag `{name}` is new.", places[name])
    for name in old.keys() & new.keys():
        was, now = old[name].get("description"), new[name].get("description")
        if was != now:
            text = f"The tag `{name}` has a different description: {describe_text_change(was, now)}"
            yield Change("wording", (), text, places[name])


class ComponentUsage:
    """The operations of a bundle that use each component, in requests or in responses."""

    def __init__(self, contract: Node) -> None:
        self.contract = contract
        self.names: dict[str, str] = {}
        self.steps: dict[str, list[str]] = {}
        self._uses: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for root, path, item in _list_path_items(contract):
            for method in (method for method in METHODS if method in item):
                definition, name = item[method], _operation_name(root, path, method)
                self.names[name] = definition.get("operationId", "")
                self.steps[name] = [root, path, method]
                sent = [
                    item.get("parameters", []),
                    definition.get("parameters", []),
                    definition.get("requestBody", {}),
                ]
                received = [definition.get("responses", {}), definition.get("callbacks", {})]
                if root == "webhooks":
                    # The server sends the request of a webhook, and the client the response.
                    sent, received = received, sent
                self._follow(sent, name, "request")
                self._follow(received, name, "response")

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
        root, *steps = split_pointer(pointer) or [""]
        if root in OPERATION_ROOTS and steps[1:2] and steps[1] in METHODS:
            is_response = [*steps, ""][2] in ("responses", "callbacks")
            direction = "response" if is_response != (root == "webhooks") else "request"
            return (_operation_name(root, steps[0], steps[1]),), {direction}
        if root in OPERATION_ROOTS:
            wanted = [root, *steps[:1]]
            return tuple(name for name, own in self.steps.items() if own[: len(wanted)] == wanted), {
                "request"
            }
        uses = self._uses.get("#/" + "/".join(pointer.removeprefix("#/").split("/")[:3]), {})
        return tuple(
            name for name in self.names if any(name in operations for operations in uses.values())
        ), set(uses)

    def select_known(self, operations: tuple[str, ...], new: ComponentUsage) -> tuple[str, ...]:
        """Return the operations of the new contract that this one has, perhaps at another path."""
        ids = set(self.names.values())
        return tuple(name for name in operations if name in self.names or new.names.get(name) in ids)

    def has_other_success(self, pointer: str) -> bool:
        """Return whether a response is successful, and the operation had other successful responses only."""
        steps = split_pointer(pointer)
        if steps[0] != "paths" or len(steps) != 5 or not steps[4].startswith("2"):
            return False
        responses = resolve_pointer(self.contract, join_pointer(steps[:4])) or {}
        return any(status.startswith("2") for status in responses)


def _list_path_items(contract: Node) -> Iterator[tuple[str, str, Node]]:
    """Yield `paths` or `webhooks`, the path or the event, and its operations."""
    for root in OPERATION_ROOTS:
        for path, item in contract.get(root, {}).items():
            yield root, path, item


def _operation_name(root: str, path: str, method: str) -> str:
    return f"{method.upper() if root == 'paths' else 'WEBHOOK'} {path}"


def _parse_change(raw: Node, old: ComponentUsage, new: ComponentUsage) -> Iterator[Change]:
    """Convert one change of Redocly's report."""
    kind, key = raw["kind"], raw.get("property", "")
    side, uses = ("base", old) if kind == "removed" else ("revision", new)
    change_pointer = pointer = raw[side]["pointer"]
    if kind == "modified" and split_pointer(pointer)[-1] == key:
        pointer = pointer.rsplit("/", 1)[0]
    operations, directions = uses.find_operations(pointer)
    # The pointer of a property of the document itself, such as `openapi`, has no steps.
    steps = split_pointer(pointer) or ["", ""]
    is_name = len(steps) < 4 and (kind != "modified" or key == "key")
    if steps[0] == "components" and steps[1] != "securitySchemes" and (is_name or not operations):
        return  # Redocly does not recognize a renamed component, and no operation uses the others.
    if raw["typeName"] == "Info" and key == "version":
        return  # The head of the review has it, and a release changes it.
    if raw["typeName"] == "SpecExtension" or any(name.startswith("x-") for name in (key, steps[0])):
        return  # Their effects, such as roles and limits, are compared separately.
    impact = _impact(raw, directions, old)
    if raw["typeName"] in ("PathItem", "Operation", "WebhooksMap") and kind != "modified":
        for name in operations:
            yield Change(
                impact,
                (name,),
                f"`{uses.names[name]}` {'is new' if kind == 'added' else 'was removed'}.",
                "#" + join_pointer(uses.steps[name]),
            )
        return
    if raw["typeName"].startswith("SecurityRequirement") and impact != "breaking":
        return  # Wider access is compared for each operation as a whole.
    if operations and kind != "removed" and not (operations := old.select_known(operations, new)):
        return  # Only new operations use the component.
    if kind == "modified":
        if raw["typeName"] == "PathItem" and _has_equal_urls(raw):
            return  # Redocly reports the name of the parameter, too.
        text = describe_modified(raw, pointer, old.contract, uses.contract, directions)
    elif kind == "added" and _is_required_by_requests(pointer, uses.contract, directions):
        return  # The change of `required` says that it must be sent.
    elif steps[-1] in NAMED_MEMBERS and steps[-2] != "properties" and (members := raw[side].get("value")):
        for name in members:
            member = join_pointer([*steps, name])
            text = describe_added_or_removed({**raw, side: {"value": members[name]}}, member, uses.contract)
            yield Change(impact, operations, text, f"#{member}")
        return
    else:
        text = describe_added_or_removed(raw, pointer, uses.contract)
        if raw["typeName"] == "Response" and impact == "breaking" and kind == "added":
            text = text.replace(" is new.", " is new: clients expect another status of success.")
    if text:
        yield Change(impact, operations, text, change_pointer)


def _has_equal_urls(raw: Node) -> bool:
    """Return whether two paths differ only in the names of their parameters."""
    return len({re.sub(r"\{[^}]*\}", "{}", raw[side]["value"]) for side in ("base", "revision")}) == 1


def _is_required_by_requests(pointer: str, contract: Node, directions: set[str]) -> bool:
    """Return whether a node is a property that the schemas of requests require."""
    steps = split_pointer(pointer)
    if "request" not in directions or steps[-2:-1] != ["properties"]:
        return False
    return steps[-1] in resolve_pointer(contract, join_pointer(steps[:-2])).get("required", [])


def _impact(raw: Node, directions: set[str], old: ComponentUsage) -> str:
    kind, key, name = raw["kind"], raw.get("property", ""), raw["typeName"]
    was, now = (raw.get(side, {}).get("value") for side in ("base", "revision"))
    is_breaking = raw["impact"] == "major"
    if key == "enum" and isinstance(was, list) and isinstance(now, list) and set(was) <= set(now):
        schema = resolve_pointer(old.contract, raw["base"]["pointer"].removesuffix("/enum")) or {}
        if "x-extensible-enum" in schema:
            return "added"  # Clients accept values that they do not know.
    if key == "additionalProperties" and directions == {"response"} and was is False:
        # Clients ignore unknown properties: responses can have new ones at any time.
        is_breaking = False
    # Redocly takes it for an annotation, but clients decode what they get.
    is_breaking |= key in CONTENT_WORDS and "response" in directions
    if kind == "modified":
        # Clients that omit the value get another one.
        is_breaking |= key == "default" and "request" in directions and was is not None
        # A header that was always present may be missing.
        is_breaking |= name == "Header" and key == "required" and was is True
        # Requests cannot set the property any more, and responses do not contain it.
        is_breaking |= now is True and (key, True) in (
            ("readOnly", "request" in directions),
            ("writeOnly", "response" in directions),
        )
        # Generated clients pass parameters by their names.
        is_breaking |= name == "Parameter" and key == "name"
        is_breaking |= "securitySchemes" in raw["path"] and key not in WORDS
    if kind == "added":
        is_breaking |= name == "RequestBody" and bool(now.get("required"))
        # Names that were free have a condition.
        is_breaking |= raw["revision"]["pointer"].endswith("/patternProperties") and "request" in directions
        # Clients expect the only status of success, and its body.
        is_breaking |= name == "Response" and old.has_other_success(raw["revision"]["pointer"])
    if is_breaking:
        return "breaking"
    if kind == "modified" and key == "tags":
        return "imports"
    if name in INVISIBLE_TYPES or (kind == "modified" and key in WORDS):
        return "wording"
    if kind == "modified" and key == "deprecated" and now:
        return "deprecated"
    return "added" if kind == "added" else "changed"


def operation_ids_by_path(contract: Node) -> dict[str, str]:
    """Return the operationId of each `METHOD path`."""
    return {f"{one.method} {one.path}": one.operation_id for one in Document(contract).operations()}
