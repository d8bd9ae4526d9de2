"""Signed URLs: presigned uploads and share links, which grant one action to their holder until they expire.

Each purpose has its own key, derived from the server's secret, so that a signature for one purpose is invalid
for another. The strings in the derivation are part of every issued URL: never change them.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from itsdangerous import BadData, Signer, URLSafeSerializer

from db.errors import PermissionDenied

_SHARE_SIGNING: Any = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}


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


def check_upload_signature(
    secrets: tuple[str, ...], upload_id: UUID, expires: int, signature: str, now: datetime
) -> None:
    """Check the query parameters of a presigned upload URL, which one of the secrets must have signed.

    Raises:
        InvalidSignature: They were not signed for this upload, or they have expired.
    """
    # Compared as bytes: compare_digest raises on non-ASCII text, which a client may send.
    given = signature.encode("utf-8", "surrogatepass")
    signatures = (_upload_signature(secret, upload_id, expires).encode() for secret in secrets)
    is_genuine = any(hmac.compare_digest(expected, given) for expected in signatures)
    if not is_genuine or expires <= now.timestamp():
        raise InvalidSignature


def sign_share(secret: str, share_id: UUID) -> str:
    """Return the token of a share link, which works without authentication."""
    return _share_signer((secret,)).sign(share_id.hex).decode()


def verify_share(secrets: tuple[str, ...], token: str) -> UUID:
    """Return the id of the share that a token belongs to. It may have been deleted or have expired.

    Raises:
        InvalidSignature: The token was not issued by this server or was altered.
    """
    try:
        share_id = UUID(_share_signer(secrets).unsign(token).decode())
    except BadData as error:
        raise InvalidSignature from error
    _require_issued(token, [sign_share(secret, share_id) for secret in secrets])
    return share_id


def verify_unstored_share(secrets: tuple[str, ...], token: str, now: datetime) -> UUID:
    """Return the id of the prediction that a token of 0.1.0 shares; no such token is issued any more.

    Raises:
        InvalidSignature: The token was not issued by this server, was altered, or has expired.
    """
    try:
        prediction_id, expires = _unstored_share_serializer(secrets).loads(token)
    except BadData as error:
        raise InvalidSignature from error
    serializers = (_unstored_share_serializer((secret,)) for secret in secrets)
    _require_issued(token, [str(each.dumps([prediction_id, expires])) for each in serializers])
    if datetime.fromtimestamp(expires, UTC) <= now:
        raise InvalidSignature
    return UUID(prediction_id)


def _require_issued(token: str, issued: list[str]) -> None:
    """Accept only issued tokens: base64 decoding ignores the last unused bits, so several decode alike."""
    if not any(hmac.compare_digest(each.encode(), token.encode()) for each in issued):
        raise InvalidSignature


# The library signs with the last secret.
def _share_signer(secrets: tuple[str, ...]) -> Signer:
    return Signer(secrets[::-1], salt="sartiq share", **_SHARE_SIGNING)


def _unstored_share_serializer(secrets: tuple[str, ...]) -> URLSafeSerializer:
    return URLSafeSerializer(secrets[::-1], salt="sartiq prediction share", signer_kwargs=_SHARE_SIGNING)


def _upload_signature(secret: str, upload_id: UUID, expires: int) -> str:
    key = hashlib.sha256(b"sartiq upload address\0" + secret.encode()).digest()
    return hmac.new(key, f"{upload_id}/{expires}".encode(), hashlib.sha256).hexdigest()
