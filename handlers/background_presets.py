"""Background presets: the background of an image and the shadow of the product on it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload

from db.fast_path.insert import insert_row
from db.models.presets import BackgroundPreset
from db.queries.references import delete_unreferenced
from db.session import current_session
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.plain_writes import plain_write
from handlers.common.preconditions import apply_changes, get_for_update, precheck_update
from handlers.common.reads import One
from handlers.common.references import precheck_create, resolve_images, resolve_ownership
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.pipeline.prechecks import prefetches_images
from handlers.schemas.background_presets import BackgroundPresetSchema
from studio.catalog.visibility import check_may_publish, sync_media_visibility

IMAGE_OPTIONS = [joinedload(BackgroundPreset.image_media)]
BACKGROUND_PRESETS = ListQuery(
    BackgroundPreset, BackgroundPresetSchema, search_columns=(BackgroundPreset.name,)
)


list_background_presets = Page(BACKGROUND_PRESETS, Permission.BACKGROUND_PRESETS_READ)


@plain_write
@requires(Permission.BACKGROUND_PRESETS_WRITE)
@prefetches_images(precheck_create, "image_url")
def create_background_preset(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a background preset."""
    check_may_publish(body)
    preset = BackgroundPreset(**resolve_ownership(organization_id), image_media=None)
    apply_changes(preset, resolve_images(preset, body, image_url="image_media"))
    insert_row(preset)
    sync_media_visibility(preset.image_media_id)
    return created(preset, BackgroundPresetSchema, f"/api/v1/background-presets/{preset.id}")


get_background_preset = One(BackgroundPreset, BackgroundPresetSchema, Permission.BACKGROUND_PRESETS_READ)


@plain_write
@requires(Permission.BACKGROUND_PRESETS_WRITE)
@prefetches_images(
    precheck_update(BackgroundPreset, "background_preset_id", BackgroundPresetSchema, IMAGE_OPTIONS),
    "image_url",
)
def update_background_preset(background_preset_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a background preset."""
    preset = get_for_update(BackgroundPreset, background_preset_id, BackgroundPresetSchema, IMAGE_OPTIONS)
    check_may_publish(body, preset.public)
    media_before = preset.image_media_id
    apply_changes(preset, resolve_images(preset, body, image_url="image_media"))
    current_session().flush()
    sync_media_visibility(media_before, preset.image_media_id)
    return ok(preset, BackgroundPresetSchema)


@plain_write
@requires(Permission.BACKGROUND_PRESETS_WRITE)
def delete_background_preset(background_preset_id: UUID) -> ApiResponse:
    """Delete a background preset that no row refers to."""
    preset = get_for_update(BackgroundPreset, background_preset_id, BackgroundPresetSchema, IMAGE_OPTIONS)
    delete_unreferenced(preset)
    sync_media_visibility(preset.image_media_id)
    return no_content()
