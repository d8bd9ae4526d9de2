"""References of a request body to other rows, each checked against the tenant of the new row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select

from db.base import Owned
from db.models.shootings import Shot
from db.tenancy import authorize_creation, current_caller, get_reference, get_visible

# unscoped: narrows rows that are scoped already
SHOTS_OF_SHOOTING = select(Shot.id).where(Shot.shooting_id == bindparam("shooting_id"))
"""The shots of the shooting that a filter of this name gives."""


def resolve_ownership(organization_id: UUID | None) -> dict[str, UUID | None]:
    """Whose a new row will be: the caller's, in the organization when one is named.

    NotFound when the caller is no member of it; PermissionDenied when the role may not create there.
    """
    return {"owner_id": current_caller().user_id, "organization_id": authorize_creation(organization_id)}


def precheck_create(organization_id: UUID | None = None, **_: Any) -> None:
    """The look (see `preparing.py`) of handlers that make a row; raises as `scope_of_new`."""
    resolve_ownership(organization_id)


def check_references(row: Owned, body: Mapping[str, Any], **models: type[Owned]) -> None:
    """Check the ids that a body names in the properties given, alone or in lists; null refers to nothing.

    NotFound for an id that the caller cannot see, ScopeMismatch for one of another scope than the row's.
    """
    for name, model in models.items():
        value = body.get(name)
        for row_id in filter(None, value if isinstance(value, list) else [value]):
            get_reference(model, row_id, row.organization_id, row.owner_id)


def require_visible_ids(filters: Mapping[type[Owned], UUID | None]) -> None:
    """NotFound for an id that the filter of a list names and the caller cannot see; None filters nothing."""
    for model, row_id in filters.items():
        if row_id is not None:
            get_visible(model, row_id)
