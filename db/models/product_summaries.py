"""The summary of a product that looks, shots, generations and predictions show, read with their rows.

It is a computed column and no relationship: the row of a product may be loaded in the same session with its
photos, and a joined load with `populate_existing` would unload them.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from sqlalchemy import JSON, ColumnElement, Text, and_, func, literal_column, or_, select
from sqlalchemy.orm import InstrumentedAttribute, column_property

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
    columns = (Product.id, Product.name, Product.sku, Product.external_id)
    members = chain.from_iterable((literal_column(f"'{column.key}'", Text()), column) for column in columns)
    # unscoped: belongs to a scoped row
    summary = select(func.json_build_object(*members, type_=JSON())).where(*conditions)
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
