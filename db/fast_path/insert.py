"""A new row by one statement, past the session's unit of work.

To put changes of many rows into an order takes longer than all else that the session does for a single row.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import Insert, insert, inspect
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from db.audit import record_insert
from db.base import Identified
from db.session import current_session, current_write_connection


def insert_row(row: Identified) -> None:
    """Insert a new row at once; from then on the session and the audit log know it as any other.

    One that brings others along goes with them through the session. Not within what is undone while the
    session goes on: it would keep the row. Raises as a flush does.
    """
    opened, given, plan = current_session(), row.__dict__, _build_plan(type(row))
    if any(given.get(name) for name in plan.links):
        opened.add(row)
        opened.flush()
        return
    # What it refers to may be waiting there.
    opened.flush()
    values = {name: given[name] for name in plan.columns if name in given}
    for name in plan.defaults:
        # As the unit of work does: what is None gets its default.
        if values.get(name) is None:
            values.pop(name, None)
    result = current_write_connection().execute(plan.statement, {**plan.null_columns, **values})
    inserted = cast("Mapping[str, Any]", result.last_inserted_params())  # one row, so it is no list of them
    for name, value in inserted.items():
        if name not in given or (given[name] is None and value is not None):
            set_committed_value(row, name, value)
    make_transient_to_detached(row)
    opened.add(row)
    record_insert(row)


class _InsertPlan(NamedTuple):
    """How rows of a model are inserted."""

    statement: Insert
    columns: tuple[str, ...]
    null_columns: dict[str, None]
    """The columns that are null unless they are given: to name them each time makes it the same statement."""
    defaults: tuple[str, ...]
    """The columns that have a default."""
    links: tuple[str, ...]
    """What may bring other rows along."""


@cache
def _build_plan(model: type[Identified]) -> _InsertPlan:
    table, links = model.__table__, inspect(model).relationships.keys()
    # Some types, such as JSON, would write None as a value of theirs.
    nothing = [one.key for one in table.c if one.default is None and not one.type.should_evaluate_none]
    defaults = [one.key for one in table.c if one.default is not None and not one.type.should_evaluate_none]
    return _InsertPlan(
        insert(model), tuple(table.c.keys()), dict.fromkeys(nothing), tuple(defaults), tuple(links)
    )
