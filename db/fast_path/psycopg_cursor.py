"""Cursors of PostgreSQL that do nothing which nobody wants to know."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from psycopg import Column, Cursor


class _LazyDescription(Sequence[Column]):
    """The columns of a result, looked up when somebody looks at them."""

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
    """A cursor for SQLAlchemy, which asks for the columns of each result only to see that there are some.

    It knows those of a statement since the first time. To look all of them up took a tenth of the function
    calls of reading a row.
    """

    @property
    def description(self) -> Any:
        """The columns of the result, None when it has none."""
        has_columns = self.pgresult is not None and self.pgresult.nfields
        return _LazyDescription(self) if has_columns else super().description
