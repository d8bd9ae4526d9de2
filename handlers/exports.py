"""Exports: ZIP archives of approved predictions."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from db.errors import Conflict
from db.models.destinations import ExportDelivery
from db.models.exports import Export, ExportStatus
from db.models.products import Product
from db.models.shootings import Shooting
from db.session import after_commit, current_session
from db.tenancy import get_visible
from handlers.common.context import current_storage
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import get_for_update
from handlers.common.reads import One
from handlers.common.references import OF_PRODUCTS
from handlers.common.responses import SANDBOX_CSP, ApiResponse, accepted, file_response, no_content
from handlers.schemas.exports import ExportFileDeliverySchema, ExportSchema
from studio.exports import create
from studio.exports.names import FileNames, build_content_disposition
from studio.infrastructure.storage import export_folder, export_key


class ExportNotReady(Conflict):
    """The archive of an export is not written yet, or its creation failed."""

    code = "export_not_ready"
    default_detail = "The export is not completed"


EXPORTS = ListQuery(
    Export,
    ExportSchema,
    filters={
        "shooting_id": Export.shooting_id,
        "status": Export.status,
        "products": OF_PRODUCTS["exports"],
    },
)


EXPORT_DELIVERIES = ListQuery(
    ExportDelivery,
    ExportFileDeliverySchema,
    filters={"status": ExportDelivery.status},
    parent={"export_id": ExportDelivery.export_id},
)


list_exports = Page(
    EXPORTS, Permission.EXPORTS_READ, narrowed_by={"shooting_id": Shooting, "product_id": Product}
)


@requires(Permission.EXPORTS_WRITE)
def create_export(shooting_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Queue an export of the approved predictions of a shooting."""
    shooting = get_visible(Shooting, shooting_id)
    export = create.create_export(shooting, create.ExportRequest(**body))
    return accepted(export, ExportSchema, f"/api/v1/exports/{export.id}")


get_export = One(Export, ExportSchema, Permission.EXPORTS_READ)


@requires(Permission.EXPORTS_WRITE)
def delete_export(export_id: UUID) -> ApiResponse:
    """Delete an export and its archive."""
    current_session().delete(get_for_update(Export, export_id, ExportSchema))
    after_commit(partial(current_storage().delete_folder, export_folder(export_id)))
    return no_content()


@requires(Permission.EXPORTS_READ)
def download_export(export_id: UUID) -> ApiResponse:
    """Return the archive of a completed export."""
    export = get_visible(Export, export_id)
    if export.status != ExportStatus.COMPLETED:
        raise ExportNotReady()
    return file_response(
        current_storage().path(export_key(export.id)),
        "application/zip",
        export.content_hash,
        Cache_Control="private, no-cache",
        X_Content_Type_Options="nosniff",
        Content_Security_Policy=SANDBOX_CSP,
        Content_Disposition=build_content_disposition(FileNames().reserve(export.shooting_name, "zip")),
    )


list_export_deliveries = Page(EXPORT_DELIVERIES, Permission.EXPORTS_READ, parent=Export)
