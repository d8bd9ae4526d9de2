"""Guidelines through the API: their lists in order, references across scopes, and what cannot go."""

from __future__ import annotations

from uuid import UUID

from tests import factories
from tests.api.catalogue import House, code_of


def test_new_guidelines_have_the_defaults_of_the_contract(house: House) -> None:
    guidelines = house.create("/guidelines/", {"name": "Marketplace square"})
    assert guidelines == {
        "id": guidelines["id"],
        "created_at": guidelines["created_at"],
        "updated_at": guidelines["updated_at"],
        "owner_id": str(house.owner.id),
        "organization_id": str(house.organization.id),
        "name": "Marketplace square",
        "file_format": "WEBP",
        "background_preset_id": None,
        "resolution_preset_id": None,
        "shot_type_ids": [],
        "subject_ids": [],
        "margin_percent": 8,
        "quality": 90,
        "notes": None,
    }


def test_lists_keep_their_order_and_are_replaced_whole(house: House) -> None:
    first, second, third = (
        str(factories.make_shot_type(organization=house.organization).id) for _ in range(3)
    )
    guidelines = house.create("/guidelines/", {"name": "Shop", "shot_type_ids": [second, first]})
    path = f"/guidelines/{guidelines['id']}"
    assert house.client("GET", path).json()["shot_type_ids"] == [second, first]
    changed = house.client("PATCH", path, {"shot_type_ids": [third, second]}).json()
    assert changed["shot_type_ids"] == [third, second]
    assert changed["updated_at"] > guidelines["updated_at"]
    assert house.client("GET", path).json() == changed
    assert house.client("PATCH", path, {"name": "Shop 2"}).json()["shot_type_ids"] == [third, second]
    assert house.client("PATCH", path, {"shot_type_ids": []}).json()["shot_type_ids"] == []


def test_one_id_in_two_spellings_counts_once(house: House) -> None:
    shot_type = factories.make_shot_type(organization=house.organization)
    both = [str(shot_type.id), str(shot_type.id).upper()]
    guidelines = house.create("/guidelines/", {"name": "Shop", "shot_type_ids": both})
    assert [UUID(row_id) for row_id in guidelines["shot_type_ids"]] == [shot_type.id]


def test_what_guidelines_refer_to_is_of_their_scope_or_public(house: House) -> None:
    public = factories.make_subject(owner_id=None, public=True)
    personal = factories.make_background_preset(owner=house.owner)
    foreign = factories.make_shot_type()
    assert house.create("/guidelines/", {"name": "Shop", "subject_ids": [str(public.id)]})
    path = f"/guidelines/{house.scope}"
    reply = house.client("POST", path, {"name": "Shop", "background_preset_id": str(personal.id)})
    assert code_of(reply) == (409, "scope_mismatch")
    reply = house.client("POST", path, {"name": "Shop", "shot_type_ids": [str(foreign.id)]})
    assert code_of(reply) == (404, "not_found")


def test_guidelines_of_a_shooting_cannot_be_deleted(house: House) -> None:
    guidelines = factories.make_guidelines(organization=house.organization)
    factories.make_shooting(organization=house.organization, default_guidelines_id=guidelines.id)
    assert code_of(house.client("DELETE", f"/guidelines/{guidelines.id}")) == (409, "in_use")


def test_guidelines_without_users_go_with_their_lists(house: House) -> None:
    shot_type = factories.make_shot_type(organization=house.organization)
    guidelines = house.create("/guidelines/", {"name": "Shop", "shot_type_ids": [str(shot_type.id)]})
    assert house.client("DELETE", f"/guidelines/{guidelines['id']}").status == 204
    assert house.client("DELETE", f"/shot-types/{shot_type.id}").status == 204
