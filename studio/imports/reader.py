"""Read the records of an import file one after the other, with their lines and positions.

The file is read line by line in binary and never as a whole. A record ends at a known byte, so an import can
continue there. Knows no property of products.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import orjson

from studio.imports.problems import ImportFileError, build_problem

MAX_ROWS = 50_000
MAX_RECORD_BYTES = 262_144
"""The size of a row. Without it, one quotation mark that is missing would load the whole file."""
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Position:
    """A place between two records."""

    offset: int = 0
    """The byte at which the next record starts."""
    line: int = 0
    """The number of lines before it."""


@dataclass(frozen=True)
class Record:
    """A row of a file."""

    line: int
    """The line at which it starts, counted from 1."""
    cells: Sequence[str]
    """The cells of CSV; empty for JSON."""
    value: object
    """The value of a line of JSON; None if the line is not JSON, and for CSV."""
    end: Position


class _Lines:
    """The lines of a file as text. It counts lines and bytes, and limits the size of each record."""

    def __init__(self, file: BinaryIO, start: Position) -> None:
        file.seek(start.offset)
        self._file, self._offset, self.line = file, start.offset, start.line
        self._record_bytes = 0
        self._record_line = start.line + 1

    @property
    def position(self) -> Position:
        return Position(self._offset, self.line)

    def begin_record(self) -> int:
        """Begin a record and return its line."""
        self._record_bytes, self._record_line = 0, self.line + 1
        return self._record_line

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MAX_RECORD_BYTES + 1)
        if not raw:
            raise StopIteration
        self._offset, self.line = self._offset + len(raw), self.line + 1
        self._record_bytes += len(raw)
        if self._record_bytes > MAX_RECORD_BYTES:
            raise ImportFileError(
                build_problem(
                    413,
                    "too_large",
                    f"The row at line {self._record_line} is larger than {MAX_RECORD_BYTES:,} bytes: "
                    "a closing quotation mark or a line break may be missing",
                )
            )
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            detail = f"Line {self.line} is not UTF-8: save the file with this encoding"
            raise ImportFileError(build_problem(400, "malformed_request", detail)) from None
        return text.removeprefix(_BYTE_ORDER_MARK) if self.line == 1 else text


def read_records(file: BinaryIO, file_format: str, start: Position) -> Iterator[Record]:
    """Yield the records from a position on, without blank lines. The first one of a CSV file is its header.

    Raises:
        ImportFileError: The file is not UTF-8, a row is too large, or the quotation marks of CSV are wrong.
    """
    lines = _Lines(file, start)
    return _read_csv(lines) if file_format == "csv" else _read_jsonl(lines)


def _read_csv(lines: _Lines) -> Iterator[Record]:
    # Strict: a quotation mark in the wrong place would else merge cells without an error.
    reader = csv.reader(lines, strict=True)
    while True:
        line = lines.begin_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            detail = f"The row at line {line} is not valid CSV: {_explain(error)}"
            raise ImportFileError(build_problem(400, "malformed_request", detail)) from None
        if cells:
            yield Record(line, cells, None, lines.position)


def _explain(error: csv.Error) -> str:
    text = str(error)
    if text.startswith("new-line character"):
        # The text of the library is about its own arguments.
        return "a carriage return (CR) is outside of quotation marks: lines must end with LF or CRLF"
    return text


def _read_jsonl(lines: _Lines) -> Iterator[Record]:
    while True:
        line = lines.begin_record()
        text = next(lines, None)
        if text is None:
            return
        if text.strip():
            yield Record(line, (), _parse_json(text), lines.position)


def _parse_json(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
