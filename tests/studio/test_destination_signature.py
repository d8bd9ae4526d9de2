"""Test signatures for S3 against the examples of its documentation and against the signer of botocore."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from studio.destinations.signature import AccessKey, encode_path, sign_headers

KEY = AccessKey("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
TIME = datetime(2013, 5, 24, tzinfo=UTC)


def read_signature(headers: dict[str, str]) -> tuple[str, ...]:
    """Return the credential, the names of the signed headers and the signature."""
    pattern = r"AWS4-HMAC-SHA256 Credential=(.+), SignedHeaders=(.+), Signature=([0-9a-f]{64})"
    match = re.fullmatch(pattern, headers["Authorization"])
    assert match is not None
    return match.groups()


def test_the_example_of_a_put_request_in_the_documentation_of_s3_has_its_signature() -> None:
    """Amazon S3 API Reference, "Signature Calculations for the Authorization Header", PUT Object."""
    headers = {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}
    url = f"https://examplebucket.s3.amazonaws.com/{encode_path('test$file.text')}"
    digest = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()
    signed = sign_headers(KEY, "PUT", url, headers, digest, TIME)
    assert read_signature(signed) == (
        "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request",
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    )


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    "url",
    [
        "https://s3.eu-central-1.amazonaws.com/bucket/",
        "https://s3.eu-central-1.amazonaws.com:443/bucket/key",
        "http://127.0.0.1:9000/bucket/folder/a b+c~d_é/ü.jpg",
        "https://bucket.s3.example.com/%/a%20b/(1)!*'.png",
        "https://S3.EXAMPLE.com/bucket/x//y/",
    ],
)
def test_a_signature_equals_that_of_botocore(method: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    url = f"{scheme}://{host}/{encode_path(path)}"
    headers = {"Content-Type": "image/jpeg", "User-Agent": "Shop/1.0", "X-Amz-Meta-Note": "  two   words "}
    digest = hashlib.sha256(b"image").hexdigest()
    request = AWSRequest(method, url, headers={**headers, "X-Amz-Content-SHA256": digest}, data=b"image")
    request.context["payload_signing_enabled"] = True
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: TIME.replace(tzinfo=None))
    S3SigV4Auth(Credentials(KEY.access_key_id, KEY.secret_access_key), "s3", "eu-central-1").add_auth(request)
    key = AccessKey(KEY.access_key_id, KEY.secret_access_key, "eu-central-1")
    signed = sign_headers(key, method, url, headers, digest, TIME)
    assert read_signature(signed) == read_signature(dict(request.headers))
