"""Uploads: a signed address for the bytes of one picture, and the bytes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.base import utc_now
from handlers.answers import Answer, listing, no_content
from handlers.current import current_settings
from handlers.permissions import Permission, checks_proof, requires
from handlers.preparing import decodes_after
from handlers.references import current_storage
from studio.media.ingest import file_url
from studio.media.picture import EXTENSION_OF_TYPE, Picture
from studio.media.signing import check_upload_signature, sign_upload
from studio.media.uploads import address_lifetime, announce_upload, get_open_upload, receive_upload


@requires(Permission.UPLOADS_WRITE)
def create_presigned_url(body: dict[str, Any]) -> Answer:
    """Where the bytes may be sent, and by which address they are named afterwards."""
    settings, lifetime = current_settings(), address_lifetime(body.get("size"))
    upload = announce_upload(body["filename"], body["content_type"], body.get("size"))
    signed = sign_upload(settings.secret_key, upload.id, utc_now(), lifetime)
    address = f"{settings.public_url}/api/v1/uploads/{upload.id}"
    answer = {
        "upload_url": f"{address}?expires={signed.expires}&signature={signed.signature}",
        "file_url": file_url(settings.public_url, upload.id, EXTENSION_OF_TYPE[upload.content_type]),
        "upload_method": "PUT",
        "expires_in_seconds": int(lifetime.total_seconds()),
        "max_file_size": settings.max_upload_bytes,
    }
    return listing(answer, Cache_Control="no-store")


def _may_send(upload_id: UUID, expires: int, signature: str, **_: Any) -> None:
    check_upload_signature(current_settings().secret_key, upload_id, expires, signature, utc_now())
    get_open_upload(upload_id)


@checks_proof
@decodes_after(_may_send)
def put_upload(upload_id: UUID, expires: int, signature: str, body: Picture) -> Answer:
    """Take the bytes of a picture from the holder of the signature; they may be replaced until used."""
    receive_upload(current_storage(), upload_id, body)
    return no_content()
