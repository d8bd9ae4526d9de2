"""Guidelines through the API: ordered lists of ids, references across tenants, and deletion."""

from __future__ import annotations

from uuid import UUID

from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer


def test_new_guidelines_have_the_defaults_of_the_contract(customer: Customer) -> None:
    guidelines = customer.create("/guidelines/", {"name": "Marketplace square"})
    assert guidelines == {
        "id": guidelines["id"],
        "created_at": guidelines["created_at"],
        "updated_at": guidelines["updated_at"],
        "owner_id": str(customer.owner.id),
        "organization_id": str(customer.organization.id),
        "name": "Marketplace square",
        "file_format": "WEBP",
        "background_preset_id": None,
        "resolution_preset_id": None,
        "shot_type_ids": [],
        "subject_ids": [],
        "margin_percent": 8,
        "quality": 90,
        "notes": None,
        "marketplace": None,
    }


def test_lists_of_ids_keep_their_order_and_are_replaced_as_a_whole(customer: Customer) -> None:
    first, second, third = (
        str(factories.make_shot_type(organization=customer.organization).id) for _ in range(3)
    )
    guidelines = customer.create("/guidelines/", {"name": "Shop", "shot_type_ids": [second, first]})
    path = f"/guidelines/{guidelines['id']}"
    assert customer.client("GET", path).json()["shot_type_ids"] == [second, first]
    changed = customer.client("PATCH", path, {"shot_type_ids": [third, second]}).json()
    assert changed["shot_type_ids"] == [third, second]
    assert changed["updated_at"] > guidelines["updated_at"]
    assert customer.client("GET", path).json() == changed
    assert customer.client("PATCH", path, {"name": "Shop 2"}).json()["shot_type_ids"] == [third, second]
    assert customer.client("PATCH", path, {"shot_type_ids": []}).json()["shot_type_ids"] == []


def test_an_id_in_lower_and_upper_case_is_stored_once(customer: Customer) -> None:
    shot_type = factories.make_shot_type(organization=customer.organization)
    both = [str(shot_type.id), str(shot_type.id).upper()]
    guidelines = customer.create("/guidelines/", {"name": "Shop", "shot_type_ids": both})
    assert [UUID(row_id) for row_id in guidelines["shot_type_ids"]] == [shot_type.id]


def test_guidelines_can_reference_only_public_rows_and_rows_of_their_tenant(customer: Customer) -> None:
    public = factories.make_subject(owner_id=None, public=True)
    personal = factories.make_background_preset(owner=customer.owner)
    foreign = factories.make_shot_type()
    assert customer.create("/guidelines/", {"name": "Shop", "subject_ids": [str(public.id)]})
    path = f"/guidelines/{customer.organization_query}"
    response = customer.client("POST", path, {"name": "Shop", "background_preset_id": str(personal.id)})
    assert status_and_code(response) == (409, "scope_mismatch")
    response = customer.client("POST", path, {"name": "Shop", "shot_type_ids": [str(foreign.id)]})
    assert status_and_code(response) == (404, "not_found")


def test_guidelines_have_a_marketplace_until_it_is_cleared(customer: Customer) -> None:
    guidelines = customer.create("/guidelines/", {"name": "Amazon", "marketplace": "AMAZON_MAIN"})
    path = f"/guidelines/{guidelines['id']}"
    assert customer.client("GET", path).json()["marketplace"] == "AMAZON_MAIN"
    assert customer.client("PATCH", path, {"name": "Amazon 2"}).json()["marketplace"] == "AMAZON_MAIN"
    assert customer.client("PATCH", path, {"marketplace": None}).json()["marketplace"] is None
    response = customer.client("PATCH", path, {"marketplace": "MOON_BAZAAR"})
    assert status_and_code(response) == (422, "invalid_request")


def test_guidelines_of_a_shooting_cannot_be_deleted(customer: Customer) -> None:
    guidelines = factories.make_guidelines(organization=customer.organization)
    factories.make_shooting(organization=customer.organization, default_guidelines_id=guidelines.id)
    assert status_and_code(customer.client("DELETE", f"/guidelines/{guidelines.id}")) == (409, "in_use")


def test_unused_guidelines_are_deleted_with_their_lists(customer: Customer) -> None:
    shot_type = factories.make_shot_type(organization=customer.organization)
    guidelines = customer.create("/guidelines/", {"name": "Shop", "shot_type_ids": [str(shot_type.id)]})
    assert customer.client("DELETE", f"/guidelines/{guidelines['id']}").status == 204
    assert customer.client("DELETE", f"/shot-types/{shot_type.id}").status == 204
