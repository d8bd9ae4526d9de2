"""Decide what a change of one part means for clients, such as a request that accepts fewer values."""

from __future__ import annotations

import re
from typing import Any

from .documents import encode
from .nodes import NodeChange
from .usage import LEFT_OUT

WORDS = {
    *("description", "summary", "title", "example", "examples", "version", "termsOfService", "url", "email"),
    "externalValue",
}
"""Keys with text for people. The URL of a server is not one of them."""
INVISIBLE_KINDS = {"Example", "ExamplesMap", "Info", "License", "Contact", "ExternalDocs"}
SECURITY_SCHEMES = "#/components/securitySchemes/"
SERIALIZATION = {"in", "name", "style", "explode", "allowReserved", "allowEmptyValue"}
LOWER_LENGTHS = {"minLength", "minItems", "minProperties"}
UPPER_LENGTHS = {"maxLength", "maxItems", "maxProperties"}
FORMATS = {"multipleOf", "pattern", "format", "const", "contentEncoding", "contentMediaType"}
STRICT_VALUES = {
    "uniqueItems": True,
    "additionalProperties": False,
    "unevaluatedItems": False,
    "unevaluatedProperties": False,
    "items": False,
}
CONDITIONS = {
    *(
        "not",
        "then",
        "else",
        "contains",
        "propertyNames",
        "items",
        "additionalProperties",
        "unevaluatedItems",
    ),
    *("unevaluatedProperties", "prefixItems", "dependentSchemas", "dependentRequired"),
}
"""Keywords with schemas: with one of them, fewer values are valid."""
COMPOSITIONS = {"AllOf", "AnyOf", "OneOf"}
BOUNDS = {"minimum": ("minimum", "exclusiveMinimum", 1), "maximum": ("maximum", "exclusiveMaximum", -1)}
FEWER, MORE, OTHER = "fewer", "more", "other"
"""What a schema accepts after a change."""


def find_impact(change: NodeChange, directions: set[str], has_other_success: bool) -> str:
    """Return the impact of a change.

    Args:
        directions: Where the part is used: `request`, `response` or both.
        has_other_success: Whether a new response is one of success, and the operation has had another one.
    """
    kind, key, action = change.kind, change.key, change.action
    is_extensible = key == "enum" and change.get(False, "x-extensible-enum") is not None
    if is_extensible and change.now is not None and _accepts(change) == MORE:
        return "added"  # Clients accept values that they do not know.
    if change.pointer.startswith(SECURITY_SCHEMES):
        return _find_impact_of_scheme(change)
    for direction, word in LEFT_OUT.items():
        sides = [one.value.get(word) for one in (change.old, change.new) if one and kind == "Schema"]
        if sides and all(value is True for value in sides):
            directions = directions - {direction}
    if is_breaking(change, directions) or (kind == "Response" and has_other_success):
        return "breaking"
    if action == "modified" and key == "tags":
        return "imports"
    if kind in INVISIBLE_KINDS or (action == "modified" and key in WORDS and kind != "Server"):
        return "wording"
    if action == "modified" and key == "deprecated" and change.now:
        return "deprecated"
    return "added" if action == "added" else "changed"


def _find_impact_of_scheme(change: NodeChange) -> str:
    if change.action == "added" or (change.kind == "Values" and change.was is None):
        return "added"
    is_text = change.key in WORDS or change.kind == "Values"  # the description of a scope
    return "wording" if change.action == "modified" and is_text and change.now is not None else "breaking"


def is_breaking(change: NodeChange, directions: set[str]) -> bool:
    """Return whether clients that rely on the old document fail with a server of the new one."""
    action, key = change.action, change.key
    is_gone = action in ("removed", "renamed")
    match change.kind:
        case "PathItem":
            return action == "removed" or (action == "renamed" and not _has_equal_template(change))
        case "Operation":
            return action == "removed" or (key == "operationId" and change.was is not None)
        case "Callback" | "Responses" | "Response":
            return is_gone
        case "MediaType":
            return is_gone and bool(directions)
        case "Parameter":
            return "request" in directions and _breaks_parameter(change)
        case "RequestBody":
            is_required = change.get(True, "required") is True and (key == "required" or action == "added")
            return "request" in directions and (action == "removed" or is_required)
        case "Header":
            is_renamed = action == "renamed" and str(change.was).lower() != str(change.now).lower()
            is_optional = key == "required" and change.was is True
            return "response" in directions and (action == "removed" or is_renamed or is_optional)
        case "Server":
            return action == "removed" or key == "url"
    return _breaks_schema(change, directions)


def _has_equal_template(change: NodeChange) -> bool:
    """Return whether two paths differ only in the names of their parameters."""
    return len({re.sub(r"\{[^}]*\}", "{}", str(path)) for path in (change.was, change.now)}) == 1


def _breaks_parameter(change: NodeChange) -> bool:
    if change.action != "modified":
        return change.action == "removed" or change.get(True, "required") is True
    return (change.key == "required" and change.now is True) or change.key in SERIALIZATION


