"""Shot types through the API: labels, system rows, publishing and deletion."""

from __future__ import annotations

from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer


def test_label_and_slug_of_a_shot_type_default_to_its_name(customer: Customer) -> None:
    shot_type = customer.create("/shot-types/", {"name": "Collar detail", "framing": "DETAIL"})
    assert shot_type == {
        "id": shot_type["id"],
        "created_at": shot_type["created_at"],
        "updated_at": shot_type["updated_at"],
        "owner_id": str(customer.owner.id),
        "organization_id": str(customer.organization.id),
        "name": "Collar detail",
        "slug": "collar-detail",
        "label": "Collar detail",
        "description": None,
        "framing": "DETAIL",
        "view_angle": "FRONT",
        "default_padding_percent": 8,
        "public": False,
    }
    labeled = customer.create("/shot-types/", {"name": "Collar", "label": "C1", "framing": "DETAIL"})
    assert labeled["label"] == "C1"


def test_only_superusers_can_change_system_rows(customer: Customer, superuser: Client) -> None:
    system = factories.make_shot_type(owner_id=None, public=True)
    path = f"/shot-types/{system.id}"
    assert customer.client("GET", path).json()["owner_id"] is None
    assert status_and_code(customer.client("PATCH", path, {"name": "Mine"})) == (
        403,
        "not_enough_permissions",
    )
    assert status_and_code(customer.client("DELETE", path)) == (403, "not_enough_permissions")
    assert superuser("PATCH", path, {"label": "Ours"}).json()["label"] == "Ours"
    assert superuser("DELETE", path).status == 204


def test_a_tenant_can_use_the_slug_of_a_system_row(customer: Customer) -> None:
    factories.make_shot_type(owner_id=None, public=True, slug="front-packshot")
    own = customer.create("/shot-types/", {"name": "Front packshot", "framing": "STILL_LIFE"})
    assert own["slug"] == "front-packshot"


def test_a_shot_type_that_guidelines_use_cannot_be_deleted(customer: Customer) -> None:
    shot_type = customer.create("/shot-types/", {"name": "Collar", "framing": "DETAIL"})
    customer.create("/guidelines/", {"name": "Shop", "shot_type_ids": [shot_type["id"]]})
    assert status_and_code(customer.client("DELETE", f"/shot-types/{shot_type['id']}")) == (409, "in_use")


def test_a_row_published_by_a_superuser_is_listed_for_all_users(
    customer: Customer, superuser: Client
) -> None:
    created = superuser("POST", "/shot-types/", {"name": "Collar", "framing": "DETAIL", "public": True})
    listed = customer.client("GET", f"/shot-types/{customer.organization_query}").json()["data"]
    assert [row["id"] for row in listed] == [created.json()["id"]]
    assert (
        customer.client("GET", f"/shot-types/{customer.organization_query}&include_public=false").json()[
            "data"
        ]
        == []
    )
