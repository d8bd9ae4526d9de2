"""Background presets: what is behind the product, and the shadow it throws there."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload

from db.inserting import insert_row
from db.models.presets import BackgroundPreset
from db.session import session
from db.tenancy import get_owned, list_scope
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, get_for_change, may_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.preparing import decodes_after
from handlers.references import may_create, scope_of_new, with_pictures
from handlers.schemas.background_presets import BackgroundPresetSchema
from studio.publishing import check_public, settle_pictures

WITH_PICTURE = [joinedload(BackgroundPreset.image_media)]
BACKGROUND_PRESETS = Listing(BackgroundPreset, BackgroundPresetSchema, searched=(BackgroundPreset.name,))


@requires(Permission.BACKGROUND_PRESETS_READ)
def list_background_presets(
    organization_id: UUID | None = None, include_public: bool = True, **asked: Any
) -> Answer:
    """The backgrounds of one scope, public ones included unless they are not wanted."""
    return BACKGROUND_PRESETS.page(asked, list_scope(organization_id, include_public))


@requires(Permission.BACKGROUND_PRESETS_WRITE)
@decodes_after(may_create, "image_url")
def create_background_preset(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Make a background."""
    check_public(body)
    preset = BackgroundPreset(**scope_of_new(organization_id), image_media=None)
    apply_changes(preset, with_pictures(preset, body, image_url="image_media"))
    insert_row(preset)
    settle_pictures(preset.image_media_id)
    return created(preset, BackgroundPresetSchema, f"/api/v1/background-presets/{preset.id}")


@requires(Permission.BACKGROUND_PRESETS_READ)
def get_background_preset(background_preset_id: UUID) -> Answer:
    """One background."""
    preset = get_owned(BackgroundPreset, background_preset_id, options=WITH_PICTURE)
    return ok(preset, BackgroundPresetSchema)


@requires(Permission.BACKGROUND_PRESETS_WRITE)
@decodes_after(
    may_change(BackgroundPreset, "background_preset_id", BackgroundPresetSchema, WITH_PICTURE), "image_url"
)
def update_background_preset(background_preset_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names."""
    preset = get_for_change(BackgroundPreset, background_preset_id, BackgroundPresetSchema, WITH_PICTURE)
    check_public(body, preset.public)
    picture_before = preset.image_media_id
    apply_changes(preset, with_pictures(preset, body, image_url="image_media"))
    session().flush()
    settle_pictures(picture_before, preset.image_media_id)
    return ok(preset, BackgroundPresetSchema)


@requires(Permission.BACKGROUND_PRESETS_WRITE)
def delete_background_preset(background_preset_id: UUID) -> Answer:
    """Remove the background, unless something refers to it."""
    preset = get_for_change(BackgroundPreset, background_preset_id, BackgroundPresetSchema, WITH_PICTURE)
    session().delete(preset)
    session().flush()
    settle_pictures(preset.image_media_id)
    return no_content()
