"""Write one group of rows in the running transaction, with a few statements for all of them.

A row that cannot be written gets a problem; the others are written. Batches of the tenant wait for the end of
the transaction. Other writers, such as `create_product`, may insert the same key at the same time: the unique
indexes decide, and the row becomes an update or gets a problem. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, RowMapping, String, Table, func, literal, select
from sqlalchemy.exc import IntegrityError

from db.base import new_id, utc_now
from db.errors import NotFound
from db.fast_path.bulk import insert_new, update_by_id
from db.models.brands import Brand
from db.models.imports import ResultStatus
from db.models.products import Product, ProductState
from db.session import current_session
from studio.catalog.custom_metadata import TooManyMetadataKeys, build_merged
from studio.imports.problems import FindViolations, StoredProblem, describe_error, describe_violations
from studio.imports.queue import ImportLease, RowResult
from studio.imports.rows import UNIQUE_PROPERTIES, Row
from studio.products import products

MAX_ROUNDS = 3
"""How often the products of a group are looked up, if other writers insert some meanwhile."""
_TABLE = cast("Table", Product.__table__)


@dataclass(frozen=True)
class _Update:
    """The changes of one existing product."""

    row: Row
    product: RowMapping
    changes: Mapping[str, Any]


def write_rows(lease: ImportLease, rows: Sequence[Row], find_violations: FindViolations) -> list[RowResult]:
    """Create and update the products of a group, and return one result per row in their order.

    Nothing is written if the import only validates.
    """
    if not lease.validate_only:
        products.lock_new_products(lease.organization_id, lease.owner_id)
    results: dict[int, RowResult] = {}
    valid = [row for row in rows if row.problem is None]
    _check_brands(lease, valid)
    waiting = [row for row in valid if row.problem is None]
    for _ in range(MAX_ROUNDS):
        if waiting:
            waiting = _write_round(lease, waiting, find_violations, results)
    for row in waiting:
        _reject_taken(row, lease.options.match_by)
    return [results.get(row.line) or _to_failure(row) for row in rows]


@dataclass(frozen=True)
class _Plan:
    """What is done with the rows of a group."""

    created: list[Row] = field(default_factory=list)
    updated: list[_Update] = field(default_factory=list)
    unchanged: list[_Update] = field(default_factory=list)


def _write_round(
    lease: ImportLease, rows: Sequence[Row], find_violations: FindViolations, results: dict[int, RowResult]
) -> list[Row]:
    """Write rows, and return those whose key another writer has inserted since the look-up of products."""
    plan = _plan(lease, rows, find_violations)
    ids: dict[int, UUID | None] = dict.fromkeys(row.line for row in plan.created)
    updated = plan.updated
    if not lease.validate_only:
        ids = dict(_insert_products(lease, plan.created))
        updated = _update_products(plan.updated)
    for row in plan.created:
        if row.line in ids:
            results[row.line] = _to_result(row, ResultStatus.CREATED, ids[row.line])
    for status, updates in ((ResultStatus.UPDATED, updated), (ResultStatus.UNCHANGED, plan.unchanged)):
        results |= {each.row.line: _to_result(each.row, status, each.product["id"]) for each in updates}
    return [row for row in plan.created if row.line not in ids]


def _plan(lease: ImportLease, rows: Sequence[Row], find_violations: FindViolations) -> _Plan:
    """Compare rows with the products of the tenant. Rejected rows get a problem and are in no list."""
    options, plan = lease.options, _Plan()
    existing = _find_products(lease, rows) if options.mode == "upsert" else {}
    holders = _find_holders(lease, rows)
    for row in rows:
        product = existing.get(row.values.get(options.match_by, ""))
        row.problem = _find_problem(row, product, holders, find_violations)
        if row.problem is not None:
            continue
        if product is None:
            plan.created.append(row)
            continue
        changes = _find_changes(row, product)
        (plan.updated if changes else plan.unchanged).append(_Update(row, product, changes))
    return plan


def _find_problem(
    row: Row,
    product: RowMapping | None,
    holders: Mapping[str, Mapping[str, UUID]],
    find_violations: FindViolations,
) -> StoredProblem | None:
    """Return why a row cannot be written, None if it can."""
    if (name := _find_taken(row, product, holders)) is not None:
        return describe_error(UNIQUE_PROPERTIES[name]())
    if product is None:
        # The state of a new product is no property of the body that creates one.
        body = {name: value for name, value in row.values.items() if name != "state"}
        if "metadata" in body:
            body["metadata"] = {key: value for key, value in body["metadata"].items() if value is not None}
        if errors := find_violations("ProductCreate", body):
            return describe_violations(errors)
    try:
        _to_columns(row.values, product)
    except TooManyMetadataKeys as error:
        return describe_error(error)
    return None


def _of_tenant(lease: ImportLease, model: Any) -> tuple[ColumnElement[bool], ...]:
    if lease.organization_id is not None:
        return (model.organization_id == lease.organization_id,)
    return (model.organization_id.is_(None), model.owner_id == lease.owner_id)


def _check_brands(lease: ImportLease, rows: Iterable[Row]) -> None:
    """Reject rows whose brand is not one that a product of the tenant may refer to."""
    named = {row.line: UUID(row.values["brand_id"]) for row in rows if row.values.get("brand_id")}
    if not named:
        return
    # unscoped: the brands of the import's tenant; a worker has no caller
    query = select(Brand.id).where(Brand.id.in_(set(named.values())), *_of_tenant(lease, Brand))
    found = set(current_session().scalars(query))
    for row in rows:
        if row.line in named and named[row.line] not in found:
            row.problem = describe_error(NotFound(), f"The tenant has no brand {named[row.line]}")


def _unnest(values: Iterable[str]) -> ColumnElement[str]:
    """Return texts as the column of a table to join.

    With `= ANY (values)` instead, a generic plan reads all products of a tenant without statistics, and
    compares each one with all values: 50 ms per group at 8,000 products, beside 2.
    """
    return func.unnest(literal(list(values), ARRAY(String))).column_valued("wanted")


def _find_products(lease: ImportLease, rows: Iterable[Row]) -> dict[str, RowMapping]:
    """Return the products of rows by their key, locked in the order of their ids."""
    key = _TABLE.c[lease.options.match_by]
    values = {row.values[lease.options.match_by] for row in rows}
    # unscoped: the products of the import's tenant; a worker has no caller
    query = select(_TABLE).where(*_of_tenant(lease, Product), key == _unnest(values))
    found = current_session().execute(query.order_by(_TABLE.c.id).with_for_update(of=_TABLE)).mappings()
    return {product[key.name]: product for product in found}


def _find_holders(lease: ImportLease, rows: Iterable[Row]) -> dict[str, dict[str, UUID]]:
    """Return the ids of the products that have the unique values of rows, by property and value."""
    holders: dict[str, dict[str, UUID]] = {}
    for name in UNIQUE_PROPERTIES:
        values = {row.values[name] for row in rows if row.values.get(name) is not None}
        if not values or (lease.options.mode == "upsert" and name == lease.options.match_by):
            continue
        column = _TABLE.c[name]
        # unscoped: the products of the import's tenant; a worker has no caller
        query = select(column.label("value"), _TABLE.c.id)
        query = query.where(*_of_tenant(lease, Product), column == _unnest(values))
        holders[name] = {row.value: row.id for row in current_session().execute(query)}
    return holders


def _find_taken(
    row: Row, product: RowMapping | None, holders: Mapping[str, Mapping[str, UUID]]
) -> str | None:
    """Return a unique property whose value another product has, or None."""
    own_id = None if product is None else product["id"]
    for name, ids in holders.items():
        holder = ids.get(row.values.get(name) or "")
        if holder is not None and holder != own_id:
            return name
    return None


def _reject_taken(row: Row, name: str) -> None:
    row.problem = describe_error(UNIQUE_PROPERTIES[name]())


def _to_columns(values: Mapping[str, Any], product: RowMapping | None) -> dict[str, Any]:
    """Return the values of a row by column.

    Raises:
        TooManyMetadataKeys: The product would have more keys than it can.
    """
    columns = dict(values)
    if columns.get("brand_id") is not None:
        columns["brand_id"] = UUID(columns["brand_id"])
    if "metadata" in columns:
        columns["metadata"] = build_merged(
            {} if product is None else product["metadata"], columns["metadata"]
        )
    return columns


def _find_changes(row: Row, product: RowMapping) -> dict[str, Any]:
    return {name: value for name, value in _to_columns(row.values, product).items() if product[name] != value}


def _insert_products(lease: ImportLease, rows: Sequence[Row]) -> dict[int, UUID]:
    """Insert the products of rows, and return their ids by line. A row whose key exists by now is missing."""
    if not rows:
        return {}
    now = utc_now()
    ids = {new_id(): row for row in rows}
    values = [
        {"id": product_id, "state": ProductState.READY, "metadata": {}, **_to_columns(row.values, None)}
        for product_id, row in ids.items()
    ]
    shared = {
        "owner_id": lease.owner_id,
        "organization_id": lease.organization_id,
        "public": False,
        "created_at": now,
        "updated_at": now,
    }
    return {ids[product_id].line: product_id for product_id in insert_new(_TABLE, values, shared)}


def _update_products(updates: Sequence[_Update]) -> list[_Update]:
    """Update products, and return the updates that were made."""
    if not updates:
        return []
    try:
        with current_session().begin_nested():
            _execute_updates(updates)
    except IntegrityError:
        # Another writer has taken a value since it was looked up. One by one, to find the row.
        return [each for each in updates if _try_update(each)]
    return list(updates)


def _try_update(each: _Update) -> bool:
    try:
        with current_session().begin_nested():
            _execute_updates([each])
    except IntegrityError:
        taken = next((name for name in UNIQUE_PROPERTIES if name in each.changes), None)
        if taken is None:
            # The brand was deleted meanwhile.
            each.row.problem = describe_error(NotFound())
        else:
            _reject_taken(each.row, taken)
        return False
    return True


def _execute_updates(updates: Sequence[_Update]) -> None:
    """Update products with one statement: products without a change of a column keep its value."""
    names = sorted({name for each in updates for name in each.changes})
    rows = [
        {"id": each.product["id"], **{name: each.changes.get(name, each.product[name]) for name in names}}
        for each in updates
    ]
    update_by_id(_TABLE, rows, {"updated_at": utc_now()})


def _to_result(row: Row, status: ResultStatus, product_id: UUID | None = None) -> RowResult:
    return RowResult(row.line, row.get_text("external_id", 128), row.get_text("sku", 80), status, product_id)


def _to_failure(row: Row) -> RowResult:
    return replace(_to_result(row, ResultStatus.FAILED), problem=row.problem)
