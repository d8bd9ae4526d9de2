"""Search: products, shootings, looks and subjects by what people call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from marshmallow import Schema
from sqlalchemy import Select

from db.models.products import Product
from db.models.shootings import Look, Shooting
from db.models.subjects import Subject
from db.tenancy import current_caller, listed, require_permission_in
from handlers.answers import Answer, listing, present_many
from handlers.paging import matching, read
from handlers.permissions import Permission, requires
from handlers.schemas.products import ProductSchema
from handlers.schemas.shootings import LookSchema, ShootingSchema
from handlers.schemas.subjects import SubjectSchema


class Kind(NamedTuple):
    """One kind of rows that is searched."""

    name: str
    permission: Permission
    model: Any
    matching: Callable[[str, UUID | None], Select[Any]]
    schema: type[Schema]


@requires(Permission.SEARCH_READ)
def search(q: str, limit: int, organization_id: UUID | None = None) -> Answer:
    """At most `limit` rows of each kind that the caller may read in one scope, the newest first.

    Public subjects are found too.
    """
    require_permission_in(organization_id)
    results = []
    for kind in KINDS:
        if current_caller().may(kind.permission, organization_id):
            results += _found(kind, kind.matching(q, organization_id), limit)
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


KINDS = (
    Kind("product", Permission.PRODUCTS_READ, Product, _products, ProductSchema),
    Kind("shooting", Permission.SHOOTINGS_READ, Shooting, _shootings, ShootingSchema),
    Kind("look", Permission.SHOOTINGS_READ, Look, _looks, LookSchema),
    Kind("subject", Permission.SUBJECTS_READ, Subject, _subjects, SubjectSchema),
)


def _found(kind: Kind, query: Select[Any], limit: int) -> list[dict[str, Any]]:
    newest = (kind.model.created_at.desc(), kind.model.id.desc())
    records = read(query.order_by(*newest).limit(limit), kind.model, kind.schema)
    return [{"resource_type": kind.name, "data": data} for data in present_many(records, kind.schema)]
