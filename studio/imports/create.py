"""Create and cancel imports of products. A worker reads the file later. Knows no worker and no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from db.base import new_id, utc_now
from db.caller import current_caller, find_api_key_id
from db.errors import Conflict, InvalidTransition, NotFound, names_place
from db.models.imports import ImportStatus, ProductImport
from db.models.media import Upload, UploadStatus
from db.models.organizations import Organization
from db.models.users import User
from db.queries.link_creators import find_creator
from db.session import after_commit, current_session
from db.tenancy import select_visible
from studio.accounts.permissions import Permission, may_go_on
from studio.billing.storage import require_storage
from studio.infrastructure.pubsub import IMPORTS
from studio.media.data_files import DATA_EXTENSIONS_BY_TYPE
from studio.media.ingest import parse_file_url

MAX_OPEN_IMPORTS = 10
LIFETIME = timedelta(days=30)
OPEN = (ImportStatus.PENDING, ImportStatus.RUNNING)


class TooManyImports(Conflict):
    """The tenant has the maximum number of pending and running imports."""

    code = "too_many_imports"
    default_detail = f"At most {MAX_OPEN_IMPORTS} imports can be pending or running at a time"


class PermissionLost(Conflict):
    """Whoever requested the import may not write products any more."""

    code = "permission_lost"
    default_detail = "The account or the API key that requested the import may not write products any more"


class FileNotImportable(Conflict):
    """The upload has another format than the import."""

    code = "file_not_importable"


@dataclass(frozen=True)
class ImportRequest:
    """What a client requests: the properties of `ProductImportCreate` in the contract and their defaults."""

    file_url: str
    format: str
    mode: str
    match_by: str = "sku"
    column_mapping: Mapping[str, str | None] = field(default_factory=dict)
    empty_cells: str = "keep"
    validate_only: bool = False
    images_zip_url: str | None = None


def create_product_import(
    request: ImportRequest, organization_id: UUID | None, public_url: str
) -> ProductImport:
    """Create a pending import of the caller, who owns the products that it creates, too.

    Args:
        request: The request.
        organization_id: The organization of the products, None for personal ones.
        public_url: The URL of this server, which `file_url` starts with.

    Raises:
        TargetNotAllowed: `file_url` or `images_zip_url` is not a file URL of this server.
        NotFound: A URL leads to no upload that the caller can see and whose file has arrived.
        FileNotImportable: An upload has another format.
        TooManyImports: The tenant has the maximum of open imports.
        StorageFull: The storage of the plan is used up.
    """
    owner_id = current_caller().user_id
    with names_place("/file_url"):
        upload = _get_upload(public_url, request.file_url, request.format, "`format` is")
    images = None
    if request.images_zip_url is not None:
        with names_place("/images_zip_url"):
            images = _get_upload(public_url, request.images_zip_url, "zip", "`images_zip_url` needs")
    _require_capacity(owner_id, organization_id)
    require_storage(organization_id, owner_id)
    # From now on the files cannot be replaced.
    upload.status = UploadStatus.INGESTED
    if images is not None:
        images.status = UploadStatus.INGESTED
    product_import = ProductImport(
        id=new_id(),
        owner_id=owner_id,
        organization_id=organization_id,
        requested_by_id=owner_id,
        api_key_id=find_api_key_id(),
        upload_id=upload.id,
        file_id=upload.file_id,
        file_hash=upload.file_hash,
        images_upload_id=images and images.id,
        images_file_id=images and images.file_id,
        images_file_hash=images and images.file_hash,
        format=request.format,
        mode=request.mode,
        match_by=request.match_by,
        column_mapping=dict(request.column_mapping),
        empty_cells=request.empty_cells,
        validate_only=request.validate_only,
    )
    current_session().add(product_import)
    current_session().flush()
    after_commit(IMPORTS.notify)
    return product_import


def require_rights(product_import: ProductImport) -> None:
    """Check that the requester of an import may still write products: rights are read when they are used.

    Raises:
        PermissionLost: They may not.
    """
    requester_id = product_import.requested_by_id or product_import.owner_id
    creator = find_creator(product_import.organization_id, requester_id, product_import.api_key_id)
    if not may_go_on(creator, Permission.PRODUCTS_WRITE):
        raise PermissionLost()


def cancel_product_import(product_import: ProductImport) -> None:
    """Cancel a locked import. A worker that runs it loses its lease and writes no further row.

    Raises:
        InvalidTransition: The import is completed or failed.
    """
    if product_import.status == ImportStatus.CANCELED:
        return
    if product_import.status not in OPEN:
        raise InvalidTransition(
            f"An import that is {product_import.status} cannot be canceled", allowed_transitions=[]
        )
    end_import(product_import, ImportStatus.CANCELED)


def end_import(product_import: ProductImport, status: ImportStatus) -> None:
    """End a locked import, and set when it is deleted."""
    product_import.status, product_import.completed_at = status, utc_now()
    product_import.expires_at = product_import.completed_at + LIFETIME
    product_import.lease_owner = product_import.lease_expires_at = None


def _get_upload(public_url: str, url: str, extension: str, requirement: str) -> Upload:
    """Return the upload of a URL, locked: its file must not be replaced or deleted meanwhile."""
    upload_id = parse_file_url(public_url, url, frozenset(DATA_EXTENSIONS_BY_TYPE.values()))
    upload = current_session().scalar(select_visible(Upload).where(Upload.id == upload_id).with_for_update())
    if upload is None:
        raise NotFound(value=url)
    if upload.content_type not in DATA_EXTENSIONS_BY_TYPE:
        raise FileNotImportable("The upload is an image")
    if upload.file_id is None:
        detail = "The upload has no file yet: send the file to its `upload_url` first"
        raise NotFound(detail, value=url)
    if DATA_EXTENSIONS_BY_TYPE[upload.content_type] != extension:
        raise FileNotImportable(
            f"The upload was created for {upload.content_type}, and {requirement} {extension}",
            pointer="/format" if extension != "zip" else "/images_zip_url",
        )
    return upload


def _require_capacity(owner_id: UUID, organization_id: UUID | None) -> None:
    """Check the number of open imports. The lock makes concurrent requests of a tenant take turns."""
    tenant = Organization if organization_id else User
    # FOR NO KEY UPDATE: rows that refer to the tenant can be inserted meanwhile.
    locked = select(tenant.id).where(tenant.id == (organization_id or owner_id))
    current_session().execute(locked.with_for_update(key_share=True))
    # unscoped: counts rows of the tenant that the caller was authorized for
    counted = select(func.count(ProductImport.id)).where(
        ProductImport.organization_id == organization_id,
        *([] if organization_id else [ProductImport.owner_id == owner_id]),
        ProductImport.status.in_(OPEN),
    )
    if (current_session().scalar(counted) or 0) >= MAX_OPEN_IMPORTS:
        raise TooManyImports(limit=MAX_OPEN_IMPORTS)
