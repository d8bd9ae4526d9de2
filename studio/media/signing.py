"""Addresses and tokens that carry their own right: their holder may do the one thing they name, for a while.

Keys are derived from the secret for each purpose, so that a signature made for one is worthless for another.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from itsdangerous import BadData, URLSafeSerializer

from db.errors import PermissionDenied


class InvalidSignature(PermissionDenied):
    """The signature is wrong, or its time is over."""

    code = "invalid_signature"
    default_detail = "The signature is not valid or has expired"


@dataclass(frozen=True)
class SignedUpload:
    """The query of an address to which one upload's bytes may be sent: `expires` is in seconds since 1970."""

    expires: int
    signature: str


def sign_upload(secret: str, upload_id: UUID, now: datetime, lifetime: timedelta) -> SignedUpload:
    """The query that lets its holder send the bytes of this upload until the lifetime is over."""
    expires = int((now + lifetime).timestamp())
    return SignedUpload(expires, _upload_signature(secret, upload_id, expires))


def check_upload_signature(secret: str, upload_id: UUID, expires: int, signature: str, now: datetime) -> None:
    """InvalidSignature unless the query was signed for this upload and is not over."""
    expected = _upload_signature(secret, upload_id, expires)
    # Compared as bytes: compare_digest refuses text beyond ASCII, which a client may send.
    genuine = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass"))
    if not genuine or expires <= now.timestamp():
        raise InvalidSignature


def sign_share(secret: str, prediction_id: UUID, expires_at: datetime) -> str:
    """A token for an address under which one prediction's picture can be fetched without signing in."""
    return _share_serializer(secret).dumps([str(prediction_id), int(expires_at.timestamp())])


def verify_share(secret: str, token: str, now: datetime) -> UUID:
    """The prediction that a token shares; InvalidSignature when it was not made here or is over."""
    try:
        prediction_id, expires = _share_serializer(secret).loads(token)
    except BadData as error:
        raise InvalidSignature from error
    # Base64 ends in bits that mean nothing: a token that differs in them only was altered all the same.
    as_made = _share_serializer(secret).dumps([prediction_id, expires])
    if not hmac.compare_digest(as_made.encode(), token.encode()):
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
