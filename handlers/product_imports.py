"""Imports of products from uploaded files."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, case, select

from db.caller import require_permission_in
from db.models.imports import ProductImport, ProductImportResult, ResultStatus
from db.session import current_session
from db.tenancy import get_visible
from handlers.common.context import current_settings, current_storage
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.reads import One, Reading
from handlers.common.responses import SANDBOX_CSP, ApiResponse, accepted, file_response, ok
from handlers.schemas.product_imports import ProductImportResultSchema, ProductImportSchema, build_problem
from studio.exports.names import build_content_disposition
from studio.imports import create
from studio.imports.results import store_results_file

PRODUCT_IMPORTS = ListQuery(ProductImport, ProductImportSchema, filters={"status": ProductImport.status})
# The transaction that adds results adds to these counts. Counting the results of 50,000 rows takes longer
# than reading a page of them.
_KEPT_COUNTS = {status: getattr(ProductImport, f"{status}_count") for status in ResultStatus}
_IS_PARENT = ProductImport.id == bindparam("import_id")
RESULTS = ListQuery(
    ProductImportResult,
    ProductImportResultSchema,
    filters={"status": ProductImportResult.status},
    parent={"import_id": ProductImportResult.import_id},
    kept_counts={
        # unscoped: the handler has checked that the caller sees the import
        "": select(reduce(add, _KEPT_COUNTS.values())).where(_IS_PARENT),
        # unscoped: as above
        "status": select(case(_KEPT_COUNTS, value=bindparam("status"))).where(_IS_PARENT),
    },
)
RESULT_PAGE = Page(RESULTS, Permission.PRODUCTS_READ, parent=ProductImport)


list_product_imports = Page(PRODUCT_IMPORTS, Permission.PRODUCTS_READ)


@requires(Permission.PRODUCTS_WRITE)
def create_product_import(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Queue an import of an uploaded file."""
    require_permission_in(organization_id)
    public_url = current_settings().public_url
    row = create.create_product_import(create.ImportRequest(**body), organization_id, public_url)
    return accepted(row, ProductImportSchema, f"/api/v1/product-imports/{row.id}")


get_product_import = One(ProductImport, ProductImportSchema, Permission.PRODUCTS_READ)


@requires(Permission.PRODUCTS_WRITE)
def cancel_product_import(import_id: UUID) -> ApiResponse:
    """Cancel an import; rows that were imported stay."""
    row = get_visible(ProductImport, import_id, for_update=True)
    create.cancel_product_import(row)
    current_session().flush()
    return ok(row, ProductImportSchema)


@requires(Permission.PRODUCTS_READ)
def list_product_import_results(**params: Any) -> Reading[ApiResponse]:
    """List the results of the rows of an import, in the order of the rows."""
    return (yield from RESULT_PAGE(**params, sort="created_at"))


@requires(Permission.PRODUCTS_READ)
def download_product_import_results(import_id: UUID) -> ApiResponse:
    """Return the results of a finished import as a CSV file."""
    row = get_visible(ProductImport, import_id)
    key = store_results_file(current_storage(), row, build_problem)
    return file_response(
        current_storage().path(key),
        "text/csv",
        # The results of a finished import do not change.
        row.id.hex,
        Cache_Control="private, no-cache",
        X_Content_Type_Options="nosniff",
        Content_Security_Policy=SANDBOX_CSP,
        Content_Disposition=build_content_disposition(f"import-{row.id}.csv"),
    )
