"""Compile queries of SQLAlchemy Core into prepared statements of PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain, repeat
from typing import Any, NamedTuple, cast

import psycopg
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.pq.abc import PGresult
from psycopg.types.json import set_json_loads
from sqlalchemy import LargeBinary, Select
from sqlalchemy.types import TypeDecorator

from db.dialect import PsycopgDialect
from db.fast_path.driver_statement import Statement, list_processors
from db.fast_path.json_columns import load_json

CACHE_SIZE = 1_024

Row = tuple[Any, ...]


class Query(NamedTuple):
    """A query, or a statement that writes, with the values of its bind parameters.

    A parameter with `literal_execute`, such as the limit of a list, becomes a part of the text. Parameters
    that SQLAlchemy expands, such as the list of `in_`, are not supported: compare with `any_` of an array.
    """

    statement: Statement
    values: Mapping[str, Any]


class Fetched(NamedTuple):
    """The rows of each query, and how many bytes their texts and JSON values have."""

    rows: list[list[Row]]
    text_bytes: int


class _Adapters:
    """The types of all statements: those of psycopg, with our decoder of JSON."""

    connection = None

    def __init__(self) -> None:
        self.adapters = AdaptersMap(psycopg.adapters)


_ADAPTERS: Any = _Adapters()
set_json_loads(cast("Callable[[str | bytes], Any]", load_json), _ADAPTERS)
_UNBOUNDED_TYPES = tuple(psycopg.adapters.types[name].oid for name in ("json", "text"))
_BOOLEAN = psycopg.adapters.types["bool"].oid
_DIALECT = PsycopgDialect(paramstyle="numeric_dollar")


class PreparedStatement:
    """A statement under its name in PostgreSQL.

    The name is a hash of the text: PgBouncer and several processes may share a connection of the server.
    Rows hold the values of the driver, which only a `TypeDecorator` converts.
    """

    def __init__(
        self,
        text: str,
        parameters: Sequence[str] = (),
        constants: Mapping[str, Any] | None = None,
        converters: Mapping[int, Callable[[Any], Any]] | None = None,
        processors: Sequence[tuple[str, Callable[[Any], Any]]] = (),
    ) -> None:
        self.text = text.encode()
        self.name = b"r_" + hashlib.blake2b(self.text, digest_size=12).hexdigest().encode()
        self._parameters, self._constants = parameters, constants or {}
        self._converters, self._processors = converters or {}, processors
        self._formats = [PyFormat.TEXT] * len(parameters)
        self.types: Sequence[int] | None = None
        """The types of the parameters for PostgreSQL, 0 where it infers them, known after `dump`."""
        self._rows = Transformer(_ADAPTERS)
        self._has_loaders = False

    def dump(self, values: Mapping[str, Any]) -> Sequence[Any]:
        """Return the parameters as PostgreSQL reads them."""
        constants = self._constants
        if self._processors:
            values = {**constants, **values}
            values.update({name: convert(values[name]) for name, convert in self._processors})
        sequence = [values[name] if name in values else constants[name] for name in self._parameters]
        if self.types is None:
            # A boolean may also be compared with a text, in the key of a stored count.
            self.types = [_BOOLEAN if isinstance(value, bool) else 0 for value in sequence]
        return Transformer(_ADAPTERS).dump_sequence(sequence, self._formats)

    def load(self, result: PGresult) -> list[Row]:
        """Return the rows of a result of this statement."""
        # The types of the columns never change, or PostgreSQL rejects the statement as out of date.
        self._rows.set_pgresult(result, set_loaders=not self._has_loaders)
        self._has_loaders = True
        rows: list[Row] = self._rows.load_rows(0, result.ntuples, tuple)
        if not self._converters:
            return rows
        converters = [self._converters.get(number, _keep) for number in range(result.nfields)]
        return [tuple(convert(value) for convert, value in zip(converters, row, strict=True)) for row in rows]


def count_text_bytes(result: PGresult) -> int:
    """Return how many bytes the columns of a result have whose types have no limit."""
    columns = [number for number in range(result.nfields) if result.ftype(number) in _UNBOUNDED_TYPES]
    rows = range(result.ntuples)
    # No function of Python is called for a value: lists have a hundred rows.
    values = chain.from_iterable(map(result.get_value, rows, repeat(column)) for column in columns)
    return sum(map(len, filter(None, values)))


def prepare(query: Query) -> PreparedStatement:
    """Return the prepared statement of a query."""
    statement = query.statement
    literals = tuple(int(query.values[name]) for name in _find_literals(statement))
    return _compile(statement, literals)


@lru_cache(maxsize=CACHE_SIZE)
def _find_literals(statement: Statement) -> tuple[str, ...]:
    compiled = statement.compile(dialect=_DIALECT)
    return tuple(compiled.bind_names[parameter] for parameter in compiled.literal_execute_params)


@lru_cache(maxsize=CACHE_SIZE)
def _compile(statement: Statement, literals: tuple[int, ...]) -> PreparedStatement:
    parameters = statement.compile(dialect=_DIALECT).bind_names
    constants: dict[str, Any] = {}
    for parameter, name in parameters.items():
        if parameter.unique and parameter.expanding:
            constants |= {f"{name}_{number}": value for number, value in enumerate(parameter.value or (), 1)}
        elif parameter.unique:
            constants[name] = parameter.value
    # The texts of literals and of lists of constants need values for all parameters.
    values: dict[str, Any] = {name: None for parameter, name in parameters.items() if not parameter.unique}
    values |= dict(zip(_find_literals(statement), literals, strict=True))
    filled, types = statement, []
    # What a statement that writes returns has no types of our own.
    if isinstance(statement, Select):
        filled, types = statement.params(values), [column.type for column in statement.selected_columns]
    compiled = filled.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    converters = {
        number: partial(kind.process_result_value, dialect=_DIALECT)
        for number, kind in enumerate(types)
        if isinstance(kind, TypeDecorator) and _converts_results(kind)
    }
    sent = compiled.positiontup or ()
    processors = [(name, convert) for name, convert in list_processors(compiled, _DIALECT) if name in sent]
    # Without a connection, the driver would write bytes in the old format, with doubled backslashes.
    processors += [
        (name, _to_hex) for each, name in compiled.bind_names.items() if isinstance(each.type, LargeBinary)
    ]
    return PreparedStatement(str(compiled), sent, constants, converters, processors)


def _converts_results(kind: TypeDecorator[Any]) -> bool:
    return type(kind).process_result_value is not TypeDecorator.process_result_value


def _to_hex(value: bytes | None) -> str | None:
    return None if value is None else "\\x" + bytes(value).hex()


def _keep(value: Any) -> Any:
    return value
