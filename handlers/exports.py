"""Exports: archives of approved pictures, ordered here and downloaded when they are written."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from db.errors import Conflict
from db.models.exports import Export, ExportStatus
from db.models.shootings import Shooting
from db.session import after_commit, session
from db.tenancy import get_owned, list_scope
from handlers.answers import SANDBOX, Answer, accepted, found_file, no_content, ok
from handlers.conditional import get_for_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.references import current_storage, require_known
from handlers.schemas.exports import ExportSchema
from studio.exports.names import FileNames, attachment
from studio.exports.order import order_export
from studio.media.storage import export_folder, export_key


class ExportNotReady(Conflict):
    """The archive of an export is not written, or could not be."""

    code = "export_not_ready"
    default_detail = "The export is not completed"


EXPORTS = Listing(Export, ExportSchema, filters={"shooting_id": Export.shooting_id, "status": Export.status})


@requires(Permission.EXPORTS_READ)
def list_exports(organization_id: UUID | None = None, **asked: Any) -> Answer:
    """The exports of one scope."""
    require_known({Shooting: asked.get("shooting_id")})
    return EXPORTS.page(asked, list_scope(organization_id))


@requires(Permission.EXPORTS_WRITE)
def create_export(shooting_id: UUID, body: dict[str, Any]) -> Answer:
    """Order an archive of approved pictures; it reports progress and result."""
    shooting = get_owned(Shooting, shooting_id)
    export = order_export(shooting, **body)
    return accepted(export, ExportSchema, f"/api/v1/exports/{export.id}")


@requires(Permission.EXPORTS_READ)
def get_export(export_id: UUID) -> Answer:
    """One export with its progress."""
    return ok(get_owned(Export, export_id), ExportSchema)


@requires(Permission.EXPORTS_WRITE)
def delete_export(export_id: UUID) -> Answer:
    """Remove an export and its archive."""
    session().delete(get_for_change(Export, export_id, ExportSchema))
    after_commit(partial(current_storage().delete_folder, export_folder(export_id)))
    return no_content()


@requires(Permission.EXPORTS_READ)
def download_export(export_id: UUID) -> Answer:
    """The archive of a completed export."""
    export = get_owned(Export, export_id)
    if export.status != ExportStatus.COMPLETED:
        raise ExportNotReady()
    return found_file(
        current_storage().path(export_key(export.id)),
        "application/zip",
        export.content_hash,
        Cache_Control="private, no-cache",
        X_Content_Type_Options="nosniff",
        Content_Security_Policy=SANDBOX,
        Content_Disposition=attachment(FileNames().take(export.shooting_name, "zip")),
    )
