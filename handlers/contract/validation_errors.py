"""Convert errors of the JSON Schema validator to violations of a problem document.

The messages of the validator are not used: they quote the value, which may be a password or a megabyte.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import jsonschema_rs
import orjson

from handlers.contract.errors import Violation
from handlers.contract.request_schema import PropertyNames, RequestSchema

MAX_VIOLATIONS = 1000
_MAX_INPUT_BYTES = 200
_SECRET_WORDS = ("password", "secret", "token")

_TYPE_CODES = {
    "string": ("string_type", "string_type", "a string"),
    "integer": ("int_type", "int_parsing", "a whole number"),
    "number": ("float_type", "float_parsing", "a number"),
    "boolean": ("bool_type", "bool_parsing", "true or false"),
    "array": ("list_type", "list_type", "an array"),
    "object": ("dict_type", "dict_type", "an object"),
    "null": ("none_required", "none_required", "null"),
}

# keyword -> (type, name of the bound in ctx, message)
_BOUNDS = {
    "minLength": ("string_too_short", "min_length", "Must have at least {} characters"),
    "maxLength": ("string_too_long", "max_length", "Must have at most {} characters"),
    "pattern": ("string_pattern_mismatch", "pattern", "Must match the pattern {}"),
    "minimum": ("greater_than_equal", "ge", "Must be at least {}"),
    "maximum": ("less_than_equal", "le", "Must be at most {}"),
    "exclusiveMinimum": ("greater_than", "gt", "Must be greater than {}"),
    "exclusiveMaximum": ("less_than", "lt", "Must be less than {}"),
    "multipleOf": ("multiple_of", "multiple_of", "Must be a multiple of {}"),
    "minItems": ("too_short", "min_length", "Must have at least {} items"),
    "maxItems": ("too_long", "max_length", "Must have at most {} items"),
    "minProperties": ("too_short", "min_length", "Must have at least {} properties"),
    "maxProperties": ("too_long", "max_length", "Must have at most {} properties"),
}

_SINGULARS = {"characters": "character", "items": "item", "properties": "property"}
_MAX_LISTED_VALUES = 12
"""A message lists the allowed values up to this number. `ctx.expected` always has all of them."""
_FORMAT_NAMES = {
    "uuid": "UUID",
    "date-time": "date and time with a time zone (RFC 3339)",
    "date": "date (RFC 3339)",
    "email": "e-mail address",
    "uri": "URL",
}
_FORMAT_TYPES = {"uuid": "uuid_parsing", "date-time": "datetime_parsing", "date": "date_parsing"}

_MESSAGES = {
    "uniqueItems": ("not_unique", "Must not contain the same item twice"),
    "anyOf": ("no_match", "Matches none of the alternatives"),
    "oneOf": ("no_match", "Must match exactly one of the alternatives"),
    "falseSchema": ("extra_forbidden", "Must not be sent"),
}


def find_violations(schema: RequestSchema, value: Any, location: tuple[str, ...] = ()) -> list[Violation]:
    """Return the violations of a schema, at most MAX_VIOLATIONS.

    The work has a limit, too: beyond it, nothing of the value is validated.

    Args:
        schema: The compiled schema.
        value: The JSON value to validate.
        location: The start of each violation's `loc`, such as `("body",)`.
    """
    if schema.is_valid(value):
        return []
    violations: list[Violation] = []
    for error, place, names in schema.find_errors(value, location):
        known = _Known(names, schema.pattern_messages)
        steps = tuple(_to_step(step) for step in place)
        violations.extend(islice(_to_violations(error, steps, known), MAX_VIOLATIONS - len(violations)))
        if len(violations) == MAX_VIOLATIONS:
            break
    # The whole schema decides. If its parts accept a value that it rejects, they have a defect.
    return _drop_patterns_of_formats(violations) or [
        Violation(location, "Does not match the contract", "invalid")
    ]


def _drop_patterns_of_formats(violations: list[Violation]) -> list[Violation]:
    """Leave out the pattern of a value that lacks its format: the message about the format is plainer."""
    malformed = {violation.loc for violation in violations if violation.type in _FORMAT_TYPES.values()}
    return [
        violation
        for violation in violations
        if violation.type != "string_pattern_mismatch" or violation.loc not in malformed
    ]


class _Known(NamedTuple):
    """What the contract says about the schema in which an error was found."""

    names: PropertyNames
    pattern_messages: Mapping[str, str]


def _to_violations(
    error: jsonschema_rs.ValidationError, location: tuple[str | int, ...], known: _Known
) -> Iterable[Violation]:
    keyword, kind = error.kind.name, error.kind
    loc = (*location, *(_to_step(step) for step in error.instance_path))
    if keyword == "required":
        missing = kind.property  # type: ignore[attr-defined]  # every kind has its own
        return [Violation((*loc, _to_step(missing)), "Is required", "missing")]
    if keyword in ("additionalProperties", "unevaluatedProperties"):
        names = kind.unexpected  # type: ignore[attr-defined]  # every kind has its own
        message = "Unknown query parameter" if loc == ("query",) else "Unknown property"
        listed = tuple(known.names.get(tuple(error.schema_path), ()))
        # One after the other: an object can have more unknown names than violations are reported.
        return (
            _describe_unknown((*loc, _to_step(name)), message, _find_similar(name[:100], listed))
            for name in names
        )
    if keyword == "propertyNames":
        return _describe_property_name(kind.error, location, known)  # type: ignore[attr-defined]  # every kind has its own
    if keyword == "not":
        return [_describe_combination(kind, loc)]
    if keyword in ("anyOf", "oneOf"):
        branch = _find_likely_branch(error)
        if branch is not None:
            return [violation for inner in branch for violation in _to_violations(inner, location, known)]
    message, code, context = _describe(keyword, kind, error.instance, loc)
    if keyword == "pattern":
        # A regular expression says nothing to most people.
        message = known.pattern_messages.get(kind.value, message)
    value, has_input = _reportable_input(error.instance, loc)
    return [Violation(loc, message, code, value, has_input, context)]


def _describe_unknown(loc: tuple[str | int, ...], message: str, similar: str | None) -> Violation:
    if similar is None:
        return Violation(loc, message, "extra_forbidden")
    message = f"{message}; did you mean `{similar}`?"
    return Violation(loc, message, "extra_forbidden", ctx={"did_you_mean": similar})


@lru_cache(maxsize=512)
def _find_similar(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that a client may have meant: `brand_id` for `brandId`, `color` for `colour`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    return next(iter(difflib.get_close_matches(words, known, n=1, cutoff=0.75)), None)


def _describe_property_name(
    error: jsonschema_rs.ValidationError, location: tuple[str | int, ...], known: _Known
) -> list[Violation]:
    """Describe a property whose name breaks the schema for names, at the location of the property."""
    return [
        replace(
            violation,
            loc=(*violation.loc, _to_step(error.instance)),
            msg=f"The name {violation.msg[0].lower()}{violation.msg[1:]}",
        )
        for violation in _to_violations(error, location, known)
    ]


def _describe_combination(kind: Any, loc: tuple[str | int, ...]) -> Violation:
    """Describe a schema `not`, which rules out properties or values of properties that do not go together."""
    properties = kind.schema.get("properties", {}) if isinstance(kind.schema, dict) else {}
    if not properties:
        return Violation(loc, "This combination is not allowed", "not_allowed")
    names = list(dict.fromkeys([*kind.schema.get("required", ()), *properties]))
    parts = [f"`{name}`" for name in names]
    if all(part == {"not": {}} for part in properties.values()):
        # The schema rules out that all of them are absent.
        return Violation((*loc, names[0]), f"One of these is required: {', '.join(parts)}", "missing")
    for index, name in enumerate(names):
        values = properties.get(name, {}).get("enum", ())
        if len(values) == 1:
            parts[index] += f": {json.dumps(values[0])}"
    absent = [name for name in names if properties.get(name) == {"not": {}}]
    if absent:
        # The schema rules out that a property is absent while the others have these values.
        others = [part for name, part in zip(names, parts, strict=True) if name not in absent]
        return Violation((*loc, absent[0]), f"Is required with {' and '.join(others)}", "missing")
    return Violation((*loc, names[0]), f"Cannot be combined: {' and '.join(parts)}", "not_allowed")


def _describe(
    keyword: str, kind: Any, value: Any, loc: tuple[str | int, ...]
) -> tuple[str, str, dict[str, Any]]:
    if keyword in _BOUNDS:
        code, name, message = _BOUNDS[keyword]
        start, _, last_word = message.rpartition(" ")
        if kind.value == 1:
            message = f"{start} {_SINGULARS.get(last_word, last_word)}"
        return message.format(kind.value), code, {name: kind.value}
    if keyword == "type":
        types = [name for name in _type_names(kind) if name != "null"] or ["null"]
        strict, parsing, description = _TYPE_CODES.get(types[0], ("type", "type", types[0]))
        # Outside the body, every value was text: "int_parsing" fits better than "int_type".
        as_text = isinstance(value, str) and loc[:1] != ("body",)
        return f"Must be {description}", parsing if as_text else strict, {}
    if keyword in ("enum", "const"):
        allowed = kind.value if isinstance(kind.value, list) else [kind.value]
        message = "Must be one of the allowed values"
        if len(allowed) <= _MAX_LISTED_VALUES:
            message = f"Must be one of: {', '.join(str(value) for value in allowed if value is not None)}"
        return message, "enum", {"expected": allowed}
    if keyword == "format":
        name = _FORMAT_NAMES.get(kind.format, kind.format)
        return f"Must be a valid {name}", _FORMAT_TYPES.get(kind.format, f"{kind.format}_format"), {}
    code_and_message = _MESSAGES.get(keyword, ("invalid", "Does not match the contract"))
    return code_and_message[1], code_and_message[0], {}


def _type_names(kind: Any) -> list[str]:
    types = kind.value
    return [types] if isinstance(types, str) else [str(name) for name in types]


def _find_likely_branch(error: jsonschema_rs.ValidationError) -> list[jsonschema_rs.ValidationError] | None:
    """Return the errors of the one branch whose type and tag match the value, or None if it is not clear.

    Errors of the other branches would only confuse: the client did not mean them.
    """
    depth = len(error.instance_path)
    branches = [branch for branch in getattr(error.kind, "context", ()) if not _allows_only_null(branch)]
    if len(branches) == 1:
        # The value is nullable: it has one schema, or is null.
        return branches[0]
    candidates = []
    for branch in branches:
        wrong_type = any(inner.kind.name == "type" and len(inner.instance_path) <= depth for inner in branch)
        wrong_tag = any(inner.kind.name == "enum" and len(inner.kind.value) == 1 for inner in branch)
        if branch and not wrong_type and not wrong_tag:
            candidates.append(branch)
    return candidates[0] if len(candidates) == 1 else None


def _allows_only_null(branch: list[jsonschema_rs.ValidationError]) -> bool:
    return any(error.kind.name == "type" and _type_names(error.kind) == ["null"] for error in branch)


def _to_step(step: Any) -> str | int:
    """Return a path step that is safe to report: property names come from the client."""
    return step if isinstance(step, int) else str(step).replace("\0", "\ufffd")[:200]


def _reportable_input(value: Any, loc: tuple[str | int, ...]) -> tuple[Any, bool]:
    """Return the rejected value and True if it is short and not a secret, else None and False."""
    if any(word in str(step).lower() for step in loc for word in _SECRET_WORDS):
        return None, False
    try:
        short = len(orjson.dumps(value)) <= _MAX_INPUT_BYTES
    except (TypeError, ValueError):
        return None, False
    return (value, True) if short else (None, False)
