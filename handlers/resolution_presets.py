"""Resolution presets: the pixel sizes of finished images."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.fast_path.insert import insert_row
from db.models.presets import ResolutionPreset
from db.queries.references import delete_unreferenced
from db.session import current_session
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.plain_writes import plain_write
from handlers.common.preconditions import apply_changes, get_for_update
from handlers.common.reads import One
from handlers.common.references import resolve_ownership
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.schemas.resolution_presets import ResolutionPresetSchema
from studio.catalog.visibility import check_may_publish

RESOLUTION_PRESETS = ListQuery(
    ResolutionPreset, ResolutionPresetSchema, search_columns=(ResolutionPreset.name,)
)


list_resolution_presets = Page(RESOLUTION_PRESETS, Permission.RESOLUTION_PRESETS_READ)


@plain_write
@requires(Permission.RESOLUTION_PRESETS_WRITE)
def create_resolution_preset(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a resolution preset."""
    check_may_publish(body)
    preset = ResolutionPreset(**resolve_ownership(organization_id))
    apply_changes(preset, body)
    insert_row(preset)
    return created(preset, ResolutionPresetSchema, f"/api/v1/resolution-presets/{preset.id}")


get_resolution_preset = One(ResolutionPreset, ResolutionPresetSchema, Permission.RESOLUTION_PRESETS_READ)


@plain_write
@requires(Permission.RESOLUTION_PRESETS_WRITE)
def update_resolution_preset(resolution_preset_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a resolution preset."""
    preset = get_for_update(ResolutionPreset, resolution_preset_id, ResolutionPresetSchema)
    check_may_publish(body, preset.public)
    apply_changes(preset, body)
    current_session().flush()
    return ok(preset, ResolutionPresetSchema)


@plain_write
@requires(Permission.RESOLUTION_PRESETS_WRITE)
def delete_resolution_preset(resolution_preset_id: UUID) -> ApiResponse:
    """Delete a resolution preset that no row refers to."""
    delete_unreferenced(get_for_update(ResolutionPreset, resolution_preset_id, ResolutionPresetSchema))
    return no_content()
