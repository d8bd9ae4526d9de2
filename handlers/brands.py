"""Brands, with the defaults of their shootings and looks."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload

from db.models.brands import Brand
from db.models.guidelines import Guidelines
from db.models.presets import BackgroundPreset, ResolutionPreset
from db.models.styles import Style
from db.session import current_session
from db.tenancy import get_visible
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.plain_writes import plain_write
from handlers.common.preconditions import apply_changes, get_for_update, precheck_update
from handlers.common.reads import One
from handlers.common.references import check_references, precheck_create, resolve_images, resolve_ownership
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.pipeline.prechecks import prefetches_images
from handlers.schemas.brands import BrandSchema
from studio.catalog import brands
from studio.catalog.slugs import insert_with_slug
from studio.products import transfers

LOGO_OPTIONS = [joinedload(Brand.logo_media)]
BRANDS = ListQuery(Brand, BrandSchema, search_columns=(Brand.name,))


list_brands = Page(BRANDS, Permission.BRANDS_READ)


@plain_write
@requires(Permission.BRANDS_WRITE)
@prefetches_images(precheck_create, "logo_url")
def create_brand(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a brand; the slug defaults to one made from the name."""
    brand = Brand(**resolve_ownership(organization_id), logo_media=None)
    _apply_body(brand, body)
    insert_with_slug(brand, "brand")
    return created(brand, BrandSchema, f"/api/v1/brands/{brand.id}")


get_brand = One(Brand, BrandSchema, Permission.BRANDS_READ)


@plain_write
@requires(Permission.BRANDS_WRITE)
@prefetches_images(precheck_update(Brand, "brand_id", BrandSchema, LOGO_OPTIONS), "logo_url")
def update_brand(brand_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a brand."""
    brand = get_for_update(Brand, brand_id, BrandSchema, LOGO_OPTIONS)
    _apply_body(brand, body)
    current_session().flush()
    return ok(brand, BrandSchema)


@requires(Permission.BRANDS_WRITE)
def delete_brand(brand_id: UUID) -> ApiResponse:
    """Delete a brand; its products and shootings remain without a brand."""
    brands.delete_brand(get_for_update(Brand, brand_id, BrandSchema, LOGO_OPTIONS))
    return no_content()


@requires(Permission.BRANDS_WRITE)
def transfer_brand(brand_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Move a brand to another organization or to the personal resources of the caller."""
    transfers.transfer(get_visible(Brand, brand_id, for_update=True), body["organization_id"])
    return ok(get_visible(Brand, brand_id, options=LOGO_OPTIONS), BrandSchema)


def _apply_body(brand: Brand, body: dict[str, Any]) -> None:
    check_references(
        brand,
        body,
        default_guidelines_id=Guidelines,
        default_style_id=Style,
        default_background_preset_id=BackgroundPreset,
        default_resolution_preset_id=ResolutionPreset,
    )
    apply_changes(brand, resolve_images(brand, body, logo_url="logo_media"))
