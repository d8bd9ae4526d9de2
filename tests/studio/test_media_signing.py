"""Test signed URLs: presigned uploads and share tokens grant one action until they expire."""

import string
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from itsdangerous import URLSafeSerializer

from studio.accounts.api_keys import generate_secret
from studio.media.signing import (
    InvalidSignature,
    check_upload_signature,
    sign_share,
    sign_upload,
    verify_share,
    verify_unstored_share,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIFETIME = timedelta(minutes=15)
LETTERS = string.ascii_letters + string.digits + "-_.+/=é"
SECRET = "a secret that only the server knows"
TOKEN_OF_0_1_0 = (
    ".eJyLVjIwtLQ0AAJd09TUFF1zEMsCRBgYGBobQIChko6hubmRsZk5UCQWABtyCqs"
    ".OfTUsMZl0Dukq69m6VyxrxSYmGqfm__P8dbBnxdT5VE"
)
"""Shares a prediction until NOW + LIFETIME, signed with SECRET."""


def test_s26_a_signed_upload_is_accepted_until_it_expires() -> None:
    upload_id = uuid4()
    signed = sign_upload(SECRET, upload_id, NOW, LIFETIME)
    check_upload_signature((SECRET,), upload_id, signed.expires, signed.signature, NOW + LIFETIME / 2)
    with pytest.raises(InvalidSignature):
        check_upload_signature((SECRET,), upload_id, signed.expires, signed.signature, NOW + LIFETIME)


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
            check_upload_signature((changed[0],), *changed[1:], NOW)


def test_s26_a_share_token_returns_the_id_of_its_share() -> None:
    share_id = uuid4()
    assert verify_share((SECRET,), sign_share(SECRET, share_id)) == share_id


def test_s44_a_share_token_of_the_first_release_returns_its_prediction_until_it_expires() -> None:
    """The token is a literal: the strings that it was derived from must never change."""
    prediction_id = UUID("01990000-5eed-7000-8000-001300000001")
    assert verify_unstored_share((SECRET,), TOKEN_OF_0_1_0, NOW) == prediction_id
    with pytest.raises(InvalidSignature):
        verify_unstored_share((SECRET,), TOKEN_OF_0_1_0, NOW + LIFETIME)
    with pytest.raises(InvalidSignature):
        verify_share((SECRET,), TOKEN_OF_0_1_0)
    with pytest.raises(InvalidSignature):
        verify_unstored_share((SECRET,), sign_share(SECRET, prediction_id), NOW)


def test_s26_a_share_token_with_another_secret_or_a_malformed_one_is_rejected() -> None:
    token = sign_share(SECRET, uuid4())
    for secret, invalid in (
        (SECRET + "x", token),
        (SECRET, token[:-1]),
        (SECRET, ""),
        (SECRET, "é.é"),
        (SECRET, "x" * 999),
    ):
        assert_rejected(invalid, secret)


@pytest.mark.parametrize(
    "step", [8, pytest.param(1, marks=pytest.mark.slow("it changes each character to each other one"))]
)
def test_s26_a_share_token_with_any_changed_character_is_rejected(step: int) -> None:
    """Includes the last character, of which base64 decoding ignores two bits."""
    for token in (sign_share(SECRET, uuid4()), TOKEN_OF_0_1_0):
        for position in range(len(token)):
            is_last = position == len(token) - 1
            for letter in LETTERS if is_last else LETTERS[position % step :: step]:
                altered = token[:position] + letter + token[position + 1 :]
                if altered != token:
                    assert_rejected(altered)
        for altered in (token + "=", token + "A", "." + token, token + ".", token.swapcase()):
            assert_rejected(altered)


def test_s26_a_signature_for_one_purpose_is_invalid_for_another() -> None:
    subject, expires = uuid4(), int((NOW + LIFETIME).timestamp())
    upload = sign_upload(SECRET, subject, NOW, LIFETIME)
    token = sign_share(SECRET, subject)
    payload, signature = token.split(".")
    for invalid in (f"{payload}.{upload.signature}", upload.signature):
        assert_rejected(invalid)
    for content in (str(subject), [str(subject), expires]):
        assert_rejected(URLSafeSerializer(SECRET, salt="another purpose").dumps(content))
    for invalid in (signature, token, generate_secret(subject, SECRET)):
        with pytest.raises(InvalidSignature):
            check_upload_signature((SECRET,), subject, expires, invalid, NOW)


def assert_rejected(token: str, secret: str = SECRET) -> None:
    """Check that a token is no token of a share, with or without a row."""
    with pytest.raises(InvalidSignature):
        verify_share((secret,), token)
    with pytest.raises(InvalidSignature):
        verify_unstored_share((secret,), token, NOW)
