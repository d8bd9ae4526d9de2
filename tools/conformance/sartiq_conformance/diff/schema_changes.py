"""Judge changed schemas by the values that they accept, whatever keywords they are written with.

The rules compare keywords: they report `const: a` in place of `enum: [a]`, and not what they do not know.
Here, jsonschema-rs brings two schemas into their canonical forms. Equal ones mean the same. Of others, the
values that one accepts and the other rejects are a schema of their own, and Hypothesis draws one of them.
The rules name the changes; this module only knows values.
"""

from __future__ import annotations

import functools
import json
import threading
import warnings
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import jsonschema_rs
from jsonschema_rs import CanonicalSchema

from .documents import Node, join_pointer

MAPS = ("properties", "patternProperties", "dependentSchemas")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
SINGLES = (
    *("items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "contains"),
    *("propertyNames", "not", "if", "then", "else"),
)
ASSERTIONS = {
    *("$ref", "type", "enum", "const", "format", "pattern", "multipleOf", "required", "dependentRequired"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems"),
    *("maxItems", "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties"),
}
"""Keywords without schemas in them that decide whether a value is valid."""
COMPARED_ONE_BY_ONE = (
    "properties",
    "patternProperties",
    "items",
    "additionalProperties",
    "prefixItems",
    "allOf",
)
"""The keywords whose schemas are compared one by one: if one of them accepts less, so does the whole."""
MAX_EXAMPLES = 100
MAX_OTHER_EXAMPLES = 25
"""How many values are drawn where the difference is no schema; they may be large."""
MAX_DIFFERENCES = 100
"""The first differences of a comparison, for which values are looked for: this takes seconds."""
MAX_SIZE = 20_000
"""The length of two schemas, as JSON, for which a value is looked for: with 30,000 this took 100 seconds."""
MAX_SHOWN = 120
_GENERATOR = threading.Lock()


class Difference(NamedTuple):
    """A schema that changed, without the changes of the schemas inside of it, which are differences, too.

    `hybrid` is the new schema with the old ones inside of it, and `new` the node of the new contract.
    """

    pointer: str
    old: Node
    hybrid: Node
    new: Node


def list_differences(base: Any, revision: Any, pointer: str = "#") -> Iterator[Difference]:
    """Yield the differences of all schemas that both documents have at the same pointer."""
    if isinstance(base, dict) and isinstance(revision, dict):
        for key in base.keys() & revision.keys():
            children, path = (base[key], revision[key]), pointer + join_pointer([key])
            is_schema = key == "schema" or pointer == "#/components/schemas"
            if is_schema and all(isinstance(one, dict) for one in children):
                yield from _compare(*children, path)
            elif key not in ("example", "examples"):
                yield from list_differences(*children, path)
    elif isinstance(base, list) and isinstance(revision, list):
        for index, (one, other) in enumerate(_pair_parameters(base, revision)):
            yield from list_differences(one, other, f"{pointer}/{index}")


def _pair_parameters(base: list[Any], revision: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each member of the new list with the old one of the same name, or at the same position."""
    named = {_get_name(one): one for one in base}
    for index, one in enumerate(revision):
        name = _get_name(one)
        yield named.get(name) if name else base[index] if index < len(base) else None, one


def _get_name(parameter: Any) -> tuple[Any, Any] | None:
    has_name = isinstance(parameter, dict) and isinstance(parameter.get("name"), str)
    return (str(parameter.get("in")), parameter["name"]) if has_name else None


def _compare(old: Node, new: Node, pointer: str) -> Iterator[Difference]:
    hybrid = dict(new)
    for word in COMPARED_ONE_BY_ONE:
        was, now = old.get(word), new.get(word)
        path = pointer + join_pointer([word])
        if word in MAPS and was and now:
            hybrid[word] = {name: was.get(name, child) for name, child in now.items()}
            for name in was.keys() & now.keys():
                yield from _compare(was[name], now[name], path + join_pointer([name]))
        elif isinstance(was, dict) and isinstance(now, dict):
            hybrid[word] = was
            yield from _compare(was, now, path)
        elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
            hybrid[word] = was
            for index, children in enumerate(zip(was, now, strict=True)):
                yield from _compare(*children, f"{path}/{index}")
    if _keep_assertions(old) != _keep_assertions(hybrid):
        yield Difference(pointer, old, hybrid, new)


def _keep_assertions(schema: Any, is_response: bool = False) -> Any:
    """Return a schema with the keywords alone that decide whether a value is valid.

    Args:
        is_response: Whether a client validates with it: clients accept properties that they do not know, and
            values of extensible enumerations.
    """
    if not isinstance(schema, dict):
        return schema
    kept: Node = {}
    keep = functools.partial(_keep_assertions, is_response=is_response)
    for key, value in schema.items():
        if key in MAPS:
            kept[key] = {name: keep(child) for name, child in value.items()}
        elif key in LISTS:
            kept[key] = [keep(child) for child in value]
        elif key in SINGLES and not (is_response and value is False and key.endswith("Properties")):
            kept[key] = keep(value)
        elif key in ASSERTIONS and not (is_response and key == "enum" and "x-extensible-enum" in schema):
            kept[key] = value
    return kept


def is_closed(schema: Node) -> bool:
    """Return whether an object accepts only the properties that it names."""
    return False in (schema.get("additionalProperties"), schema.get("unevaluatedProperties"))


def align(difference: Difference) -> None:
    """Write the new schema with the keywords of the old one, which means the same."""
    for key in (difference.old.keys() | difference.hybrid.keys()) & {*ASSERTIONS, *MAPS, *LISTS, *SINGLES}:
        if difference.old.get(key) != difference.hybrid.get(key):
            difference.new.pop(key, None)
            difference.new.update({key: difference.old[key]} if key in difference.old else {})


class SchemaJudge:
    """Compares schemas whose references are those of the old contract, or else of the new one."""

    def __init__(self, base: Node, revision: Node) -> None:
        self._schemas = _schemas(revision) | _schemas(base)

    def mean_the_same(self, difference: Difference) -> bool:
        """Return whether both schemas provably accept the same values, whatever they refer to.

        With 44 scopes, `maxItems: 100` of different ones means the same as 44, but not when there are more.
        """
        schemas = [_keep_assertions(one) for one in (difference.old, difference.hybrid)]
        names = {name for one in schemas for name in _list_references(one)}
        opaque = {name: {"type": "object", "required": [name]} for name in names}
        old, new = (_canonicalize(one | {"components": {"schemas": opaque}}) for one in schemas)
        return old is not None and old == new

    def find_broken_request(self, difference: Difference) -> str:
        """Return a value, as JSON, that requests could have and can no longer have, or an empty text."""
        old = difference.old
        if not is_closed(old):
            # A new property of an open object: only clients that send something else under its name break.
            old = {**old, "properties": difference.hybrid.get("properties", {}) | old.get("properties", {})}
        return self._find_example(old, difference.hybrid, False)

    def find_unexpected_response(self, difference: Difference) -> str:
        """Return a value, as JSON, that responses can have now and could not have, or an empty text."""
        # A removed property is not sent, although the open object accepts any value under its name.
        properties = difference.old.get("properties", {}) | difference.hybrid.get("properties", {})
        hybrid = {**difference.hybrid, "properties": properties} if properties else difference.hybrid
        return self._find_example(hybrid, difference.old, True)

    def _find_example(self, accepts: Node, rejects: Node, is_response: bool) -> str:
        """Return the same value for the same schemas."""
        accepts, rejects = self._simplify(accepts, rejects)
        complete = [self._complete(accepts, False), self._complete(rejects, is_response)]
        first, second = map(_canonicalize, complete)
        if sum(len(json.dumps(one)) for one in complete) > MAX_SIZE:
            return ""
        if first is None or second is None or _covers(second, first):
            return ""
        valid, invalid = (jsonschema_rs.Draft202012Validator(one, validate_formats=True) for one in complete)
        found = _generate(first, second, lambda value: valid.is_valid(value) and not invalid.is_valid(value))
        text = json.dumps(found[0], ensure_ascii=False) if found else ""
        return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]} ..."

    def _simplify(self, *schemas: Node) -> Iterator[Node]:
        """Yield schemas with the examples in place of the properties that are equal in all of them."""
        tables = [schema.get("properties", {}) for schema in schemas]
        equal = {
            name: child for name, child in tables[0].items() if all(one.get(name) == child for one in tables)
        }
        samples = {
            name: {"const": found[0]} for name, child in equal.items() if (found := self._sample(child))
        }
        for schema, properties in zip(schemas, tables, strict=True):
            yield {**schema, "properties": properties | samples} if samples else schema

    def _sample(self, schema: Node) -> list[Any]:
        """Return an example of a schema in a list, or none."""
        target = self._schemas.get(str(schema.get("$ref")).rpartition("/")[2], schema)
        if "example" in target or target.get("enum"):
            return [target["example"] if "example" in target else target["enum"][0]]
        return [None] if {"type": "null"} in target.get("anyOf", []) else []

    def _complete(self, schema: Node, is_response: bool) -> Node:
        """Return a schema with the components that it refers to."""
        used: Node = {}
        pending = [_keep_assertions(schema, is_response)]
        complete = dict(pending[0])
        while pending:
            for name in _list_references(pending.pop()):
                if name not in used and name in self._schemas:
                    used[name] = _keep_assertions(self._schemas[name], is_response)
                    pending.append(used[name])
        return complete | {"components": {"schemas": used}} if used else complete


def _canonicalize(schema: Node) -> CanonicalSchema | None:
    try:
        return jsonschema_rs.canonicalize(
            schema,
            draft=jsonschema_rs.Draft202012,
            validate_formats=True,
            # Two schemas are compared only if their patterns have the same engine.
            pattern_options=jsonschema_rs.FancyRegexOptions(),
        )
    except (ValueError, jsonschema_rs.ReferencingError):
        return None  # The linter says what is wrong with the schema.


def _covers(schema: CanonicalSchema, other: CanonicalSchema) -> bool:
    """Return whether a schema provably accepts all values of another one, or cannot be compared with it."""
    try:
        return bool(schema.covers(other) == jsonschema_rs.canonical.Containment.YES)
    except ValueError:
        return True


def _schemas(contract: Node) -> Node:
    schemas: Node = contract.get("components", {}).get("schemas", {})
    return schemas


def _list_references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _list_references(child)
    elif isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for child in node.values():
            yield from _list_references(child)


def _generate(first: CanonicalSchema, second: CanonicalSchema, is_wanted: Any) -> list[Any]:
    """Return the smallest value of the first schema that is wanted, in a list, or none."""
    # Schemathesis takes half a second to import, and most reviews need no value. Its generator is no public
    # interface: `test_a_value_shows_each_break_of_a_schema` fails when a release moves it.
    from hypothesis import HealthCheck, Phase, find, settings
    from schemathesis.generation.jsonschema.context import StrategyContext
    from schemathesis.generation.jsonschema.strategy import from_schema
    from schemathesis.specs.openapi.formats import get_default_format_strategies

    for only_difference in (True, False):
        # The first value of the difference is the simplest one and nearly always wanted. Others are not.
        phases = [Phase.generate] if only_difference else [Phase.generate, Phase.shrink]
        chosen = settings(
            max_examples=MAX_EXAMPLES if only_difference else MAX_OTHER_EXAMPLES,
            database=None,
            derandomize=True,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        )
        # The generator raises errors of many kinds for what it cannot draw, such as some patterns. Without a
        # value, the changes are those that the rules name.
        try:
            schema = first.subtract(second) if only_difference else first
            context = StrategyContext(root=schema, formats=get_default_format_strategies())
            with _GENERATOR, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Hypothesis, about large values
                return [find(from_schema(schema, context), is_wanted, settings=chosen, random=Random(0))]
        except Exception:  # noqa: BLE001, S112 - see above
            continue
    return []
