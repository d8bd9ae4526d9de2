"""The summary of a product that looks, shots, generations and predictions show, read with their rows.

It is a computed column and no relationship: the row of a product may be loaded in the same session with its
photos, and a joined load with `populate_existing` would unload them.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ColumnElement, Dialect, and_, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, column_property
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from db.base import Owned
from db.models.products import Product


def summarize_product(
    model: type[Owned],
    product_id: InstrumentedAttribute[Any],
    link: ColumnElement[bool] | None = None,
    may_change: bool = False,
) -> Any:
    """Return a column property with the product of a row, null without one or with one that it may not show.

    Args:
        model: The model of the row.
        product_id: The id of the product, a column of the model or of the table that `link` leads to.
        link: The condition that joins the table of `product_id` to the row.
        may_change: Whether a row can get another product. A flush of the row then reads the summary again.
    """
    conditions = [Product.id == product_id, may_show_product(model), *([] if link is None else [link])]
    # unscoped: belongs to a scoped row
    summary = select(_Summary(Product.id, Product.name, Product.sku, Product.external_id)).where(*conditions)
    others = [Product] if link is None else [Product, product_id.class_]
    return column_property(summary.correlate_except(*others).scalar_subquery(), expire_on_flush=may_change)


def may_show_product(model: type[Owned]) -> ColumnElement[bool]:
    """Return the condition that a row may show a product: it is of the same tenant, or public.

    A product can be made private after others used it, and one that only generations refer to can be
    transferred.
    """
    is_personal = and_(
        Product.organization_id.is_(None),
        model.organization_id.is_(None),
        Product.owner_id == model.owner_id,
    )
    return or_(Product.organization_id == model.organization_id, is_personal, Product.public)


class _SummaryType(TypeDecorator[dict[str, Any]]):
    """A JSON object. SQLite stores ids without hyphens, so Python formats them."""

    impl = JSON
    cache_ok = True

    def process_result_value(self, value: dict[str, Any] | None, dialect: Dialect) -> dict[str, Any] | None:
        return None if value is None else {**value, "id": str(UUID(value["id"]))}

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        # No call per value on PostgreSQL, whose driver decodes JSON.
        return super().result_processor(dialect, coltype) if dialect.name == "sqlite" else None


class _Summary(FunctionElement[dict[str, Any]]):
    """A JSON object of the id, name, SKU and external id of a product."""

    type = _SummaryType()
    inherit_cache = True


@compiles(_Summary)
def _compile_json_object(element: _Summary, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_object({_list_members(element, compiler, options)})"


@compiles(_Summary, "postgresql")
def _compile_json_build_object(element: _Summary, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_build_object({_list_members(element, compiler, options)})"


def _list_members(element: _Summary, compiler: SQLCompiler, options: dict[str, Any]) -> str:
    names = "id", "name", "sku", "external_id"
    columns = (compiler.process(column, **options) for column in element.clauses)
    return ", ".join(f"'{name}', {column}" for name, column in zip(names, columns, strict=True))
