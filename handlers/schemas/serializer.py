"""Rows to plain values as marshmallow's schemas say, without asking each field of each row what it is.

A schema becomes a list of names and functions once; what a field makes of a value its class still says. That
takes a fifth of the time of `Schema.dump` (`fields.Raw` is one look at an attribute), and leaves away what no
schema here uses: hooks, attributes that may be missing, `data_key`, and `many` of what is nested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from operator import attrgetter
from typing import Any

from marshmallow import Schema, fields

from db.fast_path.projections import ALL_COLUMNS

FieldSerializer = Callable[[Any], Any]
Converter = Callable[[Any, str | None, Any], Any]
"""What makes of a value, its name and the row that it is from what is shown, as a field's class says it."""


@cache
def get_serializer(schema: type[Schema]) -> Callable[[Any], dict[str, Any]]:
    """Return what makes of a row what `schema().dump(row)` does; AttributeError for an attribute it lacks."""
    return _build_serializer(schema())


def list_attribute_paths(schema: Schema) -> Iterator[str]:
    """Give what a schema reads of a row and of what belongs to it, as `db.fast_path.projections` names it."""
    for name, field in schema.dump_fields.items():
        path = field.attribute or name
        if isinstance(field, (fields.Function, fields.Method)):
            yield ALL_COLUMNS
        elif not isinstance(field, fields.Constant):
            yield from _list_field_paths(path, field)


def _list_field_paths(path: str, field: fields.Field[Any]) -> Iterator[str]:
    if isinstance(field, fields.List):
        yield from _list_field_paths(path, field.inner)
    elif isinstance(field, fields.Nested):
        yield from (f"{path}.{below}" for below in list_attribute_paths(field.schema))
    else:
        below = getattr(field, "attribute_paths", ())
        yield from (f"{path}.{each}" for each in below) if below else (path,)


def _build_serializer(schema: Schema) -> Callable[[Any], dict[str, Any]]:
    readers = [(name, _build_field_serializer(name, field)) for name, field in schema.dump_fields.items()]

    def read(row: Any) -> dict[str, Any]:
        return {name: of(row) for name, of in readers}

    return read


def _build_field_serializer(name: str, field: fields.Field[Any]) -> FieldSerializer:
    get: FieldSerializer = attrgetter(field.attribute or name)
    if isinstance(field, fields.Constant):
        return lambda row: field.constant
    if isinstance(field, (fields.Function, fields.Method)):
        return lambda row: field.serialize(name, row)
    if type(field) is fields.Raw:
        return get
    convert = _build_converter(field)
    return lambda row: convert(get(row), name, row)


def _build_converter(field: fields.Field[Any]) -> Converter:
    if isinstance(field, fields.List):
        item = _build_converter(field.inner)
        return lambda values, name, row: (
            None if values is None else [item(each, name, row) for each in values]
        )
    if isinstance(field, fields.Nested):
        read = _build_serializer(field.schema)
        return lambda value, _name, _row: None if value is None else read(value)
    return field._serialize
