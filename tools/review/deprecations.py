"""Deprecated operations, parameters and properties: what is wrong with them, and what has ended.

What has reached its sunset may leave the contract: `take_ended` removes it from the contracts before they are
compared, so that none of its consequences, such as a shorter `required`, is reported as a break.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from tools.conformance.sartiq_conformance.diff.change_texts import describe_subject
from tools.project import (
    METHODS,
    Document,
    find_deprecation_errors,
    has_ended,
    join_pointer,
    parse_time,
)
from tools.review.checks import Finding
from tools.review.source_map import SourceMap

Node = dict[str, Any]
Found = tuple[str, str, str]
"""The impact of a change, a sentence about it, and a pointer."""
NO_SCHEMAS = ("example", "examples", "default", "enum", "const")
GUIDE = "docs/contributing/removing-an-operation.md"


class Part(NamedTuple):
    """An operation, a parameter or a property. `names` are what can replace it."""

    pointer: str
    node: Node
    names: Collection[str]


def list_parts(contract: Node) -> Iterator[tuple[str, Part]]:
    """Yield the parts that can be deprecated, each with a key that is the same in another contract."""
    document = Document(contract)
    operations = list(document.operations())
    ids = {one.operation_id for one in operations}
    for operation in operations:
        pointer = join_pointer(["paths", operation.path, operation.method.lower()])
        yield operation.operation_id, Part(f"#{pointer}", operation.definition, ids)
        names = {one["name"] for one in operation.parameters}
        for index, parameter in enumerate(operation.definition.get("parameters", [])):
            node = document.resolve(parameter)
            place = parameter.get("$ref", f"#{pointer}/parameters/{index}")
            key = f"{operation.operation_id} {node['in']} {node['name']}"
            yield key, Part(place, node, names - {node["name"]})
    for part in _list_properties(contract.get("components", {}).get("schemas", {}), "#/components/schemas"):
        yield part.pointer, part


def _list_properties(node: Any, pointer: str) -> Iterator[Part]:
    children: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(node, dict):
        properties = node.get("properties")
        if isinstance(properties, dict):
            for name, child in properties.items():
                if isinstance(child, dict):
                    place = pointer + join_pointer(["properties", name])
                    yield Part(place, child, properties.keys() - {name})
        children = iter((key, child) for key, child in node.items() if key not in NO_SCHEMAS)
    elif isinstance(node, list):
        children = iter(enumerate(node))
    for key, child in children:
        if isinstance(child, (dict, list)):
            yield from _list_properties(child, pointer + join_pointer([key]))


def find_wrong_deprecations(
    contract: Node, sources: SourceMap, now: datetime.datetime | None = None
) -> list[Finding]:
    """Return what is wrong with deprecations, and operations that have ended before their sunset."""
    found = []
    for key, (pointer, node, names) in list_parts(contract):
        errors = find_deprecation_errors(node, names)
        if not errors and has_ended(node) and not _is_past(node, now):
            errors = [f"has no responses before its sunset: restore them until {node['x-sunset']}"]
        place = sources.find_pointer(pointer) if errors else ""
        subject = _name_part(key, pointer, contract) if errors else ""
        found += [Finding(place, f"{subject} {error}") for error in errors]
    # A shared parameter is a part of each of its operations.
    return list(dict.fromkeys(found))


def find_overdue(contract: Node, now: datetime.datetime | None = None) -> list[str]:
    """Return a sentence for each operation that is past its sunset and is still served."""
    return [
        f"`{one.operation_id}` ended on {one.definition['x-sunset']}: write `responses: {{}}` ({GUIDE})"
        for one in Document(contract).operations()
        if _is_past(one.definition, now) and not has_ended(one.definition)
    ]


def _name_part(key: str, pointer: str, contract: Node) -> str:
    """Return the name of a part at the start of a sentence."""
    subject = describe_subject(pointer, contract)
    return key if subject == "The operation" else subject


def _is_past(node: Node, now: datetime.datetime | None) -> bool:
    """Return whether a part has a sunset, which is past."""
    try:
        return parse_time(node.get("x-sunset")) <= (now or datetime.datetime.now(datetime.UTC))
    except ValueError:
        return False


def list_sunset_changes(base: Node, revision: Node, now: datetime.datetime | None = None) -> Iterator[Found]:
    """Yield each other sunset, each sunset that leaves no time, and each lost `x-documented`."""
    old = dict(list_parts(base))
    for key, (pointer, node, _) in list_parts(revision):
        was = old[key].node if key in old else node
        ends, ended = node.get("x-sunset"), was.get("x-sunset")
        if was.get("x-documented") and not node.get("x-documented"):
            text = "is no longer in the public documentation (`x-documented`)"
            yield "breaking", f"{describe_subject(pointer, revision)} {text}.", pointer
        if ended and ends != ended:
            is_earlier = bool(ends) and str(ends) < ended
            text = f"ends on `{ends}`" if ends else "has no end"
            subject = describe_subject(pointer, revision)
            yield "breaking" if is_earlier else "changed", f"{subject} {text}, was `{ended}`.", pointer
        elif not ended and not has_ended(node) and _is_past(node, now):
            yield (
                "breaking",
                f"{describe_subject(pointer, revision)} is deprecated and ends at once.",
                pointer,
            )


def take_ended(base: Node, revision: Node, now: datetime.datetime | None = None) -> Iterator[Found]:
    """Remove what has left the contract from both, in place, and yield what became of it.

    What was past its sunset is "removed". What was not stays, and the comparison finds its breaks. An
    operation has to be served with 410 before it leaves.
    """
    yield from _take_operations(base, revision, now)
    yield from _take_parameters(base, revision, now)
    old, new = (one.get("components", {}).get("schemas", {}) for one in (base, revision))
    yield from _take_properties(old, new, "#/components/schemas", now)


def _take_operations(base: Node, revision: Node, now: datetime.datetime | None) -> Iterator[Found]:
    kept = {one.operation_id for one in Document(revision).operations()}
    for one in list(Document(base).operations()):
        was, method = one.definition, one.method.lower()
        node = revision["paths"].get(one.path, {}).get(method)
        pointer, name = "#" + join_pointer(["paths", one.path, method]), f"`{one.operation_id}`"
        if node is not None and has_ended(node) and not has_ended(was):
            date = was.get("x-sunset")
            reason = f" Its sunset is {date}." if date else " It was not deprecated."
            text = f"{name} has ended: it returns 410."
            yield ("removed", text, pointer) if _is_past(was, now) else ("breaking", text + reason, pointer)
            _remove_operation(revision, one.path, method)
        elif node is None and one.operation_id not in kept and _is_past(was, now):
            text = f"{name} was removed"
            must = (
                ": in the first release after its sunset it must return 410." if not has_ended(was) else "."
            )
            yield "removed" if has_ended(was) else "breaking", text + must, pointer
        else:
            continue
        _remove_operation(base, one.path, method)


def _remove_operation(contract: Node, path: str, method: str) -> None:
    item = contract["paths"][path]
    del item[method]
    if not any(one in item for one in METHODS):
        del contract["paths"][path]


def _take_parameters(base: Node, revision: Node, now: datetime.datetime | None) -> Iterator[Found]:
    new = {(one.path, one.method): one for one in Document(revision).operations()}
    document = Document(base)
    for one in document.operations():
        if (one.path, one.method) not in new or "parameters" not in one.definition:
            continue
        known = {(other["in"], other["name"]) for other in new[one.path, one.method].parameters}
        kept = []
        for parameter in one.definition["parameters"]:
            node = document.resolve(parameter)
            if (node["in"], node["name"]) in known or not _is_past(node, now):
                kept.append(parameter)
                continue
            text = f"The {node['in']} parameter `{node['name']}` was removed after its sunset."
            yield "removed", text, "#" + join_pointer(["paths", one.path, one.method.lower()])
        one.definition["parameters"] = kept


def _take_properties(old: Any, new: Any, pointer: str, now: datetime.datetime | None) -> Iterator[Found]:
    if isinstance(old, list) and isinstance(new, list):
        for index, (was, node) in enumerate(zip(old, new, strict=False)):
            yield from _take_properties(was, node, f"{pointer}/{index}", now)
    if not isinstance(old, dict) or not isinstance(new, dict):
        return
    properties = old.get("properties")
    for name, child in list(properties.items()) if isinstance(properties, dict) else ():
        if name not in new.get("properties", {}) and isinstance(child, dict) and _is_past(child, now):
            del old["properties"][name]
            if name in old.get("required", []):
                required = [one for one in old.pop("required") if one != name]
                old |= {"required": required} if required else {}
            place = pointer + join_pointer(["properties", name])
            yield "removed", f"{describe_subject(place, {})} was removed after its sunset.", place
    for key in [key for key in old if key in new and key not in NO_SCHEMAS]:
        yield from _take_properties(old[key], new[key], pointer + join_pointer([key]), now)
