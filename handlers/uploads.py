"""Uploads of images and of files to import to a presigned URL.

The size limit of uploads is part of request validation: `handlers/contract/request_bodies.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from flask import request

from db.base import utc_now
from handlers.common.context import current_settings, current_storage
from handlers.common.permissions import Permission, authenticates_itself, requires
from handlers.common.responses import ApiResponse, json_response, no_content
from handlers.pipeline.prechecks import FileReader, prefetches_images
from studio.media import uploads
from studio.media.data_files import (
    DATA_EXTENSIONS_BY_TYPE,
    MAX_DATA_FILE_BYTES,
    StoredDataFile,
    store_data_file,
)
from studio.media.ingest import file_url
from studio.media.signing import check_upload_signature, sign_upload
from studio.media.stored_image import EXTENSIONS_BY_TYPE, StoredImage

_ALIASES = {"image/jpg": "image/jpeg"}
"""Names of media types that programs use although they are not registered."""


@requires(Permission.UPLOADS_WRITE)
def create_presigned_url(body: dict[str, Any]) -> ApiResponse:
    """Return the URL to upload a file to, and the URL to refer to it with."""
    settings, lifetime = current_settings(), uploads.url_lifetime(body.get("size"))
    content_type = _ALIASES.get(body["content_type"], body["content_type"])
    upload = uploads.create_presigned_url(body["filename"], content_type, body.get("size"))
    signed = sign_upload(settings.secret_key, upload.id, utc_now(), lifetime)
    url = f"{settings.public_url}/api/v1/uploads/{upload.id}"
    is_data = content_type in DATA_EXTENSIONS_BY_TYPE
    extension = (DATA_EXTENSIONS_BY_TYPE if is_data else EXTENSIONS_BY_TYPE)[content_type]
    data = {
        "upload_url": f"{url}?expires={signed.expires}&signature={signed.signature}",
        "file_url": file_url(settings.public_url, upload.id, extension),
        "upload_method": "PUT",
        "expires_in_seconds": int(lifetime.total_seconds()),
        "max_file_size": MAX_DATA_FILE_BYTES if is_data else settings.max_upload_bytes,
    }
    return json_response(data, Cache_Control="no-store")


def _authorize_upload(upload_id: UUID, expires: int, signature: str, **_: Any) -> UUID:
    check_upload_signature(current_settings().secret_keys, upload_id, expires, signature, utc_now())
    upload = uploads.get_open_upload(upload_id)
    uploads.require_media_type(upload, request.mimetype)
    return upload.owner_id


def _find_store() -> FileReader | None:
    is_data = request.mimetype in DATA_EXTENSIONS_BY_TYPE
    return partial(store_data_file, current_storage()) if is_data else None


@authenticates_itself
@prefetches_images(_authorize_upload, authorize=_authorize_upload, find_store=_find_store)
def put_upload(
    upload_id: UUID, expires: int, signature: str, body: StoredImage | StoredDataFile
) -> ApiResponse:
    """Store the uploaded file; it can be replaced until a row refers to it."""
    uploads.put_upload(current_storage(), upload_id, body)
    return no_content()
