"""Read the database file of release 0.2.0 as rows for PostgreSQL. The only module that knows SQLite.

It uses no model: the columns come from the file, and their types from the PostgreSQL database that is filled.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from db.copy_database import NOT_COPIED, CopyFailed, CopyRejected, Tables

REVISION = "0048"
"""The last revision of a database in SQLite, that of release 0.2.0."""

# The bytes of a file that SQLite locks (https://www.sqlite.org/fileformat.html, "The Lock-Byte Page"). In WAL
# mode a connection that has read holds a shared lock in them until it is closed.
_LOCK_OFFSET, _LOCK_BYTES = 1 << 30, 512
_LOGS = ("-wal", "-journal")
# As COPY writes text.
_ESCAPES = str.maketrans(
    {"\\": r"\\", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
)


class SqliteFile:
    """The rows of a database file at `REVISION`: a `RowSource` of `db.copy_database`."""

    revision = REVISION

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        self._columns = {
            table: [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            for (table,) in found.fetchall()
            if table not in (*NOT_COPIED, "sqlite_sequence")
        }

    def list_columns(self) -> Mapping[str, list[str]]:
        """Return the columns of each table."""
        return self._columns

    def read_lines(self, table: str, tables: Tables) -> Iterator[bytes]:
        """Yield the rows of a table with exactly the text that COPY writes for them.

        Raises:
            CopyFailed: The file is damaged, or a value does not have the type of its column.
        """
        columns = self._columns[table]
        kinds = [tables[table][column] for column in columns]
        names = ", ".join(f'"{column}"' for column in columns)
        try:
            for row in self._connection.execute(f'SELECT {names} FROM "{table}"'):  # noqa: S608 - its own names
                if table == "row_counts":
                    row = _convert_counted_value(dict(zip(columns, row, strict=True)), tables)
                yield ("\t".join(map(_encode, kinds, row)) + "\n").encode()
        except sqlite3.Error as error:
            raise CopyFailed(f"{table}: {error}") from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            # Without the value, which may be personal.
            raise CopyFailed(f"{table}: a value does not have the type of its column") from error


@contextmanager
def hold_file(path: Path, folder: Path) -> Iterator[SqliteFile]:
    """Hold a database file exclusively within the block, and yield the rows of a copy.

    Neither the file nor its log changes. SQLite itself would write the log to the file when it closes it.

    Args:
        path: The file. Rows that are only in its log (`-wal`) are read, too.
        folder: Where the copy is written.

    Raises:
        CopyRejected: There is no file, another process has opened it, or it has another revision.
    """
    try:
        file = path.open("r+b")
    except OSError as error:
        raise CopyRejected(f"The SQLite database {path} cannot be opened: {error.strerror}") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _LOCK_OFFSET)
        except OSError as error:
            raise CopyRejected(
                f"Another process has opened {path}: stop servers, workers and other commands first"
            ) from error
        copy = folder / path.name
        # The same descriptor: closing another one of the file would release its locks.
        with copy.open("wb") as target:
            shutil.copyfileobj(file, target)
        for suffix in _LOGS:
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        # Opened for writing: SQLite applies the log to the copy.
        with _open(copy.absolute().as_uri()) as rows:
            yield rows


@contextmanager
def open_file(path: Path) -> Iterator[SqliteFile]:
    """Yield the rows of a database file that has no log and no writer. Nothing is written beside it.

    Raises:
        CopyRejected: It is no database, or has another revision.
    """
    with _open(f"{path.absolute().as_uri()}?mode=ro&immutable=1") as rows:
        yield rows


@contextmanager
def _open(uri: str) -> Iterator[SqliteFile]:
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        try:
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            rows = SqliteFile(connection)
        except (sqlite3.Error, TypeError) as error:
            raise CopyRejected(f"The SQLite database cannot be read: {error}") from error
        if revision != REVISION:
            raise CopyRejected(
                f"The SQLite database has schema {revision} instead of {REVISION}, that of release 0.2.0: "
                "start that release with it once, stop it, and run this command again"
            )
        yield rows


def _convert_counted_value(row: dict[str, Any], tables: Tables) -> tuple[Any, ...]:
    """Return a row of `row_counts` with its value as PostgreSQL casts the counted column to text."""
    kind = tables[row["table_name"]].get(row["column_name"])
    if kind == "uuid":
        row["value"] = str(UUID(row["value"]))
    elif kind == "boolean":
        row["value"] = {"0": "false", "1": "true"}[row["value"]]
    return tuple(row.values())


def _encode(kind: str, value: Any) -> str:
    """Return a value as COPY writes it."""
    return r"\N" if value is None else _ENCODERS[kind](value).translate(_ESCAPES)


def _encode_text(value: str) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _encode_json(value: Any) -> str:
    # The text itself, with its whitespace. A document that is a number is stored as a number.
    return str(value)


def _encode_time(value: str) -> str:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is not None:
        raise ValueError
    text = moment.isoformat(" ")
    return f"{text.rstrip('0') if moment.microsecond else text}+00"


def _encode_integer(value: int) -> str:
    if not isinstance(value, int):
        raise TypeError
    return str(value)


def _encode_float(value: float) -> str:
    # Both write the shortest text that means the same number; from 1e15 on they choose other exponents.
    return repr(float(value)).removesuffix(".0")


_ENCODERS: dict[str, Callable[[Any], str]] = {
    "bigint": _encode_integer,
    "boolean": {0: "f", 1: "t"}.__getitem__,
    "bytea": lambda value: f"\\x{value.hex()}",
    "character varying": _encode_text,
    "date": lambda value: date.fromisoformat(value).isoformat(),
    "double precision": _encode_float,
    "integer": _encode_integer,
    "json": _encode_json,
    "timestamp with time zone": _encode_time,
    "uuid": lambda value: str(UUID(value)),
}
"""How each type of a column at `REVISION` is written. SQLite stores times in UTC without saying so."""
