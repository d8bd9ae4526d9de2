"""Tests of presigned uploads: creation, sending the bytes without a token, and use by a row."""

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest

from db.base import utc_now
from handlers.app import Application
from studio.media.signing import sign_upload
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import ClientResponse, url_path
from tests.support.sample_media import (
    build_orientation_image,
    encode_image,
    exif_with_location,
    open_image,
    png_bomb,
)

PHOTO = encode_image(build_orientation_image(), "JPEG", exif=exif_with_location(6))
JPEG = {"content-type": "image/jpeg"}


def create_presigned_url(client: Client, **body: object) -> dict:
    payload = {"filename": "../../my dress.jpg", "content_type": "image/jpeg"} | body
    response = client("POST", "/uploads/presigned-url", payload)
    assert (response.status, response.headers["cache-control"]) == (200, "no-store"), response.body
    return response.json()


def put_upload(
    anonymous: Client, upload: dict, content: bytes = PHOTO, headers: dict | None = None
) -> ClientResponse:
    return anonymous("PUT", url_path(upload["upload_url"]), body=content, headers=headers or JPEG)


def test_a_presigned_upload_has_a_url_for_the_bytes_and_one_for_the_file(
    app: Application, client: Client
) -> None:
    upload = create_presigned_url(client)
    assert upload["upload_url"].startswith(f"{app.settings.public_url}/api/v1/uploads/")
    assert upload["file_url"].startswith(f"{app.settings.public_url}/api/v1/files/media/")
    assert upload["file_url"].endswith("/file.jpg")
    assert (upload["upload_method"], upload["max_file_size"]) == ("PUT", 52_428_800)
    assert upload["expires_in_seconds"] == 900
    assert create_presigned_url(client, size=52_428_800)["expires_in_seconds"] > 900


def test_an_uploaded_phone_photo_becomes_a_cover_and_is_served_upright(
    client: Client, anonymous: Client
) -> None:
    upload = create_presigned_url(client)
    sent = put_upload(anonymous, upload)
    assert (sent.status, sent.body) == (204, b"")

    product = client("POST", "/products/", {"name": "Dress", "cover_image": upload["file_url"]})
    assert product.status == 201, product.body
    assert product.json()["cover_image"] == upload["file_url"]

    served = client("GET", url_path(upload["file_url"]))
    assert (served.status, served.headers["content-type"]) == (200, "image/jpeg")
    image = open_image(served.body)
    assert image.size == (80, 120)
    assert not image.getexif()

    late = put_upload(anonymous, upload)
    assert (late.status, late.json()["code"]) == (409, "upload_consumed")


def test_two_uploads_of_the_same_photo_share_one_file(client: Client, anonymous: Client) -> None:
    first, second = create_presigned_url(client), create_presigned_url(client)
    for upload in (first, second):
        assert put_upload(anonymous, upload).status == 204
    covers = [
        client("POST", "/products/", {"name": "Dress", "cover_image": url["file_url"]}).json()["cover_image"]
        for url in (first, second)
    ]
    assert covers == [first["file_url"], first["file_url"]]
    assert client("GET", url_path(second["file_url"])).body == client("GET", url_path(first["file_url"])).body


def test_an_upload_can_be_replaced_until_it_is_used(client: Client, anonymous: Client) -> None:
    upload = create_presigned_url(client)
    assert put_upload(anonymous, upload).status == 204
    assert (
        put_upload(
            anonymous,
            upload,
            encode_image(build_orientation_image(30, 20), "PNG"),
            {"content-type": "image/png"},
        ).status
        == 204
    )
    product = client("POST", "/products/", {"name": "Dress", "cover_image": upload["file_url"]})
    assert open_image(client("GET", url_path(product.json()["cover_image"])).body).size == (30, 20)


def test_s26_a_changed_upload_url_is_rejected(client: Client, anonymous: Client) -> None:
    path = url_path(create_presigned_url(client)["upload_url"])
    other_path = url_path(create_presigned_url(client)["upload_url"])
    for changed in (
        path[:-1] + ("0" if path[-1] != "0" else "1"),
        path.replace("expires=1", "expires=2"),
        path.partition("?")[0] + "?" + other_path.partition("?")[2],
    ):
        response = anonymous("PUT", changed, body=PHOTO, headers=JPEG)
        assert (response.status, response.json()["code"]) == (403, "invalid_signature")


def test_s26_an_expired_upload_is_not_found(app: Application, anonymous: Client) -> None:
    late = factories.make_upload(expires_at=utc_now() - timedelta(seconds=1))
    for upload_id in (late.id, uuid4()):
        signed = sign_upload(app.settings.secret_key, upload_id, utc_now(), timedelta(minutes=1))
        path = f"/uploads/{upload_id}?expires={signed.expires}&signature={signed.signature}"
        response = anonymous("PUT", path, body=PHOTO, headers=JPEG)
        assert (response.status, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"%PDF-1.7 named .jpg", 415, "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not_an_image"),
        (png_bomb(30_000, 30_000), 413, "too_large"),
        (PHOTO[: len(PHOTO) // 2], 422, "invalid_request"),
        (b"", 422, "invalid_request"),
    ],
)
def test_s11_bytes_that_are_not_an_image_are_rejected_and_not_stored(
    client: Client, anonymous: Client, content: bytes, status: int, code: str
) -> None:
    upload = create_presigned_url(client)
    response = put_upload(anonymous, upload, content)
    assert (response.status, response.json()["code"]) == (status, code), response.body
    unused = client("POST", "/products/", {"name": "Dress", "cover_image": upload["file_url"]})
    assert (unused.status, unused.json()["code"]) == (404, "not_found")
    assert put_upload(anonymous, upload).status == 204


def test_s26_an_upload_of_another_user_cannot_be_used(
    client: Client, anonymous: Client, client_for: Callable[..., Client]
) -> None:
    upload = create_presigned_url(client)
    put_upload(anonymous, upload)
    stranger = client_for(factories.make_user())
    used = stranger("POST", "/products/", {"name": "Dress", "cover_image": upload["file_url"]})
    assert (used.status, used.json()["code"]) == (404, "not_found")
    assert client("POST", "/products/", {"name": "Dress", "cover_image": upload["file_url"]}).status == 201
    assert stranger("GET", url_path(upload["file_url"])).status == 404
