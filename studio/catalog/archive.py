"""Delete subjects, styles and shot types, or archive those that only other tenants use.

A public row can be used by every tenant. Its owner does not see by whom, so uses of others must not prevent
the deletion; and the deletion must not change the looks of others. An archived row belongs to no tenant and
is hidden from all of them. New generations with it are rejected (`studio/generations/availability.py`).
"""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy import ColumnElement, select

from db.base import Owned, utc_now
from db.errors import InUse
from db.models.presets import ShotType
from db.models.styles import Style
from db.models.subjects import Subject
from db.queries.references import delete_unreferenced, find_conflicts, list_references
from db.session import as_system, current_session
from studio.catalog.visibility import sync_media_visibility

ArchivableRow: TypeAlias = ShotType | Style | Subject


def delete_subject(subject: Subject) -> None:
    """Delete a locked subject with its base images, which must be loaded, or archive it without them.

    Raises:
        InUse: A row of the subject's tenant refers to it.
    """
    media_ids = [subject.cover_media_id, *(image.media_id for image in subject.base_images)]
    if _is_used_by_others(subject):
        # New generations do not use the subject, so its images are not needed any more.
        subject.base_images.clear()
        subject.cover_media = None
        _archive(subject)
    else:
        delete_unreferenced(subject)
    sync_media_visibility(*media_ids)


def delete_style(style: Style) -> None:
    """Delete or archive a locked style.

    Raises:
        InUse: A row of the style's tenant refers to it.
    """
    media_id = style.cover_media_id
    if _is_used_by_others(style):
        style.cover_media = None
        _archive(style)
    else:
        delete_unreferenced(style)
    sync_media_visibility(media_id)


def delete_shot_type(shot_type: ShotType) -> None:
    """Delete or archive a locked shot type.

    Raises:
        InUse: A row of the shot type's tenant refers to it.
    """
    if _is_used_by_others(shot_type):
        _archive(shot_type)
    else:
        delete_unreferenced(shot_type)


def _archive(row: ArchivableRow) -> None:
    # The policies of the caller allow no row without a tenant.
    with as_system():
        row.archived_at, row.public = utc_now(), False
        # Without a tenant the row keeps no slug from being used again, and no organization from deletion.
        row.owner_id = row.organization_id = None
        current_session().flush()


def _is_used_by_others(row: ArchivableRow) -> bool:
    """Return whether rows of other tenants refer to a row.

    Raises:
        InUse: A row of the same tenant refers to it.
    """
    references = list_references(row).items()
    # The caller sees only the rows of their tenants.
    with as_system():
        is_used_by_owner = any(
            _exists(model, refers & _is_of_tenant(model, row)) for model, refers in references
        )
        is_used = is_used_by_owner or any(_exists(model, refers) for model, refers in references)
    if is_used_by_owner:
        raise InUse(conflicts_with=find_conflicts(row))
    return is_used


def _exists(model: type[Owned], condition: ColumnElement[bool]) -> bool:
    # unscoped: uses in all tenants
    return current_session().scalar(select(model.id).where(condition).limit(1)) is not None


def _is_of_tenant(model: type[Owned], row: ArchivableRow) -> ColumnElement[bool]:
    if row.organization_id is not None:
        return model.organization_id == row.organization_id
    # No row has the tenant of a system row, whose owner is null.
    return model.organization_id.is_(None) & (model.owner_id == row.owner_id) & model.owner_id.is_not(None)
