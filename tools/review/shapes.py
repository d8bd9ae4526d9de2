"""Check the files of the contract and its extensions against `openapi/shapes.yaml`, before all other checks.

What OpenAPI does not define has a schema there. A value of another shape is one sentence with file, line and
the way out: a check that expects the right shape would fail, or tell a wrong story.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs

from tools.project import METHODS
from tools.review.source_map import SourceMap
from tools.review.tools import ROOT
from tools.review.yaml_errors import YamlError, load_yaml

Node = dict[str, Any]
SHAPES = ROOT / "openapi" / "shapes.yaml"
MAX_SHOWN = 40


def find_shape_errors(folder: Path, *names: str) -> list[YamlError]:
    """Return the values of a wrong shape in the YAML files below a folder, all of which are valid YAML.

    Args:
        names: Paths below the folder; without one, all files are checked.
    """
    shapes, sources = load_yaml(SHAPES), SourceMap(folder)
    paths = [folder / name for name in names] or sorted(folder.rglob("*.yaml"))
    return [
        error
        for path in paths
        if path.name != SHAPES.name
        for error in _find_errors_of_file(path.relative_to(folder).as_posix(), shapes, sources)
    ]


def _find_errors_of_file(name: str, shapes: Node, sources: SourceMap) -> list[YamlError]:
    """Return what is wrong with the shape of one file, each place once."""
    content = load_yaml(sources.folder / name)
    found: dict[tuple[str, ...], str] = {}
    if name in shapes["files"]:
        schema = shapes["files"][name] | {"$defs": shapes["$defs"]}
        if name == "allowed-breaks.yaml" and content is None:
            content = []
        for path, message in _find_errors(schema, content):
            found.setdefault(path, message)
    for path, node in _walk(content, ()):
        kind = _find_kind(name, path)
        for key in (key for key in node if isinstance(key, str) and key.startswith("x-")):
            for inner, message in _find_extension_errors(key, node[key], kind, shapes):
                found.setdefault((*path, key, *inner), message)
    errors = []
    for path, message in found.items():
        file, _, line = sources.find_in_file(name, list(path)).rpartition(":")
        errors.append(YamlError(file, int(line), message))
    return errors


def _walk(
    node: Any, path: tuple[str, ...], parents: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Yield the objects of a document with their paths, except examples and names of properties."""
    if id(node) in parents:
        return
    children: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(node, dict):
        if path[-1:] not in (("properties",), ("headers",)):
            yield path, node
        children = iter(node.items())
    elif isinstance(node, list):
        children = iter(enumerate(node))
    for key, child in children:
        if key not in ("example", "examples", "default", "enum", "payload"):
            yield from _walk(child, (*path, str(key)), (*parents, id(node)))


def _find_kind(name: str, path: tuple[str, ...]) -> str:
    """Return what the object at a path of a file is, in the words of `extensions`."""
    last, parent = path[-1:], path[-2:-1]
    if not path:
        return "document"
    if name.startswith("paths/") and len(path) == 2 and path[1] in METHODS:
        return "operation"
    if parent == ("content",):
        return "media type"
    if name.startswith("workflows/") and parent == ("steps",):
        return "step"
    if parent == ("parameters",) or (name == "components/parameters.yaml" and len(path) == 1):
        return "parameter"
    if name.startswith("components/schemas/") or "schema" in path or "x-event-data" in path:
        return "schema"
    return f"object such as `{last[0]}`"


def _find_extension_errors(
    key: str, value: Any, kind: str, shapes: Node
) -> Iterator[tuple[tuple[str, ...], str]]:
    known = shapes["extensions"].get(kind, {})
    if key in known:
        schema = {"properties": {key: known[key]}, "$defs": shapes["$defs"]}
        yield from ((path[1:], message) for path, message in _find_errors(schema, {key: value}))
        return
    owners = [owner for owner, names in shapes["extensions"].items() if key in names]
    if owners:
        listed = " and ".join(map(_with_article, owners))
        yield (
            (),
            f"`{key}` belongs to {listed}, not to {_with_article(kind)}: move or remove it",
        )
        return
    way_out = f"correct it, or describe it in openapi/{SHAPES.name}"
    names = [name for names in shapes["extensions"].values() for name in names]
    near = difflib.get_close_matches(key, [*known, *names], 1)
    yield (), f"there is no extension `{key}`{_suggest(near)}: {way_out}"


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeio' else 'a'} {kind}"


def _suggest(near: list[str]) -> str:
    return f" (did you mean `{near[0]}`?)" if near else ""


@functools.cache
def _compile(schema: str) -> Any:
    return jsonschema_rs.Draft202012Validator(json.loads(schema))


def _find_errors(schema: Node, value: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path and a sentence of each violation."""
    errors = list(_compile(json.dumps(schema)).iter_errors(json.loads(json.dumps(value, default=str))))
    named = set()
    # A misspelled key is unknown, and the right one is missing: the first sentence says both.
    for error in sorted(errors, key=lambda one: one.kind.name == "required"):
        path = tuple(map(str, error.instance_path))
        details, word = error.kind.as_dict(), error.kind.name
        subject = _describe_place(error.instance_path)
        if word == "propertyNames":
            name = str(details["error"].instance)
            _, way_out = _follow(schema, details["error"].evaluation_path)
            yield (*path, name), f"`{name}` is not a name that fits here: {way_out}"
            continue
        owner, way_out = _follow(schema, error.evaluation_path)
        if word == "additionalProperties":
            for name in details["unexpected"]:
                near = difflib.get_close_matches(name, owner.get("properties", {}), 1)
                named |= {(path, *near)}
                yield (*path, name), f"`{name}` is unknown here{_suggest(near)}: {way_out}"
        elif word == "required":
            name = details["property"]
            _, missing = _follow(schema, [*error.evaluation_path[:-1], "properties", name, ""])
            if (path, name) not in named:
                yield path, f"{subject} has no `{name}`: {missing}"
        elif word == "uniqueItems":
            twice = next(one for one in error.instance if error.instance.count(one) > 1)
            yield path, f"{subject} has {_describe(twice)} twice: {way_out}"
        else:
            listed = f": {', '.join(details['options'])}" if word == "enum" else ""
            yield path, f"{subject} is {_describe(error.instance)}: {way_out}{listed}"


def _describe_place(path: list[str | int]) -> str:
    if not path:
        return "the file"
    if isinstance(path[-1], str):
        return f"`{path[-1]}`"
    return f"item {path[-1] + 1} of {f'`{path[-2]}`' if path[1:] else 'the list'}"


def _follow(schema: Node, path: list[Any]) -> tuple[Node, str]:
    """Return the schema that has the last keyword of a path, and the last description on the way."""
    node: Any = schema
    owner, description = schema, ""
    for step in path:
        if isinstance(node, dict):
            owner, description = node, node.get("description", description)
        node = schema["$defs"][node["$ref"].rpartition("/")[2]] if step == "$ref" else node.get(step, {})
    return owner, str(description)


def _describe(value: Any) -> str:
    """Return a value as it looks in JSON, so that a text has quotes, or what it is."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= MAX_SHOWN:
        return "empty" if value is None else f"`{text}`"
    return "a map" if isinstance(value, dict) else f"`{text[: MAX_SHOWN - 4]} ...`"
