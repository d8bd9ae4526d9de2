"""Describe schemas of the contract in words: the type of a value, its limits, the properties of an object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Link = Callable[[str], str]
"""Returns the Markdown link to a schema, by its name."""

_SIZES = (
    ("minLength", "maxLength", "character", "characters"),
    ("minimum", "maximum", "", ""),
    ("minItems", "maxItems", "item", "items"),
    ("minProperties", "maxProperties", "property", "properties"),
)


def cell(text: object) -> str:
    """Return a text as it can stand in the cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def describe_type(schema: dict[str, Any], link: Link) -> str:
    """Return the type of a value, with links to the schemas that it names."""
    if "$ref" in schema:
        return link(schema["$ref"].rpartition("/")[2])
    for keyword, word in (("oneOf", " or "), ("anyOf", " or ")):
        if keyword in schema and "properties" not in schema:
            parts = dict.fromkeys(describe_type(part, link) for part in schema[keyword])
            return word.join(part for part in parts if part != "any value") or "any value"
    if "allOf" in schema and "type" not in schema:
        named = [part for part in schema["allOf"] if "$ref" in part]
        return " and ".join(describe_type(part, link) for part in named) or "any value"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    names = [_name_type(kind, schema, link) for kind in kinds]
    return " or ".join(names) or "any value"


def _name_type(kind: str, schema: dict[str, Any], link: Link) -> str:
    if kind == "array":
        return f"array of {describe_type(schema.get('items', {}), link)}"
    values = schema.get("additionalProperties")
    if kind == "object" and isinstance(values, dict) and "properties" not in schema:
        return f"object with values: {describe_type(values, link)}"
    if kind in ("string", "integer", "number") and "format" in schema:
        return f"{kind} ({schema['format']})"
    return kind


def _describe_size(schema: dict[str, Any], lowest: str, highest: str, one: str, several: str) -> str:
    """Return the limits of a size: "1 to 120 characters", "at least 1 item", or an empty text."""
    low, high = schema.get(lowest), schema.get(highest)
    noun = one if (low if high is None else high) == 1 else several
    if low is None and high is None:
        return ""
    if low is None or high is None:
        limit = f"at most {high}" if low is None else f"at least {low}"
    else:
        limit = f"exactly {low}" if low == high else f"{low} to {high}"
    return f"{limit} {noun}".rstrip()


def list_limits(schema: dict[str, Any]) -> list[str]:
    """Return what else a value must be: lengths, ranges, values, the default."""
    limits = [text for size in _SIZES if (text := _describe_size(schema, *size))]
    if "exclusiveMinimum" in schema:
        limits.append(f"more than {schema['exclusiveMinimum']}")
    for word, start in (("enum", "one of"), ("x-extensible-enum", "known values:")):
        if word in schema:
            limits.insert(0, f"{start} " + ", ".join(f"`{value}`" for value in schema[word]))
    if "const" in schema:
        limits.append(f"always `{schema['const']}`")
    if "default" in schema:
        limits.append(
            f"default `{str(schema['default']).lower()}`"
            if isinstance(schema["default"], bool)
            else f"default `{schema['default']}`"
        )
    return limits


def list_properties(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield name, schema and whether it is required, of each property; those of inner objects have a path."""
    required = schema.get("required", [])
    for name, inner in schema.get("properties", {}).items():
        yield prefix + name, inner, name in required
        items = inner.get("items", {})
        if "properties" in inner:
            yield from list_properties(inner, f"{prefix}{name}.")
        elif isinstance(items, dict) and "properties" in items:
            yield from list_properties(items, f"{prefix}{name}[].")


def render_properties(schema: dict[str, Any], link: Link) -> list[str]:
    """Return the lines of the table of an object's properties; none for another type."""
    rows = []
    for name, inner, required in list_properties(schema):
        notes = "; ".join(list_limits(inner))
        text = " ".join(
            part for part in (inner.get("description", ""), f"({notes})" if notes else "") if part
        )
        rows.append(
            f"| `{name}` | {cell(describe_type(inner, link))} | {'yes' if required else ''} | {cell(text)} |"
        )
    return ["| Property | Type | Required | Description |", "|---|---|---|---|", *rows] if rows else []
