"""Search products, shootings, looks and subjects by text."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select

from db.caller import current_caller
from db.models.products import Product
from db.models.shootings import Look, Shooting
from db.models.subjects import Subject
from db.tenancy import list_filter_of_member
from handlers.common.pagination import ListQuery
from handlers.common.permissions import Permission, requires
from handlers.common.reads import Reading, read_permission_in
from handlers.common.responses import ApiResponse, json_response
from handlers.schemas.products import ProductSchema
from handlers.schemas.shootings import LookSchema, ShootingSchema
from handlers.schemas.subjects import SubjectSchema


class Searchable(NamedTuple):
    """A type of resource that is searched."""

    name: str
    permission: Permission
    list_query: ListQuery
    include_public: bool = False


# Looks have no name, so they are found by the name of their product.
# unscoped: the look is already filtered by tenant
_PRODUCT_NAME = select(Product.name).where(Product.id == Look.main_product_id)
SEARCHABLES = (
    Searchable(
        "product",
        Permission.PRODUCTS_READ,
        ListQuery(Product, ProductSchema, search_columns=(Product.name, Product.sku, Product.description)),
    ),
    Searchable(
        "shooting",
        Permission.SHOOTINGS_READ,
        ListQuery(Shooting, ShootingSchema, search_columns=(Shooting.name, Shooting.collection)),
    ),
    Searchable(
        "look",
        Permission.SHOOTINGS_READ,
        ListQuery(Look, LookSchema, search_columns=(Look.notes, _PRODUCT_NAME.scalar_subquery())),
    ),
    Searchable(
        "subject",
        Permission.SUBJECTS_READ,
        ListQuery(Subject, SubjectSchema, search_columns=(Subject.name, Subject.surname)),
        include_public=True,
    ),
)


@requires(Permission.SEARCH_READ)
def search(q: str, limit: int, organization_id: UUID | None = None) -> Reading[ApiResponse]:
    """Return the newest matches of each type that the caller may read, at most `limit` of each."""
    yield from read_permission_in(organization_id)
    results = []
    for searchable in SEARCHABLES:
        if current_caller().has_permission(searchable.permission, organization_id):
            tenant_filter = list_filter_of_member(organization_id, searchable.include_public)
            matches = yield from searchable.list_query.read_latest(q, limit, tenant_filter)
            results += [{"resource_type": searchable.name, "data": data} for data in matches]
    return json_response({"results": results, "count": len(results)})