def _breaks_schema(change: NodeChange, directions: set[str]) -> bool:
    if change.parent_kind == "SchemaProperties" and change.action in ("removed", "renamed"):
        # An open object accepts any value under the name that is gone.
        schema = change.new_parent or {}
        is_closed = False in (schema.get("additionalProperties"), schema.get("unevaluatedProperties"))
        return "response" in directions or ("request" in directions and is_closed)
    if change.key == "additionalProperties" and directions == {"response"} and change.was is False:
        return False  # Clients ignore unknown properties: responses can have new ones at any time.
    if change.kind == "Schema" and change.action == "modified":
        if change.key in ("readOnly", "writeOnly"):
            # Requests cannot set the property any more, or responses do not contain it.
            direction = "request" if change.key == "readOnly" else "response"
            return change.now is True and direction in directions
        if change.key in ("contentEncoding", "contentMediaType") and "response" in directions:
            return True  # Clients decode what they get.
        if change.key == "default":
            # Clients that omit the value get another one.
            return "request" in directions and change.was is not None
        if change.key == "required":
            return _breaks_required(change, directions)
        if change.key == "type":
            return _breaks_type(change, directions)
    accepts = _accepts(change)
    return (accepts in (FEWER, OTHER) and "request" in directions) or (
        accepts in (MORE, OTHER) and "response" in directions
    )


def _accepts(change: NodeChange) -> str:
    """Return whether a schema accepts fewer, more or other values, or an empty text if neither is known."""
    if change.action in ("added", "removed"):
        return _accepts_with_part(change)
    if change.kind != "Schema" or change.action != "modified":
        return ""
    key, was, now = change.key, change.was, change.now
    if key == "enum":
        return _accepts_values(was, now)
    if key in STRICT_VALUES:
        strict = STRICT_VALUES[key]
        return "" if (was == strict) == (now == strict) else FEWER if now == strict else MORE
    for inclusive, exclusive, sign in BOUNDS.values():
        if key in (inclusive, exclusive):
            return _accepts_range(change, inclusive, exclusive, sign)
    if key not in LOWER_LENGTHS | UPPER_LENGTHS | FORMATS:
        return ""
    if was is None or now is None:
        return FEWER if was is None else MORE
    if key in FORMATS or not (_is_number(was) and _is_number(now)):
        return OTHER
    return FEWER if (now > was) == (key in LOWER_LENGTHS) else MORE


def _accepts_with_part(change: NodeChange) -> str:
    """Return what a schema accepts after a part of it was added or removed."""
    is_added = change.action == "added"
    is_pattern = change.kind == "SchemaMap" and change.name == "patternProperties"
    if change.kind in COMPOSITIONS or change.parent_kind == "AllOf" or is_pattern:
        return FEWER if is_added else MORE
    if change.parent_kind in COMPOSITIONS:
        return MORE if is_added else FEWER
    if change.parent_kind != "Schema" or change.name not in CONDITIONS:
        return ""
    other = change.old_parent if is_added else change.new_parent
    if change.name in STRICT_VALUES and (other or {}).get(change.name) is False:
        return ""  # The change of `false` says it.
    return FEWER if is_added else MORE


def _accepts_values(was: Any, now: Any) -> str:
    if was is None or now is None:
        return FEWER if was is None else MORE
    old, new = (set(map(encode, one)) if isinstance(one, list) else set() for one in (was, now))
    return OTHER if old - new and new - old else FEWER if old - new else MORE if new - old else ""


def _accepts_range(change: NodeChange, inclusive: str, exclusive: str, sign: int) -> str:
    if change.key == exclusive and change.get(False, inclusive) != change.get(True, inclusive):
        return ""  # The other bound says it.
    old, new = (
        max(
            [
                (sign * value, is_exclusive)
                for key, is_exclusive in ((inclusive, False), (exclusive, True))
                if _is_number(value := change.get(is_new, key))
            ],
            default=None,
        )
        for is_new in (False, True)
    )
    if old == new:
        return ""
    return FEWER if old is None or (new is not None and new > old) else MORE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _breaks_required(change: NodeChange, directions: set[str]) -> bool:
    was, now = ([one for one in value or [] if isinstance(one, str)] for value in (change.was, change.now))
    must_be_sent = set(now) - set(was) - _list_marked(change, "readOnly")
    can_be_missing = set(was) - set(now) - _list_marked(change, "writeOnly")
    return ("request" in directions and bool(must_be_sent)) or (
        "response" in directions and bool(can_be_missing)
    )


def _list_marked(change: NodeChange, word: str) -> set[str]:
    """Return the properties that requests or responses do not have."""
    properties = (change.get(False, "properties") or {}) | (change.get(True, "properties") or {})
    return {name for name, schema in properties.items() if schema.get(word) is True}


def _breaks_type(change: NodeChange, directions: set[str]) -> bool:
    old, new = (_list_types(one) for one in (change.was, change.now))
    is_narrower = bool(new) and (not old or not _cover(new, old))
    is_wider = bool(old) and (not new or not _cover(old, new))
    return ("request" in directions and is_narrower) or ("response" in directions and is_wider)


def _list_types(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _cover(types: list[Any], others: list[Any]) -> bool:
    return all(one in types or (one == "integer" and "number" in types) for one in others)
