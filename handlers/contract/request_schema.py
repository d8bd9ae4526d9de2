"""Validate a value of a request piece by piece, so that the work for a wrong value has a limit.

The validator library builds all errors of a value before the first can be read, and the time grows faster
than their number. So a schema is split where a value can repeat: the entries of lists and of maps (objects
whose members are not listed) are validated one by one, after the list or map itself. The caller stops when it
has enough errors. Knows nothing of the messages that clients get.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jsonschema_rs

Location: TypeAlias = tuple[str | int, ...]
PropertyNames: TypeAlias = Mapping[Location, Sequence[str]]
"""The names of the properties of closed objects, by the place of `additionalProperties` in the schema."""

DEFINITIONS = "#/$defs/"
"""The start of each reference in a translated schema."""


class FoundError(NamedTuple):
    """An error of the validator in a part of a value."""

    error: jsonschema_rs.ValidationError
    """Its `instance_path` starts at the part."""
    location: Location
    """The location of the part."""
    names: PropertyNames
    """The known properties of the schema of the part."""


@dataclass
class RequestSchema:
    """A compiled schema of a request."""

    whole: jsonschema_rs.Validator
    own: jsonschema_rs.Validator
    """Like `whole`, but without the entries of lists and maps. The number of its errors has a limit."""
    names: PropertyNames = field(default_factory=lambda: MappingProxyType({}))
    """The known properties of closed objects in `own`."""
    parts: Sequence[ListPart | MapPart | ChoicePart] = ()
    pattern_messages: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What a value must be that does not match a pattern, by the pattern."""

    def is_valid(self, value: Any) -> bool:
        """Return whether a value matches the schema. Ends at the first error."""
        return self.whole.is_valid(value)

    def find_errors(self, value: Any, location: Location = ()) -> Iterator[FoundError]:
        """Yield the errors of a value: those of the value itself, then those of one entry after the other.

        The entries of a list that is too long have no errors: they are not validated.
        """
        for error in self.own.iter_errors(value):
            yield FoundError(error, location, self.names)
        for part in self.parts:
            yield from part.find_errors(value, location)


@dataclass(frozen=True)
class ListPart:
    """The entries of a list, whose properties lead from the value to it."""

    path: tuple[str, ...]
    entries: RequestSchema
    max_items: int | None

    def find_errors(self, value: Any, location: Location) -> Iterator[FoundError]:
        """Yield the errors of the entries, or none if the list is absent or too long."""
        found = _follow(value, self.path)
        if not isinstance(found, list) or (self.max_items is not None and len(found) > self.max_items):
            return
        for index, entry in enumerate(found):
            if not self.entries.is_valid(entry):
                yield from self.entries.find_errors(entry, (*location, *self.path, index))


@dataclass(frozen=True)
class MapPart:
    """The members of an object that its schema does not list."""

    path: tuple[str, ...]
    members: RequestSchema | None
    member_names: jsonschema_rs.Validator | None
    """Validates the names of an object, also of the properties that its schema lists."""
    listed: frozenset[str]

    def find_errors(self, value: Any, location: Location) -> Iterator[FoundError]:
        """Yield the errors of the names and of the members, or none if the object is absent."""
        found, place = _follow(value, self.path), (*location, *self.path)
        for name, member in found.items() if isinstance(found, dict) else ():
            yield from self._find_name_errors(name, place)
            if self.members is not None and name not in self.listed and not self.members.is_valid(member):
                yield from self.members.find_errors(member, (*place, name))

    def _find_name_errors(self, name: str, place: Location) -> Iterator[FoundError]:
        if self.member_names is not None and not self.member_names.is_valid({name: None}):
            for error in self.member_names.iter_errors({name: None}):
                yield FoundError(error, place, {})


@dataclass(frozen=True)
class ChoicePart:
    """A value that has one of several schemas, which a property tells apart (`discriminator`)."""

    path: tuple[str, ...]
    tag: str
    branches: Mapping[str, RequestSchema]

    def find_errors(self, value: Any, location: Location) -> Iterator[FoundError]:
        """Yield the errors of the branch that the tag names, or none without a known tag."""
        found = _follow(value, self.path)
        tag = found.get(self.tag) if isinstance(found, dict) else None
        if isinstance(tag, str) and tag in self.branches:
            yield from self.branches[tag].find_errors(found, (*location, *self.path))


