"""Search: products, shootings, looks and subjects by what people call them."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select

from db.models.products import Product
from db.models.shootings import Look, Shooting
from db.models.subjects import Subject
from db.tenancy import current_caller, list_scope, require_permission_in
from handlers.answers import Answer, listing
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.schemas.products import ProductSchema
from handlers.schemas.shootings import LookSchema, ShootingSchema
from handlers.schemas.subjects import SubjectSchema


class Kind(NamedTuple):
    """One kind of rows that is searched."""

    name: str
    permission: Permission
    listing: Listing
    include_public: bool = False


# Looks have no name: people call them by their product.
# unscoped: of a look that is scoped already
_NAME_OF_PRODUCT = select(Product.name).where(Product.id == Look.main_product_id)
KINDS = (
    Kind(
        "product",
        Permission.PRODUCTS_READ,
        Listing(Product, ProductSchema, searched=(Product.name, Product.sku, Product.description)),
    ),
    Kind(
        "shooting",
        Permission.SHOOTINGS_READ,
        Listing(Shooting, ShootingSchema, searched=(Shooting.name, Shooting.collection)),
    ),
    Kind(
        "look",
        Permission.SHOOTINGS_READ,
        Listing(Look, LookSchema, searched=(Look.notes, _NAME_OF_PRODUCT.scalar_subquery())),
    ),
    Kind(
        "subject",
        Permission.SUBJECTS_READ,
        Listing(Subject, SubjectSchema, searched=(Subject.name, Subject.surname)),
        include_public=True,
    ),
)


@requires(Permission.SEARCH_READ)
def search(q: str, limit: int, organization_id: UUID | None = None) -> Answer:
    """At most `limit` rows of each kind that the caller may read in one scope, the newest first.

    Public subjects are found too.
    """
    require_permission_in(organization_id)
    results = []
    for kind in KINDS:
        if current_caller().may(kind.permission, organization_id):
            scope = list_scope(organization_id, kind.include_public)
            found = kind.listing.newest(q, limit, scope)
            results += [{"resource_type": kind.name, "data": data} for data in found]
    return listing({"results": results, "count": len(results)})
