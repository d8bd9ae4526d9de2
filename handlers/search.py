"""Search: products, shootings, looks and subjects by what people call them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.orm.interfaces import ORMOption

from db.models.products import Product
from db.models.shootings import Look, Shooting
from db.models.subjects import Subject
from db.session import session
from db.tenancy import listed
from handlers import products, shootings, subjects
from handlers.answers import Answer, Presenter, listing, present_many
from handlers.paging import matching
from handlers.permissions import Permission, requires
from handlers.schemas.products import ProductSchema
from handlers.schemas.shootings import LookSchema, ShootingSchema
from handlers.schemas.subjects import SubjectSchema


@requires(Permission.SEARCH_READ)
def search(q: str, limit: int, organization_id: UUID | None = None) -> Answer:
    """At most `limit` rows of each kind in one scope, the newest; public subjects are found too."""
    results = [
        *_found(
            _products(q, organization_id), Product, "product", ProductSchema, limit, products.WITH_PICTURES
        ),
        *_found(_shootings(q, organization_id), Shooting, "shooting", ShootingSchema, limit),
        *_found(_looks(q, organization_id), Look, "look", LookSchema, limit, shootings.WITH_LISTS),
        *_found(
            _subjects(q, organization_id), Subject, "subject", SubjectSchema, limit, subjects.WITH_PICTURES
        ),
    ]
    return listing({"results": results, "count": len(results)})


def _products(q: str, organization_id: UUID | None) -> Select[Product]:
    return matching(listed(Product, organization_id), [Product.name, Product.sku, Product.description], q)


def _shootings(q: str, organization_id: UUID | None) -> Select[Shooting]:
    return matching(listed(Shooting, organization_id), [Shooting.name, Shooting.collection], q)


def _looks(q: str, organization_id: UUID | None) -> Select[Look]:
    """Looks have no name: people call them by their product."""
    return matching(listed(Look, organization_id).join(Look.main_product), [Look.notes, Product.name], q)


def _subjects(q: str, organization_id: UUID | None) -> Select[Subject]:
    return matching(listed(Subject, organization_id, True), [Subject.name, Subject.surname], q)


def _found(
    query: Select[Any],
    model: Any,
    kind: str,
    schema: type[Presenter],
    limit: int,
    options: Sequence[ORMOption] = (),
) -> list[dict[str, Any]]:
    newest = query.options(*options).order_by(model.created_at.desc(), model.id.desc()).limit(limit)
    rows = session().scalars(newest).unique().all()
    return [{"resource_type": kind, "data": data} for data in present_many(rows, schema)]
