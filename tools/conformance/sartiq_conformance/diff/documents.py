"""Bring OpenAPI 3.0 and 3.1 documents to one form in which they can be compared.

`KINDS` says what stands where in a document. So an example or a default is never taken for a part of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote

Node = dict[str, Any]
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
OPERATION_ROOTS = ("paths", "webhooks")
SCHEMAS = "#/components/schemas/"
NULL = {"type": "null"}
EVENTS = "event data"
"""The media type under which the data of events (`x-event-data`) is compared."""
ANNOTATIONS = (
    *("x-deprecated-at", "x-sunset", "x-replacement", "x-documented"),
    "description",
    "example",
    "examples",
    "default",
    "readOnly",
    "writeOnly",
    "deprecated",
    "title",
)
CLOSING = {"items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems"}
"""Keywords of schemas that are often `false` or `true`."""


class DocumentError(Exception):
    """A document cannot be compared. The message is one sentence; `line` is 0 if it is not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class Kind(NamedTuple):
    """A kind of objects or lists of a document.

    `members` are the kinds of its members by their names, `others` is that of all other members, and `items`
    that of the items of a list. In an object that has extensions, names that start with `x-` are no members.
    """

    members: Mapping[str, str] = MappingProxyType({})
    others: str = ""
    items: str = ""
    has_extensions: bool = True

    def find(self, name: str) -> str:
        """Return the kind of a member, or an empty text if it is a value."""
        if name in self.members:
            return self.members[name]
        return "" if self.has_extensions and name.startswith("x-") else self.others


def _map_of(kind: str) -> Kind:
    return Kind(others=kind, has_extensions=False)


_CONTENT = {"schema": "Schema", "examples": "ExamplesMap"}
_COMPONENTS = {
    "schemas": "Schema",
    "responses": "Response",
    "parameters": "Parameter",
    "examples": "Example",
    "requestBodies": "RequestBody",
    "headers": "Header",
    "securitySchemes": "SecurityScheme",
    "links": "Link",
    "callbacks": "Callback",
    "pathItems": "PathItem",
}
_SUBSCHEMAS = ("not", "if", "then", "else", "contains", "propertyNames", "contentSchema", *sorted(CLOSING))
KINDS: dict[str, Kind] = {
    "Document": Kind(
        {
            "info": "Info",
            "servers": "ServerList",
            "externalDocs": "ExternalDocs",
            "paths": "Paths",
            "webhooks": "WebhooksMap",
            "components": "Components",
        }
    ),
    "Info": Kind({"contact": "Contact", "license": "License"}),
    "Paths": Kind(others="PathItem"),
    "WebhooksMap": _map_of("PathItem"),
    "PathItem": Kind(
        {"servers": "ServerList", "parameters": "ParameterList"} | dict.fromkeys(METHODS, "Operation")
    ),
    "Operation": Kind(
        {
            "externalDocs": "ExternalDocs",
            "parameters": "ParameterList",
            "requestBody": "RequestBody",
            "responses": "Responses",
            "callbacks": "CallbacksMap",
            "servers": "ServerList",
        }
    ),
    "ParameterList": Kind(items="Parameter"),
    "Parameter": Kind({**_CONTENT, "content": "MediaTypesMap"}),
    "RequestBody": Kind({"content": "MediaTypesMap"}),
    "Responses": Kind(others="Response"),
    "Response": Kind({"headers": "HeadersMap", "content": "MediaTypesMap", "links": "LinksMap"}),
    "HeadersMap": _map_of("Header"),
    "Header": Kind({**_CONTENT, "content": "MediaTypesMap"}),
    "MediaTypesMap": _map_of("MediaType"),
    "MediaType": Kind({**_CONTENT, "encoding": "EncodingMap"}),
    "EncodingMap": _map_of("Encoding"),
    "Encoding": Kind({"headers": "HeadersMap"}),
    "ExamplesMap": _map_of("Example"),
    "LinksMap": _map_of("Link"),
    "Link": Kind({"parameters": "Values", "server": "Server"}),
    "CallbacksMap": _map_of("Callback"),
    "Callback": Kind(others="PathItem"),
    "ServerList": Kind(items="Server"),
    "Server": Kind({"variables": "ServerVariablesMap"}),
    "ServerVariablesMap": _map_of("ServerVariable"),
    "Components": Kind({name: f"Components of {name}" for name in _COMPONENTS}),
    **{f"Components of {name}": _map_of(kind) for name, kind in _COMPONENTS.items()},
    "SecurityScheme": Kind({"flows": "Flows"}),
    "Flows": Kind(others="Flow"),
    "Flow": Kind({"scopes": "Values"}),
    "Schema": Kind(
        {
            "properties": "SchemaProperties",
            "patternProperties": "SchemaMap",
            "dependentSchemas": "SchemaMap",
            "dependentRequired": "Values",
            "$defs": "SchemaMap",
            "allOf": "AllOf",
            "anyOf": "AnyOf",
            "oneOf": "OneOf",
            "prefixItems": "SchemaList",
            "externalDocs": "ExternalDocs",
            "discriminator": "Discriminator",
            "xml": "Values",
        }
        | dict.fromkeys(_SUBSCHEMAS, "Schema")
    ),
    "SchemaProperties": _map_of("Schema"),
    "SchemaMap": _map_of("Schema"),
    **{name: Kind(items="Schema") for name in ("AllOf", "AnyOf", "OneOf", "SchemaList")},
    "Discriminator": Kind({"mapping": "Values"}),
    "Values": Kind(has_extensions=False),
    **{name: Kind() for name in ("Example", "ExternalDocs", "Contact", "License", "ServerVariable")},
}
REFERABLE = {*_COMPONENTS.values()}
INLINED = {"PathItem", "Callback"}
"""What is compared where it is used, because it has operations."""


