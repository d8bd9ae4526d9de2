"""Background presets through the API: kinds, their pictures, publishing, and what cannot go."""

from __future__ import annotations

from handlers.app import Application
from tests import factories
from tests.api.catalogue import House, code_of


def test_a_new_background_is_answered_whole(house: House) -> None:
    preset = house.create("/background-presets/", {"name": "Warm", "kind": "SOLID", "color": "#FAF6F0"})
    assert preset == {
        "id": preset["id"],
        "created_at": preset["created_at"],
        "updated_at": preset["updated_at"],
        "owner_id": str(house.owner.id),
        "organization_id": str(house.organization.id),
        "name": "Warm",
        "kind": "SOLID",
        "color": "#FAF6F0",
        "color_end": None,
        "image_url": None,
        "shadow": "SOFT",
        "public": False,
    }


def test_the_picture_of_a_background_is_of_its_scope(app: Application, house: House) -> None:
    def address(**scope: object) -> str:
        return f"{app.settings.public_url}/api/v1/files/media/{factories.make_media(**scope).id}/file.jpg"

    own, personal, foreign = (
        address(organization=house.organization),
        address(owner=house.owner),
        address(),
    )
    body = {"name": "Wall", "kind": "IMAGE"}
    assert house.create("/background-presets/", {**body, "image_url": own})["image_url"] == own
    path = f"/background-presets/{house.scope}"
    assert code_of(house.client("POST", path, {**body, "image_url": personal})) == (409, "scope_mismatch")
    assert code_of(house.client("POST", path, {**body, "image_url": foreign})) == (404, "not_found")


def test_a_background_in_use_cannot_be_deleted_and_an_unused_one_goes(house: House) -> None:
    preset = house.create("/background-presets/", {"name": "Warm", "kind": "SOLID"})
    guidelines = house.create("/guidelines/", {"name": "Shop", "background_preset_id": preset["id"]})
    assert code_of(house.client("DELETE", f"/background-presets/{preset['id']}")) == (409, "in_use")
    assert house.client("DELETE", f"/guidelines/{guidelines['id']}").status == 204
    assert house.client("DELETE", f"/background-presets/{preset['id']}").status == 204


def test_only_superusers_publish(house: House) -> None:
    preset = house.create("/background-presets/", {"name": "Warm", "kind": "SOLID"})
    reply = house.client("PATCH", f"/background-presets/{preset['id']}", {"public": True})
    assert code_of(reply) == (409, "public_requires_superuser")
