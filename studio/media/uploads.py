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
from db.queries.users import lock_for_count
from db.session import after_commit, current_session, query_as_system
from studio.infrastructure.storage import Storage, import_folder, temporary_key
from studio.media.data_files import DATA_EXTENSIONS_BY_TYPE, StoredDataFile
from studio.media.garbage_collection import GRACE_PERIOD
from studio.media.stored_image import StoredImage

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


def create_presigned_url(filename: str, content_type: str, size: int | None) -> Upload:
    """Create an upload of the caller that expires after `GRACE_PERIOD`.

    The upload of an API key belongs to the key's organization: keys cannot read personal resources.

    Raises:
        TooManyUploads: The user, with their API keys, has `MAX_PENDING` pending uploads.
    """
    caller = current_caller()
    # Locked, so that concurrent requests cannot exceed the maximum.
    lock_for_count(caller.user_id)
    if _count_pending(caller.user_id) >= MAX_PENDING:
        raise TooManyUploads(limit=MAX_PENDING)
    upload = Upload(
        id=new_id(),
        owner_id=caller.user_id,
        organization_id=caller.key_organization_id,
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


def put_upload(storage: Storage, upload_id: UUID, file: StoredImage | StoredDataFile) -> None:
    """Store the image of an upload, or record its stored file, in place of an earlier one.

    Raises:
        NotFound: The upload does not exist or has expired.
        UploadConsumed: A row already refers to the file.
    """
    upload = get_open_upload(upload_id, for_update=True)
    if isinstance(file, StoredDataFile):
        replaced_id, upload.file_id, upload.file_hash = upload.file_id, file.id, file.content_hash
        if replaced_id is not None:
            after_commit(partial(storage.delete_folder, import_folder(replaced_id)))
    else:
        # With its columns, so that the transaction that uses the upload need not decode it again.
        storage.write(temporary_key(upload.id), file.to_bytes())
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
        NotFound: The upload does not exist or has expired.
        UploadConsumed: A row already refers to the image.
    """
    # unscoped: the request has no caller; the signature in its URL grants access to this upload only
    statement = select(Upload).where(Upload.id == upload_id, Upload.expires_at > utc_now())
    upload = current_session().scalar(statement.with_for_update() if for_update else statement)
    if upload is None:
        raise NotFound
    if upload.status == UploadStatus.INGESTED:
        raise UploadConsumed
    return upload
