"""Resolution presets: the sizes of finished pictures."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.inserting import insert_row
from db.models.presets import ResolutionPreset
from db.session import session
from db.tenancy import get_owned, list_scope
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, get_for_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.references import scope_of_new
from handlers.schemas.resolution_presets import ResolutionPresetSchema
from studio.publishing import check_public

RESOLUTION_PRESETS = Listing(ResolutionPreset, ResolutionPresetSchema, searched=(ResolutionPreset.name,))


@requires(Permission.RESOLUTION_PRESETS_READ)
def list_resolution_presets(
    organization_id: UUID | None = None, include_public: bool = True, **asked: Any
) -> Answer:
    """The sizes of one scope, public ones included unless they are not wanted."""
    return RESOLUTION_PRESETS.page(asked, list_scope(organization_id, include_public))


@requires(Permission.RESOLUTION_PRESETS_WRITE)
def create_resolution_preset(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Make a size."""
    check_public(body)
    preset = ResolutionPreset(**scope_of_new(organization_id))
    apply_changes(preset, body)
    insert_row(preset)
    return created(preset, ResolutionPresetSchema, f"/api/v1/resolution-presets/{preset.id}")


@requires(Permission.RESOLUTION_PRESETS_READ)
def get_resolution_preset(resolution_preset_id: UUID) -> Answer:
    """One size."""
    return ok(get_owned(ResolutionPreset, resolution_preset_id), ResolutionPresetSchema)


@requires(Permission.RESOLUTION_PRESETS_WRITE)
def update_resolution_preset(resolution_preset_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names."""
    preset = get_for_change(ResolutionPreset, resolution_preset_id, ResolutionPresetSchema)
    check_public(body, preset.public)
    apply_changes(preset, body)
    session().flush()
    return ok(preset, ResolutionPresetSchema)


@requires(Permission.RESOLUTION_PRESETS_WRITE)
def delete_resolution_preset(resolution_preset_id: UUID) -> Answer:
    """Remove the size, unless something refers to it."""
    session().delete(get_for_change(ResolutionPreset, resolution_preset_id, ResolutionPresetSchema))
    session().flush()
    return no_content()
