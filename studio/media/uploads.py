"""Presigned uploads: the client first gets a signed URL, then sends the bytes to it without a token.

The bytes stay in a temporary file until a row refers to them (`ingest`) or the upload expires
(`garbage_collection`).
"""

from datetime import timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import func, select

from db.audit import set_target
from db.base import new_id, utc_now
from db.caller import current_caller
from db.errors import Conflict, NotFound, UnsupportedImageType
from db.models.media import Upload, UploadStatus
from db.queries.link_creators import find_creator
from db.queries.users import lock_for_count
from db.session import after_commit, current_session, query_as_system
from studio.accounts.permissions import Permission, may_go_on
from studio.billing.storage import require_storage
from studio.infrastructure.storage import Storage, import_folder, temporary_key
from studio.media.data_files import DATA_EXTENSIONS_BY_TYPE, StoredDataFile
from studio.media.garbage_collection import GRACE_PERIOD
from studio.media.stored_image import StoredImage

MAX_UNUSED_BYTES = 1_000_000_000
"""The bytes of an account's uploads that no row refers to yet."""
_MIN_LIFETIME = timedelta(minutes=15)
_MIN_BYTES_PER_SECOND = 50_000
MAX_LIFETIME = timedelta(minutes=85)
"""The longest validity of a presigned URL, that of a file of 200 MB. After it no bytes arrive."""
MAX_PENDING = 100


class UploadConsumed(Conflict):
    """The bytes of an upload cannot be replaced, because a row already refers to the image."""

    code = "upload_consumed"
    default_detail = "The uploaded file is already in use"


class TooManyUploads(Conflict):
    """The user has the maximum number of uploads whose bytes have not arrived."""

    code = "too_many_uploads"
    default_detail = (
        f"{MAX_PENDING} uploads are pending: send their bytes first, or wait until their URLs expire"
    )


class UnusedUploadsFull(Conflict):
    """The uploads of the account that are not used yet have the maximum size."""

    code = "too_many_upload_bytes"
    default_detail = (
        f"{MAX_UNUSED_BYTES // 1_000_000:,} MB of uploads are not used: use them, or wait until they expire"
    )


def create_presigned_url(filename: str, content_type: str, size: int | None) -> Upload:
    """Create an upload of the caller that expires after `GRACE_PERIOD`.

    The upload of an API key belongs to the key's organization: keys cannot read personal resources.

    Raises:
        TooManyUploads: The user, with their API keys, has `MAX_PENDING` pending uploads.
        UnusedUploadsFull: The file would exceed `MAX_UNUSED_BYTES`.
        StorageFull: The file does not fit into the storage of the plan.
    """
    caller = current_caller()
    # Locked, so that concurrent requests cannot exceed the maximum.
    lock_for_count(caller.user_id)
    if _count_pending(caller.user_id) >= MAX_PENDING:
        raise TooManyUploads(limit=MAX_PENDING)
    _require_space(caller.user_id, size or 0)
    require_storage(caller.key_organization_id, caller.user_id, size or 0)
    upload = Upload(
        id=new_id(),
        owner_id=caller.user_id,
        organization_id=caller.key_organization_id,
        api_key_id=caller.api_key_id,
        filename=filename,
        content_type=content_type,
        size=size,
        expires_at=utc_now() + GRACE_PERIOD,
    )
    current_session().add(upload)
    set_target("upload", upload.id)
    return upload


def url_lifetime(size: int | None) -> timedelta:
    """Return how long the presigned URL is valid: 15 minutes, plus the transfer time of a large file."""
    return _MIN_LIFETIME + timedelta(seconds=(size or 0) // _MIN_BYTES_PER_SECOND)


def _count_pending(user_id: UUID) -> int:
    """Return the number of a user's uploads whose bytes may still arrive."""
    # unscoped: uploads of one user in all tenants
    pending = select(func.count(Upload.id)).where(
        Upload.owner_id == user_id,
        Upload.status == UploadStatus.PENDING,
        Upload.created_at > utc_now() - MAX_LIFETIME,
    )
    return query_as_system(pending)[0]


def _require_space(user_id: UUID, added_bytes: int, upload_id: UUID | None = None) -> None:
    """Check the size of a user's unused uploads, without that of one whose file is replaced."""
    # unscoped: uploads of one user in all tenants
    others = select(func.coalesce(func.sum(Upload.stored_bytes), 0)).where(
        Upload.owner_id == user_id,
        Upload.status == UploadStatus.RECEIVED,
        *([] if upload_id is None else [Upload.id != upload_id]),
    )
    if query_as_system(others)[0] + added_bytes > MAX_UNUSED_BYTES:
        raise UnusedUploadsFull(limit=MAX_UNUSED_BYTES)


def put_upload(storage: Storage, upload_id: UUID, file: StoredImage | StoredDataFile) -> None:
    """Store the image of an upload, or record its stored file, in place of an earlier one.

    Raises:
        NotFound: The upload does not exist or has expired.
        UploadConsumed: A row already refers to the file.
        UnusedUploadsFull: The file would exceed `MAX_UNUSED_BYTES`.
        StorageFull: The file does not fit into the storage of the plan.
    """
    upload = get_open_upload(upload_id, for_update=True)
    content = file.to_bytes() if isinstance(file, StoredImage) else b""
    size = file.size if isinstance(file, StoredDataFile) else len(content)
    # Locked, so that concurrent requests cannot exceed the maximum.
    lock_for_count(upload.owner_id)
    _require_space(upload.owner_id, size, upload.id)
    require_storage(upload.organization_id, upload.owner_id, size - upload.stored_bytes)
    upload.stored_bytes = size
    if isinstance(file, StoredDataFile):
        replaced_id, upload.file_id, upload.file_hash = upload.file_id, file.id, file.content_hash
        if replaced_id is not None:
            after_commit(partial(storage.delete_folder, import_folder(replaced_id)))
    else:
        # With its columns, so that the transaction that uses the upload need not decode it again.
        storage.write(temporary_key(upload.id), content)
    upload.status = UploadStatus.RECEIVED


def require_media_type(upload: Upload, media_type: str) -> None:
    """Check that the file of an upload is sent with a media type that fits the type it was created with.

    Raises:
        UnsupportedImageType: An image was announced and is something else, or the other way round.
    """
    expected = upload.content_type if upload.content_type in DATA_EXTENSIONS_BY_TYPE else "image/*"
    given = media_type if media_type in DATA_EXTENSIONS_BY_TYPE else "image/*"
    if given != expected:
        raise UnsupportedImageType(f"The upload was created for {expected}: send its file as that")


def get_open_upload(upload_id: UUID, for_update: bool = False) -> Upload:
    """Return an upload whose bytes may be sent or replaced.

    Raises:
        NotFound: The upload does not exist or has expired, or its creator may no longer upload files.
        UploadConsumed: A row already refers to the image.
    """
    # unscoped: the request has no caller; the signature in its URL grants access to this upload only
    statement = select(Upload).where(Upload.id == upload_id, Upload.expires_at > utc_now())
    upload = current_session().scalar(statement.with_for_update() if for_update else statement)
    if upload is None:
        raise NotFound
    creator = find_creator(upload.organization_id, upload.owner_id, upload.api_key_id)
    if not may_go_on(creator, Permission.UPLOADS_WRITE):
        raise NotFound
    if upload.status == UploadStatus.INGESTED:
        raise UploadConsumed
    return upload
