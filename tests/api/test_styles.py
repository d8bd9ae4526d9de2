"""Styles through the API: defaults, covers, publishing and deletion."""

from __future__ import annotations

from collections.abc import Callable

from handlers.app import Application
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer


def test_a_new_style_has_neutral_defaults(customer: Customer) -> None:
    style = customer.create("/styles/", {"name": "Evening lamp", "temperature": 25})
    assert style == {
        "id": style["id"],
        "created_at": style["created_at"],
        "updated_at": style["updated_at"],
        "owner_id": str(customer.owner.id),
        "organization_id": str(customer.organization.id),
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


def test_all_users_can_use_the_cover_of_a_style_while_it_is_public(
    app: Application, customer: Customer, superuser: Client, client_for: Callable[..., Client]
) -> None:
    media = factories.make_media(organization=customer.organization)
    url = f"{app.settings.public_url}/api/v1/files/media/{media.id}/file.jpg"
    style = customer.create("/styles/", {"name": "Evening lamp", "cover_image": url})
    path, stranger = f"/styles/{style['id']}", client_for(factories.make_user())

    def can_use_cover() -> bool:
        response = stranger("POST", "/styles/", {"name": "Mine", "cover_image": url})
        return response.status == 201

    assert not can_use_cover()
    assert superuser("PATCH", path, {"public": True}).json()["public"] is True
    assert stranger("GET", path).json()["cover_image"] == url
    assert can_use_cover()
    assert superuser("DELETE", path).status == 204
    assert not can_use_cover()


def test_the_default_style_of_a_brand_cannot_be_deleted(customer: Customer) -> None:
    style = customer.create("/styles/", {"name": "Evening lamp"})
    brand = customer.create("/brands/", {"name": "Atelier", "default_style_id": style["id"]})
    assert status_and_code(customer.client("DELETE", f"/styles/{style['id']}")) == (409, "in_use")
    assert customer.client("DELETE", f"/brands/{brand['id']}").status == 204
    assert customer.client("DELETE", f"/styles/{style['id']}").status == 204


def test_only_superusers_can_publish(customer: Customer) -> None:
    response = customer.client(
        "POST", f"/styles/{customer.organization_query}", {"name": "Mine", "public": True}
    )
    assert status_and_code(response) == (409, "public_requires_superuser")
