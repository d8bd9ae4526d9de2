"""A psycopg cursor that builds the description of its columns only when a caller reads it.

SQLAlchemy reads `description` after each statement, but only to see whether there are columns; it caches
their names with the compiled statement. Building it took a tenth of the function calls of reading one row.

Benchmark: `make bench-profile`, stage "psycopg", column "read one product".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from psycopg import Column, Cursor


class _LazyDescription(Sequence[Column]):
    """The columns of a result, built at the first access."""

    def __init__(self, cursor: Cursor[Any]) -> None:
        self._cursor = cursor

    @cached_property
    def _columns(self) -> list[Column]:
        return Cursor.description.__get__(self._cursor) or []

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, index: Any) -> Any:
        return self._columns[index]


class LazyDescriptionCursor(Cursor[Any]):
    """A cursor with a lazy `description`."""

    @property
    def description(self) -> Any:
        """The columns of the result, or None for a statement without result rows (PEP 249)."""
        # None must be exact: SQLAlchemy uses it to tell a result with rows from one without.
        has_columns = self.pgresult is not None and self.pgresult.nfields
        return _LazyDescription(self) if has_columns else super().description
