"""Brands: a customer's brands and the defaults that their shootings and looks fall back to."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload

from db.models.brands import Brand
from db.models.guidelines import Guidelines
from db.models.presets import BackgroundPreset, ResolutionPreset
from db.models.styles import Style
from db.session import session
from db.tenancy import get_owned, list_scope
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, get_for_change, may_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.preparing import decodes_after
from handlers.references import may_create, refer_all, scope_of_new, with_pictures
from handlers.schemas.brands import BrandSchema
from studio.brands import detach_brand
from studio.slugs import add_with_slug

WITH_LOGO = [joinedload(Brand.logo_media)]
BRANDS = Listing(Brand, BrandSchema, searched=(Brand.name,))


@requires(Permission.BRANDS_READ)
def list_brands(organization_id: UUID | None = None, **asked: Any) -> Answer:
    """The brands of one scope."""
    return BRANDS.page(asked, list_scope(organization_id))


@requires(Permission.BRANDS_WRITE)
@decodes_after(may_create, "logo_url")
def create_brand(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Make a brand, with a slug from its name when it comes without."""
    brand = Brand(**scope_of_new(organization_id), logo_media=None)
    _change(brand, body)
    add_with_slug(brand, "brand")
    return created(brand, BrandSchema, f"/api/v1/brands/{brand.id}")


@requires(Permission.BRANDS_READ)
def get_brand(brand_id: UUID) -> Answer:
    """One brand."""
    return ok(get_owned(Brand, brand_id, options=WITH_LOGO), BrandSchema)


@requires(Permission.BRANDS_WRITE)
@decodes_after(may_change(Brand, "brand_id", BrandSchema, WITH_LOGO), "logo_url")
def update_brand(brand_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names."""
    brand = get_for_change(Brand, brand_id, BrandSchema, WITH_LOGO)
    _change(brand, body)
    session().flush()
    return ok(brand, BrandSchema)


@requires(Permission.BRANDS_WRITE)
def delete_brand(brand_id: UUID) -> Answer:
    """Remove the brand; its products and shootings stay without it."""
    detach_brand(get_for_change(Brand, brand_id, BrandSchema, WITH_LOGO))
    return no_content()


def _change(brand: Brand, body: dict[str, Any]) -> None:
    refer_all(
        brand,
        body,
        default_guidelines_id=Guidelines,
        default_style_id=Style,
        default_background_preset_id=BackgroundPreset,
        default_resolution_preset_id=ResolutionPreset,
    )
    apply_changes(brand, with_pictures(brand, body, logo_url="logo_media"))