def _follow(value: Any, path: tuple[str, ...]) -> Any:
    """Return the value that properties lead to, None if one is absent."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


@dataclass(frozen=True)
class SplitList:
    """The schema of the entries of a list. `path` has the properties that lead to the list."""

    path: tuple[str, ...]
    entries: Any
    max_items: int | None


@dataclass(frozen=True)
class SplitMap:
    """The schemas of the members of an object that are not `listed`, and of the names of all."""

    path: tuple[str, ...]
    members: Any
    names: Any
    listed: frozenset[str]


@dataclass(frozen=True)
class SplitChoice:
    """The schemas of a value by the text that its property `tag` has."""

    path: tuple[str, ...]
    tag: str
    branches: Mapping[str, Any]


SplitPart: TypeAlias = SplitList | SplitMap | SplitChoice


def split_schema(
    schema: Any,
    definitions: Mapping[str, Any],
    path: tuple[str, ...] = (),
    seen: frozenset[str] = frozenset(),
) -> tuple[Any, list[SplitPart]]:
    """Return a schema without what it says about the entries of lists and maps, and these parts.

    A value matches a schema if it matches the rest of it and all parts. `not` and alternatives without a tag
    are no conjunctions, so they are not split.

    Args:
        schema: A schema of JSON Schema 2020-12.
        definitions: The schemas that it refers to, by name.
        path: The properties that lead to the schema.
        seen: The names of the definitions that it is a part of.
    """
    own: dict[str, Any] = {}
    parts: list[SplitPart] = []
    if not isinstance(schema, dict):
        return schema, parts
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(DEFINITIONS)
        # A reference to nothing is an error of the compiler.
        if name not in seen and name in definitions:
            own, parts = split_schema(definitions[name], definitions, path, seen | {name})
        return (own, parts) if parts else (schema, parts)
    for keyword, value in schema.items():
        own[keyword], found = _split_keyword(keyword, value, definitions, path, seen)
        parts += found
    if "items" in own and "prefixItems" not in own:
        parts.append(SplitList(path, own["items"], own.get("maxItems")))
        own["items"] = True
    if _is_map(own):
        members, listed = own.get("additionalProperties"), frozenset(own.get("properties", ()))
        if isinstance(members, dict):
            own["additionalProperties"] = True
        else:
            members = None
        parts.append(SplitMap(path, members, own.pop("propertyNames", None), listed))
    choice = _find_choice(own.get("oneOf", ()), definitions)
    if choice is not None:
        tag, branches = choice
        del own["oneOf"]
        known = {"type": "object", "required": [tag], "properties": {tag: {"enum": list(branches)}}}
        own["allOf"] = [*own.get("allOf", ()), known]
        parts.append(SplitChoice(path, tag, branches))
    return own, parts


def _split_keyword(
    keyword: str, value: Any, definitions: Mapping[str, Any], path: tuple[str, ...], seen: frozenset[str]
) -> tuple[Any, list[SplitPart]]:
    """Return the value of a keyword and the parts in it, if the keyword means that all its schemas match."""
    if keyword == "properties":
        split = {name: split_schema(part, definitions, (*path, name), seen) for name, part in value.items()}
        return {name: own for name, (own, _) in split.items()}, [
            part for _, parts in split.values() for part in parts
        ]
    # A value is null, for which no part has errors, or matches the other schema.
    can_be_null = keyword in ("anyOf", "oneOf") and len(value) == 2 and value[1] == {"type": "null"}
    if keyword == "allOf" or can_be_null:
        pairs = [split_schema(part, definitions, path, seen) for part in value]
        return [own for own, _ in pairs], [part for _, parts in pairs for part in parts]
    return value, []


def _is_map(schema: Mapping[str, Any]) -> bool:
    if "patternProperties" in schema:
        return False
    return "propertyNames" in schema or isinstance(schema.get("additionalProperties"), dict)


def _find_choice(
    branches: Sequence[Any], definitions: Mapping[str, Any]
) -> tuple[str, dict[str, Any]] | None:
    """Return the property that tells the branches of `oneOf` apart, and the branch of each of its values.

    Each branch requires the property and allows one text, which no other branch allows. So a value matches
    exactly one branch if it matches the one that its tag names. Returns None if there is no such property.
    """
    objects = [_resolve(branch, definitions) for branch in branches]
    for tag in objects[0].get("required", ()) if objects else ():
        texts = [_find_only_text(each, tag, definitions) for each in objects]
        named = {text: branch for text, branch in zip(texts, branches, strict=True) if text is not None}
        if len(named) == len(branches):
            return tag, named
    return None


def _resolve(schema: Any, definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    while isinstance(schema, dict) and "$ref" in schema:
        schema = definitions.get(schema["$ref"].removeprefix(DEFINITIONS))
    return schema if isinstance(schema, dict) else {}


def _find_only_text(schema: Mapping[str, Any], name: str, definitions: Mapping[str, Any]) -> str | None:
    """Return the only value of a required property, None if it has others or is no text."""
    if name not in schema.get("required", ()):
        return None
    values = _resolve(schema.get("properties", {}).get(name), definitions).get("enum", ())
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def list_property_names(schema: Any) -> PropertyNames:
    """Return the properties of each closed object in a schema, by their place in it.

    The places are those of the validator's errors.
    """
    return {
        (*path, "additionalProperties"): tuple(node.get("properties", ()))
        for path, node in _walk(schema, ())
        if node.get("additionalProperties") is False
    }


def _walk(node: Any, path: Location) -> Iterator[tuple[Location, dict[str, Any]]]:
    """Yield each object within a schema with its path."""
    if isinstance(node, dict):
        yield path, node
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in members:
        yield from _walk(part, (*path, key))
