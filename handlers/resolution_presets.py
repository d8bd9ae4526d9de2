"""Resolution presets: the pixel sizes of finished images."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.fast_path.insert import insert_row
from db.models.presets import ResolutionPreset
from db.queries.references import delete_unreferenced
from db.session import current_session
from db.tenancy import get_visible, list_filter
from handlers.common.pagination import ListQuery
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import apply_changes, get_for_update
from handlers.common.references import resolve_ownership
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.schemas.resolution_presets import ResolutionPresetSchema
from studio.catalog.visibility import check_may_publish

RESOLUTION_PRESETS = ListQuery(
    ResolutionPreset, ResolutionPresetSchema, search_columns=(ResolutionPreset.name,)
)


@requires(Permission.RESOLUTION_PRESETS_READ)
def list_resolution_presets(
    organization_id: UUID | None = None, include_public: bool = True, **params: Any
) -> ApiResponse:
    """List the resolution presets of a tenant, with public ones by default."""
    return RESOLUTION_PRESETS.list_response(params, list_filter(organization_id, include_public))


@requires(Permission.RESOLUTION_PRESETS_WRITE)
def create_resolution_preset(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a resolution preset."""
    check_may_publish(body)
    preset = ResolutionPreset(**resolve_ownership(organization_id))
    apply_changes(preset, body)
    insert_row(preset)
    return created(preset, ResolutionPresetSchema, f"/api/v1/resolution-presets/{preset.id}")


@requires(Permission.RESOLUTION_PRESETS_READ)
def get_resolution_preset(resolution_preset_id: UUID) -> ApiResponse:
    """Return a resolution preset."""
    return ok(get_visible(ResolutionPreset, resolution_preset_id), ResolutionPresetSchema)


@requires(Permission.RESOLUTION_PRESETS_WRITE)
def update_resolution_preset(resolution_preset_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a resolution preset."""
    preset = get_for_update(ResolutionPreset, resolution_preset_id, ResolutionPresetSchema)
    check_may_publish(body, preset.public)
    apply_changes(preset, body)
    current_session().flush()
    return ok(preset, ResolutionPresetSchema)


@requires(Permission.RESOLUTION_PRESETS_WRITE)
def delete_resolution_preset(resolution_preset_id: UUID) -> ApiResponse:
    """Delete a resolution preset that no row refers to."""
    delete_unreferenced(get_for_update(ResolutionPreset, resolution_preset_id, ResolutionPresetSchema))
    return no_content()
