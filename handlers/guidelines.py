"""Guidelines: the format, size and setup that finished images must have."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import selectinload

from db.base import utc_now
from db.fast_path.insert import insert_row
from db.models.guidelines import Guidelines
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.subjects import Subject
from db.queries.references import delete_unreferenced
from db.session import current_session
from db.tenancy import get_visible
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.plain_writes import plain_write
from handlers.common.preconditions import apply_changes, get_for_update
from handlers.common.reads import One
from handlers.common.references import check_references, deduplicate_ids, resolve_ownership
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.schemas.guidelines import GuidelinesSchema
from studio.products import transfers

LIST_OPTIONS = [selectinload(Guidelines.shot_type_links), selectinload(Guidelines.subject_links)]
GUIDELINES = ListQuery(Guidelines, GuidelinesSchema, search_columns=(Guidelines.name,))


list_guidelines = Page(GUIDELINES, Permission.GUIDELINES_READ)


@plain_write
@requires(Permission.GUIDELINES_WRITE)
def create_guidelines(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create guidelines."""
    guidelines = Guidelines(**resolve_ownership(organization_id), shot_type_links=[], subject_links=[])
    _apply_body(guidelines, body)
    insert_row(guidelines)
    return created(guidelines, GuidelinesSchema, f"/api/v1/guidelines/{guidelines.id}")


get_guidelines = One(Guidelines, GuidelinesSchema, Permission.GUIDELINES_READ)


@plain_write
@requires(Permission.GUIDELINES_WRITE)
def update_guidelines(guidelines_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update guidelines; a list is replaced as a whole."""
    guidelines = get_for_update(Guidelines, guidelines_id, GuidelinesSchema, LIST_OPTIONS)
    _apply_body(guidelines, body)
    current_session().flush()
    return ok(guidelines, GuidelinesSchema)


@plain_write
@requires(Permission.GUIDELINES_WRITE)
def delete_guidelines(guidelines_id: UUID) -> ApiResponse:
    """Delete guidelines that no row refers to."""
    delete_unreferenced(get_for_update(Guidelines, guidelines_id, GuidelinesSchema, LIST_OPTIONS))
    return no_content()


@requires(Permission.GUIDELINES_WRITE)
def transfer_guidelines(guidelines_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Move guidelines to another organization or to the personal resources of the caller."""
    transfers.transfer(get_visible(Guidelines, guidelines_id, for_update=True), body["organization_id"])
    return ok(get_visible(Guidelines, guidelines_id, options=LIST_OPTIONS), GuidelinesSchema)


def _apply_body(guidelines: Guidelines, body: dict[str, Any]) -> None:
    deduplicate_ids(body, "shot_type_ids", "subject_ids")
    check_references(
        guidelines,
        body,
        background_preset_id=BackgroundPreset,
        resolution_preset_id=ResolutionPreset,
        shot_type_ids=ShotType,
        subject_ids=Subject,
    )
    apply_changes(guidelines, body)
    if body:
        # A change of only a list updates no column of the row.
        guidelines.updated_at = utc_now()
