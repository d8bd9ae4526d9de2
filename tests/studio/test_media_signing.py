"""Test signed URLs: presigned uploads and share tokens grant one action until they expire."""

import itertools
import string
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from itsdangerous import URLSafeSerializer

from studio.accounts.api_keys import generate_secret
from studio.media.signing import (
    InvalidSignature,
    check_upload_signature,
    sign_share,
    sign_upload,
    verify_share,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIFETIME = timedelta(minutes=15)
LETTERS = string.ascii_letters + string.digits + "-_.+/=é"
SECRET = "a secret that only the server knows"


def test_s26_a_signed_upload_is_accepted_until_it_expires() -> None:
    upload_id = uuid4()
    signed = sign_upload(SECRET, upload_id, NOW, LIFETIME)
    check_upload_signature(SECRET, upload_id, signed.expires, signed.signature, NOW + LIFETIME / 2)
    with pytest.raises(InvalidSignature):
        check_upload_signature(SECRET, upload_id, signed.expires, signed.signature, NOW + LIFETIME)


def test_s26_another_upload_time_secret_or_signature_is_rejected() -> None:
    upload_id = uuid4()
    signed = sign_upload(SECRET, upload_id, NOW, LIFETIME)
    for changed in (
        (SECRET, uuid4(), signed.expires, signed.signature),
        (SECRET, upload_id, signed.expires + 1, signed.signature),
        (SECRET + "x", upload_id, signed.expires, signed.signature),
        (SECRET, upload_id, signed.expires, signed.signature[:-1]),
        (SECRET, upload_id, signed.expires, ""),
        (SECRET, upload_id, signed.expires, "é\udcff" * 32),
    ):
        with pytest.raises(InvalidSignature):
            check_upload_signature(*changed, NOW)


def test_s26_a_share_token_returns_its_prediction_until_it_expires() -> None:
    prediction_id = uuid4()
    token = sign_share(SECRET, prediction_id, NOW + LIFETIME)
    assert verify_share(SECRET, token, NOW) == prediction_id
    with pytest.raises(InvalidSignature):
        verify_share(SECRET, token, NOW + LIFETIME)


def test_s26_a_share_token_with_another_secret_or_a_malformed_one_is_rejected() -> None:
    token = sign_share(SECRET, uuid4(), NOW + LIFETIME)
    for secret, invalid in (
        (SECRET + "x", token),
        (SECRET, token[:-1]),
        (SECRET, ""),
        (SECRET, "é.é"),
        (SECRET, "x" * 999),
    ):
        with pytest.raises(InvalidSignature):
            verify_share(secret, invalid, NOW)


def test_s26_a_share_token_with_any_changed_character_is_rejected() -> None:
    """Includes the last character, of which base64 decoding ignores two bits."""
    token = sign_share(SECRET, uuid4(), NOW + LIFETIME)
    for position, letter in itertools.product(range(len(token)), LETTERS):
        altered = token[:position] + letter + token[position + 1 :]
        if altered != token:
            with pytest.raises(InvalidSignature):
                verify_share(SECRET, altered, NOW)
    for altered in (token + "=", token + "A", "." + token, token + ".", token.swapcase()):
        with pytest.raises(InvalidSignature):
            verify_share(SECRET, altered, NOW)


def test_s26_a_signature_for_one_purpose_is_invalid_for_another() -> None:
    subject, expires = uuid4(), int((NOW + LIFETIME).timestamp())
    upload = sign_upload(SECRET, subject, NOW, LIFETIME)
    token = sign_share(SECRET, subject, NOW + LIFETIME)
    payload, signature = token.split(".")
    for invalid in (f"{payload}.{upload.signature}", upload.signature):
        with pytest.raises(InvalidSignature):
            verify_share(SECRET, invalid, NOW)
    with pytest.raises(InvalidSignature):
        verify_share(
            SECRET, URLSafeSerializer(SECRET, salt="another purpose").dumps([str(subject), expires]), NOW
        )
    for invalid in (signature, token, generate_secret(subject, SECRET)):
        with pytest.raises(InvalidSignature):
            check_upload_signature(SECRET, subject, expires, invalid, NOW)
