"""Tests of image URLs of other servers: fetched once before the transaction, and stored like uploads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import func, select

from db.models import MediaResource
from db.session import Database, current_session
from handlers.app import Application
from handlers.pipeline.admission.limits import Limit
from studio.infrastructure.fair_slots import Requester
from studio.infrastructure.http_client import SafeHttpClient
from studio.media import fetching
from tests.contract.tenant import Tenant
from tests.support.app import auth_headers, replace_service
from tests.support.client import ClientResponse, status_and_code
from tests.support.factories.catalog import Customer
from tests.support.rejections import Rejections
from tests.support.sample_media import (
    build_orientation_image,
    encode_image,
    exif_with_location,
    open_image,
    png_bomb,
)
from tests.support.servers.image_hosts import IMAGE_URL_FIELDS, ImageUrlField, build_request_with_url
from tools.servers.http_recorder import HttpRecorder, StubResponse, run_http_recorder

PHOTO = encode_image(build_orientation_image(), "JPEG", exif=exif_with_location(6))


class ImageHost:
    """A remote server that returns the configured response, by default a photo."""

    def __init__(self) -> None:
        self.response = StubResponse(body=PHOTO, headers={"Content-Type": "text/html"})
        self.recorder: HttpRecorder

    @property
    def url(self) -> str:
        """The URL of the image."""
        return f"{self.recorder.url}/dress.jpg"


@pytest.fixture
def image_host(app: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageHost]:
    """Yield a remote server that the application may send requests to."""
    host = ImageHost()
    with run_http_recorder(lambda _request: host.response) as host.recorder:
        replace_service(monkeypatch, app, http_client=SafeHttpClient([host.recorder.host]))
        yield host


def create_with_cover(customer: Customer, url: str, headers: dict[str, str] | None = None) -> ClientResponse:
    body = {"name": "Wrap dress", "cover_image": url}
    return customer.client("POST", f"/products/{customer.organization_query}", body, headers=headers)


def count_images(database: Database) -> int:
    with database.transaction(write=False):
        # unscoped: counts the rows of all tenants
        return current_session().scalar(select(func.count()).select_from(MediaResource)) or 0


def test_the_list_of_image_url_fields_matches_the_contract() -> None:
    assert len(IMAGE_URL_FIELDS) == 17
    assert {field.name for field in IMAGE_URL_FIELDS} == {
        "logo_url", "cover_image", "image_url", "file_url", "product_image", "product2_image", "mask_url",
    }  # fmt: skip


@pytest.mark.parametrize("field", IMAGE_URL_FIELDS, ids=":".join)
def test_every_image_url_field_accepts_a_remote_url(
    field: ImageUrlField, app: Application, database: Database, image_host: ImageHost
) -> None:
    tenant = Tenant(app.settings)
    if field.name == "mask_url":
        # A mask has the proportions of its photo, here 600 x 800.
        image_host.response = StubResponse(body=encode_image(Image.new("L", (60, 80), 255), "PNG"))
    before = count_images(database)
    request = build_request_with_url(tenant, field, image_host.url)
    response = request.send(app, auth_headers(app, tenant.owner))
    assert response.status == request.operation.success_status, response.body
    assert [(request.method, request.path) for request in image_host.recorder.requests] == [
        ("GET", "/dress.jpg")
    ]
    assert count_images(database) == before + 1
    url = response.json().get(field.name, response.json().get("url"))
    if field.operation_id == "create_generation":
        # A generation shows the inputs as the client sent them.
        assert url == image_host.url
    else:
        assert url.startswith(f"{app.settings.public_url}/api/v1/files/media/")


def test_a_fetched_image_is_stored_like_an_upload_and_the_request_reveals_nothing(
    customer: Customer, image_host: ImageHost
) -> None:
    product = create_with_cover(customer, image_host.url).json()
    served = customer.client("GET", product["cover_image"].partition("/api/v1")[2])
    assert served.headers["content-type"] == "image/jpeg"
    image = open_image(served.body)
    assert image.size == (80, 120)
    assert not image.getexif()
    (request,) = image_host.recorder.requests
    assert request.headers == {
        "host": image_host.recorder.host,
        "accept-encoding": "identity",
        "accept": "image/*",
        "user-agent": "Sartiq-Images/1.0",
    }


def test_an_image_that_is_already_stored_is_not_stored_again(
    customer: Customer, image_host: ImageHost
) -> None:
    first, second = (create_with_cover(customer, f"{image_host.url}?{number}").json() for number in range(2))
    assert first["cover_image"] == second["cover_image"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"%PDF-1.7", "send a JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "send a JPEG"),
        (b"", "not a JPEG"),
        (PHOTO[: len(PHOTO) // 2], "cannot be read"),
        (png_bomb(30_000, 30_000), "pixels"),
        (PHOTO + bytes(200_000), "bytes"),
    ],
)
def test_content_that_is_not_accepted_as_an_upload_is_a_conflict(
    customer: Customer, image_host: ImageHost, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    monkeypatch.setattr(fetching, "MAX_FILE_BYTES", 200_000)
    image_host.response = StubResponse(body=content, headers={"Content-Type": "image/jpeg"})
    response = create_with_cover(customer, image_host.url)
    assert status_and_code(response) == (409, "image_not_usable")
    assert reason in response.json()["detail"]


@pytest.mark.parametrize("status", [201, 204, 206, 301, 304, 401, 404, 418, 500, 503])
def test_every_status_except_200_is_the_same_conflict(
    customer: Customer, image_host: ImageHost, status: int
) -> None:
    image_host.response = StubResponse(status, b"" if status in (204, 304) else PHOTO)
    response = create_with_cover(customer, image_host.url)
    assert status_and_code(response) == (409, "image_not_fetched")
    assert response.json()["detail"] == "The image could not be fetched from its URL"


def test_an_unreachable_or_slow_server_is_the_same_conflict(
    app: Application, customer: Customer, image_host: ImageHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.2)
    finished = threading.Event()
    image_host.response = StubResponse(write=lambda _connection: finished.wait(5))
    slow = create_with_cover(customer, image_host.url)
    finished.set()
    with run_http_recorder() as stopped:
        pass
    replace_service(monkeypatch, app, http_client=SafeHttpClient([stopped.host]))
    unreachable = create_with_cover(customer, stopped.url)
    for response in (slow, unreachable):
        assert status_and_code(response) == (409, "image_not_fetched")
        assert response.json()["detail"] == "The image could not be fetched from its URL"


@pytest.mark.parametrize(("redirects", "status"), [(3, 201), (4, 409)])
def test_three_redirects_are_followed(
    app: Application, customer: Customer, monkeypatch: pytest.MonkeyPatch, redirects: int, status: int
) -> None:
    def respond(request: Any) -> StubResponse:
        hop = int(request.path.strip("/"))
        return (
            StubResponse(302, headers={"Location": f"/{hop + 1}"})
            if hop < redirects
            else StubResponse(body=PHOTO)
        )

    with run_http_recorder(respond) as server:
        replace_service(monkeypatch, app, http_client=SafeHttpClient([server.host]))
        response = create_with_cover(customer, f"{server.url}/0")
    assert response.status == status, response.body
    assert len(server.requests) == 4


@pytest.mark.parametrize("path", ["", "/api/v1/brands/", "/api/v1/files/", "/api/v1/docs"])
def test_the_server_sends_no_request_to_itself(customer: Customer, app: Application, path: str) -> None:
    response = create_with_cover(customer, f"{app.settings.public_url}{path}")
    assert status_and_code(response) == (409, "target_not_allowed")


def test_a_caller_without_permission_cannot_make_the_server_fetch_an_image(
    app: Application, database: Database, image_host: ImageHost
) -> None:
    tenant, other = Tenant(app.settings), Tenant(app.settings)
    for field in IMAGE_URL_FIELDS:
        request = build_request_with_url(tenant, field, image_host.url)
        viewer = request.send(app, auth_headers(app, tenant.viewer))
        if field.operation_id != "create_organization":
            assert viewer.status == 403, (field, viewer.body)
            foreign = request.send(app, auth_headers(app, other.owner))
            assert foreign.status == 404, (field, foreign.body)
    del image_host.recorder.requests[:-1]
    assert [request.path for request in image_host.recorder.requests] == ["/dress.jpg"], (
        "the new organization's logo"
    )


def test_a_failed_precondition_or_unknown_reference_fetches_nothing(
    customer: Customer, image_host: ImageHost
) -> None:
    product = customer.create("/products/", {"name": "Wrap dress"})
    old = {"if-match": '"another version"'}
    body = {"cover_image": image_host.url}
    assert customer.client("PATCH", f"/products/{product['id']}", body, headers=old).status == 412
    unknown = {"shot_id": "01990000-5eed-7000-8000-0009000000ff", "product_image": image_host.url}
    assert customer.client("POST", f"/generations/{customer.organization_query}", unknown).status == 404
    assert image_host.recorder.requests == []


def test_no_transaction_is_open_while_an_image_is_fetched(
    customer: Customer, image_host: ImageHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def normalize(data: bytes, max_wait_seconds: float) -> Any:
        with pytest.raises(RuntimeError, match="no running transaction"):
            current_session()
        sizes.append(len(data))
        return original(data, max_wait_seconds)

    original = fetching.normalize
    monkeypatch.setattr(fetching, "normalize", normalize)
    assert create_with_cover(customer, image_host.url).status == 201
    assert sizes == [len(PHOTO)]


def test_an_idempotency_key_can_be_reused_after_a_failed_fetch_and_a_replay_fetches_nothing(
    customer: Customer, image_host: ImageHost
) -> None:
    key = {"idempotency-key": "one-cover"}
    image_host.response = StubResponse(503)
    assert status_and_code(create_with_cover(customer, image_host.url, key)) == (409, "image_not_fetched")
    image_host.response = StubResponse(body=b"maintenance")
    assert status_and_code(create_with_cover(customer, image_host.url, key)) == (409, "image_not_usable")
    image_host.response = StubResponse(body=PHOTO)
    first, replay = (create_with_cover(customer, image_host.url, key) for _ in range(2))
    assert (first.status, replay.status) == (201, 201)
    assert replay.body == first.body
    assert len(image_host.recorder.requests) == 3


def test_a_rejected_request_stores_no_image(
    customer: Customer, database: Database, image_host: ImageHost
) -> None:
    customer.create("/products/", {"name": "Wrap dress", "sku": "AN-2041"})
    body = {"name": "Wrap dress", "sku": "AN-2041", "cover_image": image_host.url}
    assert status_and_code(customer.client("POST", f"/products/{customer.organization_query}", body)) == (
        409,
        "sku_taken",
    )
    assert count_images(database) == 0


def test_half_of_the_threads_are_reserved_for_requests_without_image_fetches(
    app: Application, customer: Customer, image_host: ImageHost, rejections: Rejections
) -> None:
    slots = app.services.fetch_slots
    others = [Requester.of(f"account {number}") for number in range(app.settings.request_threads // 2)]
    assert all(slots.try_take(other) for other in others)
    try:
        response = create_with_cover(customer, image_host.url)
        assert status_and_code(response) == (503, "unavailable")
        assert int(response.headers["retry-after"]) > 0
        assert rejections.take() == {(503, "unavailable", Limit.FETCH_SLOTS)}
        assert image_host.recorder.requests == []
    finally:
        for other in others:
            slots.release(other)
    assert create_with_cover(customer, image_host.url).status == 201


def test_both_images_of_a_generation_request_are_fetched(
    app: Application, database: Database, image_host: ImageHost
) -> None:
    tenant = Tenant(app.settings)
    request = build_request_with_url(
        tenant, ImageUrlField("create_generation", "product_image"), image_host.url
    )
    request.body["product2_image"] = f"{image_host.url}?2"
    assert request.send(app, auth_headers(app, tenant.owner)).status == 202
    assert [request.path for request in image_host.recorder.requests] == ["/dress.jpg", "/dress.jpg?2"]