def join_pointer(steps: Iterable[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) with these steps."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def split_pointer(pointer: str) -> list[str]:
    """Return the steps of a pointer, also of one in a URI fragment (`#/...`)."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.removeprefix("#").split("/")[1:]]


def resolve_pointer(document: Node, pointer: str) -> Any:
    """Return the node at a JSON pointer, or None if there is none."""
    node: Any = document
    for step in split_pointer(pointer):
        try:
            node = node[int(step)] if isinstance(node, list) else node[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return node


def encode(value: Any) -> str:
    """Return a text that is equal for equal JSON values only: `1` is not `true`."""
    return json.dumps(value, sort_keys=True)


def read_openapi_version(document: Node) -> str:
    """Return `3.0` or `3.1`.

    Raises:
        DocumentError: The document has another version, or none.
    """
    if "swagger" in document:
        raise DocumentError(f"is a Swagger {document['swagger']} document: convert it to OpenAPI 3 first")
    if "openapi" not in document:
        raise DocumentError("is no OpenAPI document: it has no `openapi`")
    version = ".".join(str(document["openapi"]).split(".")[:2])
    if version not in ("3.0", "3.1"):
        raise DocumentError(f"is OpenAPI {document['openapi']}: only 3.0 and 3.1 are compared")
    return version


def normalize(document: Node, other: Node | None = None) -> Node:
    """Return a document as OpenAPI 3.1, with path items and callbacks in the places where they are used.

    Args:
        other: The document that it is compared with. A component of a 3.0 document that can be null, and that
            only this document has, stands for "another component or null", which 3.0 cannot say.

    Raises:
        DocumentError: A part is not an object or a list, or a reference does not point to a part of the
            document. The message has its JSON pointer.
    """
    is_30 = read_openapi_version(document) == "3.0"
    try:
        normalized: Node = _Normalizer(document, other, is_30).rebuild(document, "Document", "#")
    except RecursionError:
        raise DocumentError("is nested too deep") from None
    for root in OPERATION_ROOTS:
        normalized.setdefault(root, {})
    normalized.setdefault("components", {})
    return normalized


class _Normalizer:
    def __init__(self, document: Node, other: Node | None, is_30: bool) -> None:
        self._document = document
        self._is_30 = is_30
        schemas, others = (
            resolve_pointer(one or {}, "#/components/schemas") or {} for one in (document, other)
        )
        self._nullable = {
            SCHEMAS + join_pointer([name])[1:]
            for name, schema in (schemas.items() if is_30 and isinstance(schemas, dict) else ())
            if isinstance(schema, dict) and schema.get("nullable") is True and name not in others
        }

    def rebuild(self, value: Any, name: str, pointer: str, open_references: tuple[str, ...] = ()) -> Any:
        """Return a part of the document in its new form."""
        kind = KINDS[name]
        if kind.items:
            if not isinstance(value, list):
                raise DocumentError(f"{pointer} is not a list")
            return [self.rebuild(one, kind.items, f"{pointer}/{index}") for index, one in enumerate(value)]
        if name == "Schema" and isinstance(value, bool):
            return {} if value else {"not": {}}
        if not isinstance(value, dict):
            raise DocumentError(f"{pointer} is not an object")
        if "$ref" in value and name in REFERABLE:
            reference = self._check_reference(value["$ref"], name, pointer)
            if name in INLINED:
                if reference in open_references:
                    raise DocumentError(f"{pointer} refers to itself")
                target = resolve_pointer(self._document, reference)
                if not isinstance(target, dict):
                    raise DocumentError(f"{reference} is not an object")
                target = {**value, **target}
                if target["$ref"] == value["$ref"]:
                    del target["$ref"]
                return self.rebuild(target, name, pointer, (*open_references, reference))
            value = {"$ref": reference} if self._is_30 else {**value, "$ref": reference}
        if name == "MediaTypesMap":
            value = dict(_move_event_data(value))
        rebuilt: Node = {}
        for key, child in value.items():
            child_kind = kind.find(key)
            # YAML with nothing behind a key has null, which says nothing.
            if child_kind and child is None:
                continue
            is_value = not child_kind or (key in CLOSING and isinstance(child, bool))
            path = pointer + join_pointer([key])
            rebuilt[key] = child if is_value else self.rebuild(child, child_kind, path)
        return self._rebuild_schema(rebuilt, pointer) if name == "Schema" else rebuilt

    def _check_reference(self, reference: Any, name: str, pointer: str) -> str:
        """Return a reference without percent-encoding."""
        if not isinstance(reference, str):
            raise DocumentError(f"`$ref` of {pointer} is not a text")
        if not reference.startswith("#"):
            text = f"{pointer} refers to another file, {reference}: bundle the files to one document first"
            raise DocumentError(text)
        steps = split_pointer(unquote(reference))
        if not reference.startswith("#/") or _find_kind(steps) != name:
            text = f"{pointer} refers to {reference}, which is no JSON pointer to the place of a {name}"
            raise DocumentError(text)
        seen, target = {reference}, resolve_pointer(self._document, unquote(reference))
        while isinstance(target, dict) and (following := str(target.get("$ref"))).startswith("#"):
            if following in seen:
                raise DocumentError(f"{pointer} refers to {reference}, which refers to itself")
            seen.add(following)
            target = resolve_pointer(self._document, unquote(following))
        if not isinstance(target, dict | bool):
            raise DocumentError(f"{pointer} refers to {reference}, which does not exist")
        return "#" + join_pointer(steps)

    def _rebuild_schema(self, schema: Node, pointer: str) -> Node:
        if isinstance(schema.get("pattern"), str):
            schema["pattern"] = _normalize_pattern(schema["pattern"])
        if not self._is_30:
            return schema
        for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(flag := schema.get(exclusive), bool):
                del schema[exclusive]
                schema |= {exclusive: schema.pop(bound)} if flag and bound in schema else {}
        is_nullable = schema.pop("nullable", None) is True
        if schema.get("$ref") in self._nullable:
            return {"anyOf": [schema, NULL]}
        if pointer in self._nullable:
            if isinstance(schema.get("enum"), list):
                schema["enum"] = [one for one in schema["enum"] if one is not None]
            return schema
        if not is_nullable:
            return _lift_null(schema)
        if isinstance(schema.get("type"), str):
            return {**schema, "type": [schema["type"], "null"]}
        word = next((word for word in ("allOf", "anyOf", "oneOf") if word in schema), None)
        if word is None:
            return schema  # Without a type, null is valid anyway.
        annotations = {key: schema.pop(key) for key in ANNOTATIONS if key in schema}
        parts = schema[word] if len(schema) == 1 and (word == "anyOf" or len(schema[word]) == 1) else [schema]
        return {**annotations, "anyOf": [*parts, NULL]}


def _find_kind(steps: list[str]) -> str:
    """Return the kind of what stands at a place of a document, or an empty text if it is a value."""
    name = "Document"
    for step in steps:
        name = (KINDS[name].items or KINDS[name].find(step)) if name else ""
    return name


def _lift_null(schema: Node) -> Node:
    """Return `allOf` of a component that can be null as in 3.1, where the component cannot."""
    parts = schema.get("allOf", [])
    if (
        len(parts) == 1
        and "anyOf" not in schema
        and parts[0].keys() == {"anyOf"}
        and NULL in parts[0]["anyOf"]
    ):
        return {key: child for key, child in schema.items() if key != "allOf"} | parts[0]
    return schema


def _move_event_data(content: Node) -> Iterator[tuple[str, Any]]:
    """Yield the media types. The schema of events, which is no schema of the body, has its own."""
    for name, media in content.items():
        if not isinstance(media, dict) or "x-event-data" not in media:
            yield name, media
            continue
        yield name, {key: child for key, child in media.items() if key != "x-event-data"}
        yield EVENTS, {"schema": media["x-event-data"]}


def _normalize_pattern(pattern: str) -> str:
    r"""Return a pattern with `\x00` as `\u0000`, which means the same."""
    return re.sub(r"\\(?:x([0-9A-Fa-f]{2})|.)", lambda one: f"\\u00{one[1]}" if one[1] else one[0], pattern)


def flatten(contract: Node) -> Node:
    """Return a normalized document in which a schema with a name and one without are comparable."""
    flat: Node = _flatten(contract, "Document", contract, ())
    return flat


def _flatten(node: Any, name: str, contract: Node, merged: tuple[str, ...]) -> Any:
    kind = KINDS[name]
    if isinstance(node, list):
        return [_flatten(child, kind.items, contract, merged) for child in node]
    if not isinstance(node, dict):
        return node
    if name == "Schema":
        reference = next(
            (one["$ref"] for one in node.get("allOf") or node.get("anyOf") or () if "$ref" in one), ""
        )
        flat = node if reference in merged else flatten_schema(node, contract)
        # A list of itself would never end.
        merged = (*merged, reference) if flat is not node else merged
        node = flat
    flattened = {}
    for key, child in node.items():
        is_reference = name == "Schema" and key == "anyOf" and child and "$ref" in child[0]
        child_kind = kind.find(key)
        is_value = is_reference or not child_kind
        flattened[key] = child if is_value else _flatten(child, child_kind, contract, merged)
    return flattened


def flatten_schema(schema: Node, contract: Node) -> Node:
    """Return a schema that refers to one component, with annotations or null, in one form.

    An object has the form `anyOf`: when it becomes nullable, there is one more branch. All other schemas are
    merged. Otherwise there would be another schema when an inline enumeration gets a name, and a break when a
    property of a response can no longer be null.
    """
    for word in ("$ref", "allOf", "anyOf"):
        if word in schema and not set(schema) - {word, *ANNOTATIONS}:
            parts = [{"$ref": schema["$ref"]}] if word == "$ref" else schema[word]
            if not parts or parts[1:] not in ([], [NULL]):
                return schema
            if not str(parts[0].get("$ref", "")).startswith(SCHEMAS):
                return schema
            target = follow(contract, parts[0])
            annotations = {key: schema[key] for key in schema if key != word}
            if target.get("type") == "object":
                return {**annotations, "anyOf": parts}
            if isinstance(kind := target.get("type"), str) and word != "$ref":
                return {**target, **annotations, "type": [kind, "null"] if parts[1:] else kind}
    return schema


def follow(contract: Node, node: Any) -> Any:
    """Return what a reference of a normalized document points to at its end, or the node itself."""
    while isinstance(node, dict) and isinstance(node.get("$ref"), str):
        node = get_target(contract, node["$ref"])
    return node


def get_target(contract: Node, reference: str) -> Any:
    """Return what a reference points to. The schemas `true` and `false` are objects, as everywhere else."""
    target = resolve_pointer(contract, reference)
    if target is None or isinstance(target, bool):
        return {"not": {}} if target is False else {}
    return target
