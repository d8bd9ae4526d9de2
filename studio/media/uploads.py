"""Presigned uploads: an address is given out first, the bytes come later and without a token.

The bytes wait as a temporary file until a row refers to them (`ingest.py`) or time is over (`sweep.py`).
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from db.audit import set_target
from db.base import new_id, utc_now
from db.errors import Conflict, NotFound
from db.models.media import Upload, UploadStatus
from db.session import current_session
from db.tenancy import current_caller
from studio.media.garbage_collection import TEMPORARY_LIFETIME
from studio.media.storage import Storage, temporary_key
from studio.media.stored_image import StoredImage

_MIN_LIFETIME = timedelta(minutes=15)
_MIN_BYTES_PER_SECOND = 50_000


class UploadConsumed(Conflict):
    """The bytes of an upload were to be replaced after something had begun to use them."""

    code = "upload_consumed"
    default_detail = "The uploaded file is already in use"


def create_presigned_url(filename: str, content_type: str, size: int | None) -> Upload:
    """A new upload of the caller, which waits for its bytes for a day.

    That of an API key stays in the key's organization, because a key sees nothing personal.
    """
    caller = current_caller()
    upload = Upload(
        id=new_id(),
        owner_id=caller.user_id,
        organization_id=caller.key_organization_id,
        filename=filename,
        content_type=content_type,
        size=size,
        expires_at=utc_now() + TEMPORARY_LIFETIME,
    )
    current_session().add(upload)
    set_target("upload", upload.id)
    return upload


def url_lifetime(size: int | None) -> timedelta:
    """How long the address takes bytes: a quarter of an hour, and longer for a large file."""
    return _MIN_LIFETIME + timedelta(seconds=(size or 0) // _MIN_BYTES_PER_SECOND)


def put_upload(storage: Storage, upload_id: UUID, image: StoredImage) -> None:
    """Stores the picture of an upload; until something uses it, it may be replaced.

    NotFound when the upload is over, UploadConsumed when it is used.
    """
    upload = get_open_upload(upload_id, for_update=True)
    storage.write(temporary_key(upload.id), image.data)
    upload.status = UploadStatus.RECEIVED


def get_open_upload(upload_id: UUID, for_update: bool = False) -> Upload:
    """The upload that still waits for its bytes, or may get others; NotFound or UploadConsumed."""
    # unscoped: whoever sends the bytes holds the signature, and has no other right
    statement = select(Upload).where(Upload.id == upload_id, Upload.expires_at > utc_now())
    upload = current_session().scalar(statement.with_for_update() if for_update else statement)
    if upload is None:
        raise NotFound
    if upload.status == UploadStatus.INGESTED:
        raise UploadConsumed
    return upload
