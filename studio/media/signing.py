"""Signed URLs: presigned uploads and share links, which grant one action to their holder until they expire.

Each purpose has its own key, derived from the server's secret, so that a signature for one purpose is invalid
for another. The strings in the derivation are part of every issued URL: never change them.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from itsdangerous import BadData, URLSafeSerializer

from db.errors import PermissionDenied


class InvalidSignature(PermissionDenied):
    """The signature is wrong or has expired."""

    code = "invalid_signature"
    default_detail = "The signature is not valid or has expired"


@dataclass(frozen=True)
class SignedUpload:
    """The query parameters of a presigned upload URL; `expires` is a Unix time in seconds."""

    expires: int
    signature: str


def sign_upload(secret: str, upload_id: UUID, now: datetime, lifetime: timedelta) -> SignedUpload:
    """Return the query parameters that allow the bytes of this upload to be sent until they expire."""
    expires = int((now + lifetime).timestamp())
    return SignedUpload(expires, _upload_signature(secret, upload_id, expires))


def check_upload_signature(secret: str, upload_id: UUID, expires: int, signature: str, now: datetime) -> None:
    """Check the query parameters of a presigned upload URL.

    Raises:
        InvalidSignature: They were not signed for this upload, or they have expired.
    """
    expected = _upload_signature(secret, upload_id, expires)
    # Compared as bytes: compare_digest raises on non-ASCII text, which a client may send.
    is_genuine = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass"))
    if not is_genuine or expires <= now.timestamp():
        raise InvalidSignature


def sign_share(secret: str, prediction_id: UUID, expires_at: datetime) -> str:
    """Return a token for the share link of one prediction, which works without authentication."""
    return _share_serializer(secret).dumps([str(prediction_id), int(expires_at.timestamp())])


def verify_share(secret: str, token: str, now: datetime) -> UUID:
    """Return the id of the prediction that a token shares.

    Raises:
        InvalidSignature: The token was not issued by this server, was altered, or has expired.
    """
    try:
        prediction_id, expires = _share_serializer(secret).loads(token)
    except BadData as error:
        raise InvalidSignature from error
    # Base64 decoding ignores the last unused bits, so several tokens decode alike: accept only the issued
    # one.
    canonical = _share_serializer(secret).dumps([prediction_id, expires])
    if not hmac.compare_digest(canonical.encode(), token.encode()):
        raise InvalidSignature
    if datetime.fromtimestamp(expires, UTC) <= now:
        raise InvalidSignature
    return UUID(prediction_id)


def _upload_signature(secret: str, upload_id: UUID, expires: int) -> str:
    key = hashlib.sha256(b"sartiq upload address\0" + secret.encode()).digest()
    return hmac.new(key, f"{upload_id}/{expires}".encode(), hashlib.sha256).hexdigest()


def _share_serializer(secret: str) -> URLSafeSerializer:
    signer = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
    return URLSafeSerializer(secret, salt="sartiq prediction share", signer_kwargs=signer)
