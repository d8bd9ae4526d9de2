"""Signed addresses open one thing, for a while, and nothing else."""

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
QUARTER = timedelta(minutes=15)
LETTERS = string.ascii_letters + string.digits + "-_.+/=é"
SECRET = "a secret that only the server knows"


def test_s26_a_signed_upload_is_accepted_until_its_time_is_over() -> None:
    upload_id = uuid4()
    signed = sign_upload(SECRET, upload_id, NOW, QUARTER)
    check_upload_signature(SECRET, upload_id, signed.expires, signed.signature, NOW + QUARTER / 2)
    with pytest.raises(InvalidSignature):
        check_upload_signature(SECRET, upload_id, signed.expires, signed.signature, NOW + QUARTER)


def test_s26_a_changed_upload_time_secret_or_signature_is_refused() -> None:
    upload_id = uuid4()
    signed = sign_upload(SECRET, upload_id, NOW, QUARTER)
    for tried in (
        (SECRET, uuid4(), signed.expires, signed.signature),
        (SECRET, upload_id, signed.expires + 1, signed.signature),
        (SECRET + "x", upload_id, signed.expires, signed.signature),
        (SECRET, upload_id, signed.expires, signed.signature[:-1]),
        (SECRET, upload_id, signed.expires, ""),
        (SECRET, upload_id, signed.expires, "é\udcff" * 32),
    ):
        with pytest.raises(InvalidSignature):
            check_upload_signature(*tried, NOW)


def test_s26_a_share_token_names_its_prediction_until_its_time_is_over() -> None:
    prediction_id = uuid4()
    token = sign_share(SECRET, prediction_id, NOW + QUARTER)
    assert verify_share(SECRET, token, NOW) == prediction_id
    with pytest.raises(InvalidSignature):
        verify_share(SECRET, token, NOW + QUARTER)


def test_s26_a_share_token_of_another_secret_or_none_is_refused() -> None:
    token = sign_share(SECRET, uuid4(), NOW + QUARTER)
    for secret, tried in (
        (SECRET + "x", token),
        (SECRET, token[:-1]),
        (SECRET, ""),
        (SECRET, "é.é"),
        (SECRET, "x" * 999),
    ):
        with pytest.raises(InvalidSignature):
            verify_share(secret, tried, NOW)


def test_s26_a_share_token_that_was_altered_anywhere_is_refused() -> None:
    """In its last letter too, of which the decoder ignores two bits."""
    token = sign_share(SECRET, uuid4(), NOW + QUARTER)
    for place, letter in itertools.product(range(len(token)), LETTERS):
        altered = token[:place] + letter + token[place + 1 :]
        if altered != token:
            with pytest.raises(InvalidSignature):
                verify_share(SECRET, altered, NOW)
    for altered in (token + "=", token + "A", "." + token, token + ".", token.swapcase()):
        with pytest.raises(InvalidSignature):
            verify_share(SECRET, altered, NOW)


def test_s26_what_is_signed_for_one_purpose_is_worth_nothing_for_another() -> None:
    subject, expires = uuid4(), int((NOW + QUARTER).timestamp())
    upload = sign_upload(SECRET, subject, NOW, QUARTER)
    token = sign_share(SECRET, subject, NOW + QUARTER)
    payload, signature = token.split(".")
    for tried in (f"{payload}.{upload.signature}", upload.signature):
        with pytest.raises(InvalidSignature):
            verify_share(SECRET, tried, NOW)
    with pytest.raises(InvalidSignature):
        verify_share(
            SECRET, URLSafeSerializer(SECRET, salt="another purpose").dumps([str(subject), expires]), NOW
        )
    for tried in (signature, token, generate_secret(subject, SECRET)):
        with pytest.raises(InvalidSignature):
            check_upload_signature(SECRET, subject, expires, tried, NOW)
