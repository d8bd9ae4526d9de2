"""Create, update and delete products, with what follows: the visibility of their files, and events.

Callers have checked the body and applied it to the product. Imports write many products without events.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from db.fast_path.insert import insert_row
from db.models.products import Product
from db.queries.references import delete_unreferenced
from db.queries.statements import lock_name
from db.session import current_session
from studio.catalog.external_ids import insert_unless_taken
from studio.catalog.visibility import sync_media_visibility
from studio.cutouts.requests import list_image_media_ids
from studio.webhooks.events import emit_product_event
from studio.webhooks.outbox import has_endpoints, load_endpoints_with

# One object, so that the statement that returns it is compiled once.
_HAS_ENDPOINTS = has_endpoints(Product)
load_endpoints_with(Product)


def lock_new_products(organization_id: UUID | None, owner_id: UUID) -> None:
    """Wait until no other batch or import writes products of a tenant; the lock ends with the transaction.

    An INSERT waits for another one with the same SKU or external id. Two transactions that insert the same
    ones in another order would wait for each other.

    Args:
        organization_id: The organization; None for personal products.
        owner_id: The owner of personal products.
    """
    lock_name(f"new products of {organization_id or owner_id}")


def create_product(product: Product) -> None:
    """Insert a new product with its photos."""
    has_listener = insert_row(product, _HAS_ENDPOINTS)
    if product.public:
        sync_media_visibility(*list_image_media_ids(product))
    if has_listener is not False:
        emit_product_event("product.created", product)


def create_product_unless_taken(product: Product) -> bool:
    """Insert a new product without photos and return True, unless its external id is taken."""
    if not insert_unless_taken(product):
        return False
    if product.public:
        sync_media_visibility(product.cover_media_id)
    emit_product_event("product.created", product)
    return True


def update_product(product: Product, media_ids_before: Collection[UUID | None] = ()) -> None:
    """Store the changes of a locked product. Without a change there is no event.

    Args:
        product: The product, with its photos.
        media_ids_before: The images that were public with the product before.
    """
    is_changed = current_session().is_modified(product)
    current_session().flush()
    if media_ids_before or product.public:
        sync_media_visibility(*media_ids_before, *list_image_media_ids(product))
    if is_changed:
        emit_product_event("product.updated", product)


def delete_product(product: Product) -> None:
    """Delete a locked product with its photos.

    Raises:
        InUse: Other rows refer to the product.
    """
    media_ids = list_image_media_ids(product) if product.public else ()
    delete_unreferenced(product)
    if media_ids:
        sync_media_visibility(*media_ids)
    emit_product_event("product.deleted", product)
