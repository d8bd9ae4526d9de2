"""Styles: the color grading of images."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload

from db.models.styles import Style
from db.session import current_session
from db.tenancy import get_visible
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.plain_writes import plain_write
from handlers.common.preconditions import apply_changes, get_for_update, precheck_update
from handlers.common.reads import One
from handlers.common.references import precheck_create, resolve_images, resolve_ownership
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.pipeline.prechecks import prefetches_images
from handlers.schemas.styles import StyleSchema
from studio.catalog import archive
from studio.catalog.slugs import insert_with_slug
from studio.catalog.visibility import check_may_publish, sync_media_visibility
from studio.products import transfers

COVER_OPTIONS = [joinedload(Style.cover_media)]
STYLES = ListQuery(Style, StyleSchema, search_columns=(Style.name,))


list_styles = Page(STYLES, Permission.STYLES_READ)


@plain_write
@requires(Permission.STYLES_WRITE)
@prefetches_images(precheck_create, "cover_image")
def create_style(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a style; the slug defaults to one made from the name."""
    check_may_publish(body)
    style = Style(**resolve_ownership(organization_id), cover_media=None)
    apply_changes(style, resolve_images(style, body, cover_image="cover_media"))
    insert_with_slug(style, "style")
    sync_media_visibility(style.cover_media_id)
    return created(style, StyleSchema, f"/api/v1/styles/{style.id}")


get_style = One(Style, StyleSchema, Permission.STYLES_READ)


@plain_write
@requires(Permission.STYLES_WRITE)
@prefetches_images(precheck_update(Style, "style_id", StyleSchema, COVER_OPTIONS), "cover_image")
def update_style(style_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a style."""
    style = get_for_update(Style, style_id, StyleSchema, COVER_OPTIONS)
    check_may_publish(body, style.public)
    cover_before = style.cover_media_id
    apply_changes(style, resolve_images(style, body, cover_image="cover_media"))
    current_session().flush()
    sync_media_visibility(cover_before, style.cover_media_id)
    return ok(style, StyleSchema)


@requires(Permission.STYLES_WRITE)
def delete_style(style_id: UUID) -> ApiResponse:
    """Delete a style; one that only other tenants use is archived."""
    archive.delete_style(get_for_update(Style, style_id, StyleSchema, COVER_OPTIONS))
    return no_content()


@requires(Permission.STYLES_WRITE)
def transfer_style(style_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Move a style to another organization or to the personal resources of the caller."""
    transfers.transfer(get_visible(Style, style_id, for_update=True), body["organization_id"])
    return ok(get_visible(Style, style_id, options=COVER_OPTIONS), StyleSchema)
