"""Guidelines: format, size and set-up that finished pictures must have."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import selectinload

from db.base import utc_now
from db.inserting import insert_row
from db.models.guidelines import Guidelines
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.subjects import Subject
from db.session import session
from db.tenancy import get_owned, list_scope
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, get_for_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.references import refer_all, scope_of_new
from handlers.schemas.guidelines import GuidelinesSchema

WITH_LISTS = [selectinload(Guidelines.shot_type_links), selectinload(Guidelines.subject_links)]
GUIDELINES = Listing(Guidelines, GuidelinesSchema, searched=(Guidelines.name,))


@requires(Permission.GUIDELINES_READ)
def list_guidelines(organization_id: UUID | None = None, **asked: Any) -> Answer:
    """The guidelines of one scope."""
    return GUIDELINES.page(asked, list_scope(organization_id))


@requires(Permission.GUIDELINES_WRITE)
def create_guidelines(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Make guidelines."""
    guidelines = Guidelines(**scope_of_new(organization_id), shot_type_links=[], subject_links=[])
    _change(guidelines, body)
    insert_row(guidelines)
    return created(guidelines, GuidelinesSchema, f"/api/v1/guidelines/{guidelines.id}")


@requires(Permission.GUIDELINES_READ)
def get_guidelines(guidelines_id: UUID) -> Answer:
    """One set of guidelines."""
    return ok(get_owned(Guidelines, guidelines_id, options=WITH_LISTS), GuidelinesSchema)


@requires(Permission.GUIDELINES_WRITE)
def update_guidelines(guidelines_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names; a list is replaced whole."""
    guidelines = get_for_change(Guidelines, guidelines_id, GuidelinesSchema, WITH_LISTS)
    _change(guidelines, body)
    session().flush()
    return ok(guidelines, GuidelinesSchema)


@requires(Permission.GUIDELINES_WRITE)
def delete_guidelines(guidelines_id: UUID) -> Answer:
    """Remove the guidelines, unless something refers to them."""
    session().delete(get_for_change(Guidelines, guidelines_id, GuidelinesSchema, WITH_LISTS))
    session().flush()
    return no_content()


def _change(guidelines: Guidelines, body: dict[str, Any]) -> None:
    # The schema sees two spellings of one id as different.
    body |= {
        name: list(dict.fromkeys(body[name])) for name in ("shot_type_ids", "subject_ids") if name in body
    }
    refer_all(
        guidelines,
        body,
        background_preset_id=BackgroundPreset,
        resolution_preset_id=ResolutionPreset,
        shot_type_ids=ShotType,
        subject_ids=Subject,
    )
    apply_changes(guidelines, body)
    if body:
        # A list that changed alone touches no column of the row.
        guidelines.updated_at = utc_now()
