"""Background presets through the API: kinds, images, publishing and deletion."""

from __future__ import annotations

from handlers.app import Application
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer


def test_creating_a_background_preset_returns_all_its_fields(customer: Customer) -> None:
    preset = customer.create("/background-presets/", {"name": "Warm", "kind": "SOLID", "color": "#FAF6F0"})
    assert preset == {
        "id": preset["id"],
        "created_at": preset["created_at"],
        "updated_at": preset["updated_at"],
        "owner_id": str(customer.owner.id),
        "organization_id": str(customer.organization.id),
        "name": "Warm",
        "kind": "SOLID",
        "color": "#FAF6F0",
        "color_end": None,
        "image_url": None,
        "shadow": "SOFT",
        "public": False,
    }


def test_the_image_of_a_background_preset_must_belong_to_its_tenant(
    app: Application, customer: Customer
) -> None:
    def media_url(**tenant: object) -> str:
        return f"{app.settings.public_url}/api/v1/files/media/{factories.make_media(**tenant).id}/file.jpg"

    own, personal, foreign = (
        media_url(organization=customer.organization),
        media_url(owner=customer.owner),
        media_url(),
    )
    body = {"name": "Wall", "kind": "IMAGE"}
    assert customer.create("/background-presets/", {**body, "image_url": own})["image_url"] == own
    path = f"/background-presets/{customer.organization_query}"
    assert status_and_code(customer.client("POST", path, {**body, "image_url": personal})) == (
        409,
        "scope_mismatch",
    )
    assert status_and_code(customer.client("POST", path, {**body, "image_url": foreign})) == (
        404,
        "not_found",
    )


def test_only_unused_background_presets_can_be_deleted(customer: Customer) -> None:
    preset = customer.create("/background-presets/", {"name": "Warm", "kind": "SOLID"})
    guidelines = customer.create("/guidelines/", {"name": "Shop", "background_preset_id": preset["id"]})
    assert status_and_code(customer.client("DELETE", f"/background-presets/{preset['id']}")) == (
        409,
        "in_use",
    )
    assert customer.client("DELETE", f"/guidelines/{guidelines['id']}").status == 204
    assert customer.client("DELETE", f"/background-presets/{preset['id']}").status == 204


def test_only_superusers_can_publish(customer: Customer) -> None:
    preset = customer.create("/background-presets/", {"name": "Warm", "kind": "SOLID"})
    response = customer.client("PATCH", f"/background-presets/{preset['id']}", {"public": True})
    assert status_and_code(response) == (409, "public_requires_superuser")
