"""Requests of the public documentation that a client may send unchanged."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from db.base import utc_now
from handlers.app import Application
from tests.api.conftest import Client
from tests.support import factories
from tests.support.factories.catalog import Customer, post_form
from tests.support.mailbox import list_emails_to
from tests.support.sample_media import read_heic
from tests.support.scenarios import PhotographedProduct


def test_a_shooting_without_due_date_is_due_in_30_days(customer: Customer) -> None:
    brand = customer.create("/brands/", {"name": "Atelier"})
    shooting = customer.create("/shootings/", {"name": "Autumn", "brand_id": brand["id"]})
    due = datetime.fromisoformat(shooting["due_date"])
    assert abs(due - utc_now() - timedelta(days=30)) < timedelta(minutes=1)


@pytest.mark.parametrize("fraction", ["", ".5", ".1234567", ".123456789"])
def test_a_time_can_have_up_to_nine_fractional_digits(customer: Customer, fraction: str) -> None:
    shooting = customer.create(
        "/shootings/", {"name": "Autumn", "due_date": f"2027-03-01T00:00:00{fraction}Z"}
    )
    assert shooting["due_date"].startswith("2027-03-01T00:00:00")
    listed = customer.client(
        "GET", f"/shootings/{customer.organization_query}&created_after=2026-01-01T00:00:00{fraction}Z"
    )
    assert listed.json()["count"] == 1


def test_null_stands_for_the_default_type_and_strategy_of_a_generation(
    client_for: Client, scenario: PhotographedProduct
) -> None:
    client = client_for(scenario.owner)
    body = {
        "product_id": str(scenario.product.id),
        "generation_type": None,
        "generation_strategy": None,
        "shot_type": None,
    }
    response = client("POST", f"/generations/?organization_id={scenario.organization.id}", body)
    assert response.status == 202, response.body
    assert (response.json()["generation_type"], response.json()["generation_strategy"]) == (
        "BASE",
        "GENERATE",
    )
    assert response.json()["framing"] is None


def test_shot_type_is_the_framing_where_the_request_has_none(
    client_for: Client, scenario: PhotographedProduct
) -> None:
    client = client_for(scenario.owner)
    path = f"/generations/?organization_id={scenario.organization.id}"
    body = {"product_id": str(scenario.product.id), "shot_type": "CLOSE_UP"}
    assert client("POST", path, body).json()["framing"] == "CLOSE_UP"
    assert client("POST", path, body | {"framing": "full body"}).json()["framing"] == "full body"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/generations/", {"garment_placement_base_image_media": None}, 422),
        ("GET", "/brands/?utm_source=newsletter", None, 422),
        ("GET", "/styles/?include_public=True", None, 422),
        ("GET", "/brands/?limit=101", None, 422),
        ("POST", "/uploads/presigned-url", {"filename": "a.tiff", "content_type": "image/tiff"}, 422),
        ("POST", "/shooting-looks", {}, 404),
        ("GET", "/brand-collections/", None, 404),
        ("GET", "/seasons/", None, 404),
    ],
)
def test_some_documented_requests_are_rejected_by_decision(
    customer: Customer, method: str, path: str, body: dict[str, str] | None, status: int
) -> None:
    """The reasons are in `docs/guides/compatibility.md`."""
    assert customer.client(method, path, body).status == status


def test_an_image_can_be_downloaded_as_a_gif(client_for: Client, scenario: PhotographedProduct) -> None:
    client = client_for(scenario.owner)
    response = client("GET", f"/files/media/{scenario.media.id}/file.jpg?type=gif")
    assert (response.status, response.headers["content-type"]) == (200, "image/gif")
    assert response.body.startswith(b"GIF8")


def test_the_token_endpoint_ignores_unknown_and_empty_parameters(client_for: Client) -> None:
    user = factories.make_user(email="dana@example.com")
    form = b"username=dana%40example.com&password=wrong&grant_type=&scope=&audience=shop"
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = client_for(None)("POST", "/login/access-token", body=form, headers=headers)
    assert (response.status, response.json()["code"]) == (401, "incorrect_credentials"), user
    twice = client_for(None)("POST", "/login/access-token", body=form + b"&scope=a", headers=headers)
    assert [violation["loc"] for violation in twice.json()["detail"]] == [["body", "scope"]]


def test_an_action_without_properties_needs_no_body(
    client_for: Client, scenario: PhotographedProduct
) -> None:
    client = client_for(scenario.owner)
    generated = client("POST", f"/shots/{scenario.shot.id}/generate")
    assert generated.status == 202, generated.body
    approved = client("POST", f"/shots/{scenario.shot.id}/approve")
    assert (approved.status, approved.json()["code"]) == (409, "shot_busy")


def test_image_jpg_is_an_alias_of_image_jpeg(customer: Customer) -> None:
    for content_type in ("image/jpg", "image/jpeg"):
        body = {"filename": "dress.jpg", "content_type": content_type}
        response = customer.client("POST", "/uploads/presigned-url", body)
        assert (response.status, response.json()["file_url"][-9:]) == (200, "/file.jpg")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1jpeg", "a HEIF image without HEVC"),
        (b"II*\x00\x08\x00\x00\x00", "a TIFF image"),
        (b"MM\x00+\x00\x08\x00\x00", "a TIFF image"),
        (b"%PDF-1.7", "a PDF document"),
    ],
)
def test_a_file_of_another_format_is_named(customer: Customer, content: bytes, found: str) -> None:
    product = customer.create("/products/", {"name": "Dress"})
    response = post_form(customer.client, f"/products/{product['id']}/images", content, type="front")
    assert (response.status, response.json()["code"]) == (415, "not_an_image")
    expected = f"The content is {found}: send a JPEG, PNG, WEBP, AVIF, HEIC or GIF image"
    assert response.json()["detail"] == expected


@pytest.mark.parametrize("media_type", ["image/heic", "image/heif"])
def test_a_heic_photo_is_accepted_in_each_way(customer: Customer, media_type: str) -> None:
    photo = read_heic("tiles")
    product = customer.create("/products/", {"name": "Dress"})
    of_form = post_form(customer.client, f"/products/{product['id']}/images", photo, type="front")
    assert of_form.status == 201, of_form.body
    body = {"filename": "IMG_0042.HEIC", "content_type": media_type}
    upload = customer.client("POST", "/uploads/presigned-url", body).json()
    put = customer.client(
        "PUT", upload["upload_url"].split("/api/v1")[1], body=photo, headers={"content-type": media_type}
    )
    assert put.status == 204, put.body
    of_url = customer.client(
        "POST", f"/products/{product['id']}/images/from-url", {"file_url": upload["file_url"], "type": "back"}
    )
    assert of_url.status == 201, of_url.body
    for response in (of_form, of_url):
        file = customer.client("GET", response.json()["url"].split("/api/v1")[1])
        assert (file.status, file.headers["content-type"]) == (200, "image/jpeg")


def test_a_patch_can_have_the_media_type_of_a_merge_patch(customer: Customer) -> None:
    brand = customer.create("/brands/", {"name": "Atelier"})
    headers = {"content-type": "application/merge-patch+json"}
    changed = customer.client("PATCH", f"/brands/{brand['id']}", body=b'{"name": "Studio"}', headers=headers)
    assert (changed.status, changed.json()["name"]) == (200, "Studio")
    created = customer.client("POST", "/brands/", body=b'{"name": "Studio"}', headers=headers)
    assert (created.status, created.json()["code"]) == (415, "unsupported_media_type")


def test_health_is_a_short_path_of_health_check(client_for: Client) -> None:
    response = client_for(None)("GET", "/utils/health")
    assert (response.status, response.json()) == (200, {"status": "ok"})


def test_a_superuser_can_call_test_email(app: Application, superuser: Client, customer: Customer) -> None:
    path = "/utils/test-email/?email_to=ops%40example.com"
    response = superuser("POST", path)
    assert (response.status, response.json()) == (200, {"message": "Test email sent"})
    (text,) = list_emails_to(app, "ops@example.com")
    assert text.startswith("Hello,\n\nThe mail settings of this server work.\n")
    assert customer.client("POST", path).status == 403
