"""Serialize rows with marshmallow schemas, many times as fast as `Schema.dump`.

A schema is compiled once into one function for any number of rows, whose text names the attributes; the field
classes still convert the values. Not supported, because no schema here uses it: hooks, methods, missing
attributes, `data_key` and nested `many`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, cast

from marshmallow import Schema, fields

from db.fast_path.projections import ALL_COLUMNS
from db.fast_path.source import SourceBuilder
from handlers.schemas.fields import PreparedField, TextField


def get_serializer(schema: type[Schema]) -> Callable[[Any], dict[str, Any]]:
    """Return a function that returns the same as `schema().dump(row)`.

    It raises AttributeError where `dump` would omit a missing attribute.
    """
    serialize_rows = get_list_serializer(schema)
    return lambda row: serialize_rows((row,))[0]


@cache
def get_list_serializer(schema: type[Schema]) -> Callable[[Iterable[Any]], list[dict[str, Any]]]:
    """Return a function that serializes rows like `get_serializer`."""
    compiler = _Compiler()
    return compiler.compile(schema())


def list_attribute_paths(schema: Schema) -> Iterator[str]:
    """Yield the attribute paths that a schema reads of a row, as `db.fast_path.projections` expects them."""
    for name, field in schema.dump_fields.items():
        path = field.attribute or name
        if isinstance(field, fields.Function):
            yield ALL_COLUMNS
        elif not isinstance(field, fields.Constant):
            yield from _list_field_paths(path, field)


def _list_field_paths(path: str, field: fields.Field[Any]) -> Iterator[str]:
    if isinstance(field, fields.List):
        yield from _list_field_paths(path, field.inner)
    elif isinstance(field, fields.Nested):
        yield from (f"{path}.{nested}" for nested in list_attribute_paths(field.schema))
    else:
        nested_paths = getattr(field, "attribute_paths", ())
        yield from (f"{path}.{nested}" for nested in nested_paths) if nested_paths else (path,)


class _Compiler:
    """Writes the function that serializes the rows of one schema."""

    def __init__(self) -> None:
        self._builder = SourceBuilder()
        self._preparations: list[str] = []

    def compile(self, schema: Schema) -> Callable[[Iterable[Any]], list[dict[str, Any]]]:
        """Return the function for a schema."""
        serialized = self._write_object(schema, "row")
        lines = ["def serialize_rows(rows):", *self._preparations, f"return [{serialized} for row in rows]"]
        function = self._builder.compile("serialize_rows", "\n    ".join(lines))
        return cast("Callable[[Iterable[Any]], list[dict[str, Any]]]", function)

    def _write_object(self, schema: Schema, row: str) -> str:
        members = [
            f"{name!r}: {self._write_field(name, field, row)}" for name, field in schema.dump_fields.items()
        ]
        return f"{{{', '.join(members)}}}"

    def _write_field(self, name: str, field: fields.Field[Any], row: str) -> str:
        if isinstance(field, fields.Constant):
            return self._builder.refer(field.constant)
        if isinstance(field, fields.Function):
            return f"{self._builder.refer(field.serialize_func)}({row})"
        return self._write_value(name, field, f"{row}.{field.attribute or name}", row)

    def _write_value(self, name: str, field: fields.Field[Any], value: str, row: str) -> str:
        if type(field) is fields.Raw:
            return value
        if isinstance(field, PreparedField):
            convert = self._builder.new_variable()
            self._preparations.append(f"{convert} = {self._builder.refer(field.prepare)}()")
            return f"{convert}({value})"
        variable = self._builder.new_variable()
        if isinstance(field, fields.List):
            item = self._builder.new_variable()
            inner = self._write_value(name, field.inner, item, row)
            return f"(None if ({variable} := {value}) is None else [{inner} for {item} in {variable}])"
        if isinstance(field, fields.Nested):
            inner = self._write_object(field.schema, variable)
            return f"(None if ({variable} := {value}) is None else {inner})"
        converted = f"{self._builder.refer(field._serialize)}({variable}, {name!r}, {row})"
        if isinstance(field, TextField):
            return f"({variable} if ({variable} := {value}).__class__ is str else {converted})"
        return f"{self._builder.refer(field._serialize)}({value}, {name!r}, {row})"
