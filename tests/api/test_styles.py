"""Styles through the API: defaults, covers, publishing, and what cannot go."""

from __future__ import annotations

from collections.abc import Callable

from handlers.app import Application
from tests import factories
from tests.api.catalogue import House, code_of
from tests.api.conftest import Client


def test_a_new_style_changes_nothing_unless_told(house: House) -> None:
    style = house.create("/styles/", {"name": "Evening lamp", "temperature": 25})
    assert style == {
        "id": style["id"],
        "created_at": style["created_at"],
        "updated_at": style["updated_at"],
        "owner_id": str(house.owner.id),
        "organization_id": str(house.organization.id),
        "name": "Evening lamp",
        "slug": "evening-lamp",
        "description": None,
        "prompt": None,
        "tone": None,
        "lighting": None,
        "contrast": 0,
        "saturation": 0,
        "temperature": 25,
        "lora_weight": 0.8,
        "cover_image": None,
        "public": False,
    }


def test_the_cover_of_a_style_is_seen_by_everybody_while_the_style_is_public(
    app: Application, house: House, superuser: Client, client_of: Callable[..., Client]
) -> None:
    media = factories.make_media(organization=house.organization)
    address = f"{app.settings.public_url}/api/v1/files/media/{media.id}/file.jpg"
    style = house.create("/styles/", {"name": "Evening lamp", "cover_image": address})
    path, stranger = f"/styles/{style['id']}", client_of(factories.make_user())

    def may_use_the_cover() -> bool:
        reply = stranger("POST", "/styles/", {"name": "Mine", "cover_image": address})
        return reply.status == 201

    assert not may_use_the_cover()
    assert superuser("PATCH", path, {"public": True}).json()["public"] is True
    assert stranger("GET", path).json()["cover_image"] == address
    assert may_use_the_cover()
    assert superuser("DELETE", path).status == 204
    assert not may_use_the_cover()


def test_a_style_that_a_brand_falls_back_to_cannot_be_deleted(house: House) -> None:
    style = house.create("/styles/", {"name": "Evening lamp"})
    brand = house.create("/brands/", {"name": "Atelier", "default_style_id": style["id"]})
    assert code_of(house.client("DELETE", f"/styles/{style['id']}")) == (409, "in_use")
    assert house.client("DELETE", f"/brands/{brand['id']}").status == 204
    assert house.client("DELETE", f"/styles/{style['id']}").status == 204


def test_only_superusers_publish(house: House) -> None:
    reply = house.client("POST", f"/styles/{house.scope}", {"name": "Mine", "public": True})
    assert code_of(reply) == (409, "public_requires_superuser")
