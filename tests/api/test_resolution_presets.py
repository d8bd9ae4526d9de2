"""Resolution presets through the API: sizes, publishing and deletion."""

from __future__ import annotations

from tests.api.conftest import Client
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer


def test_creating_and_updating_a_resolution_preset_returns_all_its_fields(customer: Customer) -> None:
    preset = customer.create("/resolution-presets/", {"name": "Square 1200", "width": 1200, "height": 1200})
    assert preset == {
        "id": preset["id"],
        "created_at": preset["created_at"],
        "updated_at": preset["updated_at"],
        "owner_id": str(customer.owner.id),
        "organization_id": str(customer.organization.id),
        "name": "Square 1200",
        "width": 1200,
        "height": 1200,
        "public": False,
    }
    changed = customer.client("PATCH", f"/resolution-presets/{preset['id']}", {"height": 1500}).json()
    assert changed == preset | {"height": 1500, "updated_at": changed["updated_at"]}


def test_a_resolution_preset_in_use_cannot_be_deleted(customer: Customer) -> None:
    preset = customer.create("/resolution-presets/", {"name": "Square", "width": 1200, "height": 1200})
    customer.create("/brands/", {"name": "Atelier", "default_resolution_preset_id": preset["id"]})
    assert status_and_code(customer.client("DELETE", f"/resolution-presets/{preset['id']}")) == (
        409,
        "in_use",
    )


def test_only_superusers_can_publish(customer: Customer, superuser: Client) -> None:
    body = {"name": "Square", "width": 1200, "height": 1200, "public": True}
    assert status_and_code(customer.client("POST", "/resolution-presets/", body)) == (
        409,
        "public_requires_superuser",
    )
    assert superuser("POST", "/resolution-presets/", body).json()["public"] is True
