"""Styles: the aesthetics that pictures are graded to."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload

from db.models.styles import Style
from db.session import session
from db.tenancy import get_owned, list_scope
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, get_for_change, may_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.preparing import decodes_after
from handlers.references import may_create, scope_of_new, with_pictures
from handlers.schemas.styles import StyleSchema
from studio.publishing import check_public, settle_pictures
from studio.slugs import add_with_slug

WITH_COVER = [joinedload(Style.cover_media)]
STYLES = Listing(Style, StyleSchema, searched=(Style.name,))


@requires(Permission.STYLES_READ)
def list_styles(organization_id: UUID | None = None, include_public: bool = True, **asked: Any) -> Answer:
    """The styles of one scope, public ones included unless they are not wanted."""
    return STYLES.page(asked, list_scope(organization_id, include_public))


@requires(Permission.STYLES_WRITE)
@decodes_after(may_create, "cover_image")
def create_style(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Make a style, with a slug from its name when it comes without."""
    check_public(body)
    style = Style(**scope_of_new(organization_id), cover_media=None)
    apply_changes(style, with_pictures(style, body, cover_image="cover_media"))
    add_with_slug(style, "style")
    settle_pictures(style.cover_media_id)
    return created(style, StyleSchema, f"/api/v1/styles/{style.id}")


@requires(Permission.STYLES_READ)
def get_style(style_id: UUID) -> Answer:
    """One style."""
    return ok(get_owned(Style, style_id, options=WITH_COVER), StyleSchema)


@requires(Permission.STYLES_WRITE)
@decodes_after(may_change(Style, "style_id", StyleSchema, WITH_COVER), "cover_image")
def update_style(style_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names."""
    style = get_for_change(Style, style_id, StyleSchema, WITH_COVER)
    check_public(body, style.public)
    cover_before = style.cover_media_id
    apply_changes(style, with_pictures(style, body, cover_image="cover_media"))
    session().flush()
    settle_pictures(cover_before, style.cover_media_id)
    return ok(style, StyleSchema)


@requires(Permission.STYLES_WRITE)
def delete_style(style_id: UUID) -> Answer:
    """Remove the style, unless something refers to it."""
    style = get_for_change(Style, style_id, StyleSchema, WITH_COVER)
    session().delete(style)
    session().flush()
    settle_pictures(style.cover_media_id)
    return no_content()
