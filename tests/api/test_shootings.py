"""Shootings and looks through the API: phases, inline guidelines, shots of looks, and deletion."""

from __future__ import annotations

from typing import Any

import pytest

from db.models import Guidelines, Prediction, Shot
from db.session import Database
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.scenarios import PhotographedProduct

DUE = "2027-01-15T12:00:00.000000Z"


@pytest.fixture
def organization_query(scenario: PhotographedProduct) -> str:
    return f"organization_id={scenario.organization.id}"


def create(client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = client("POST", path, body)
    assert response.status == 201, response.body
    row: dict[str, Any] = response.json()
    assert client("GET", response.headers["location"].removeprefix("/api/v1")).json() == row
    return row


def test_a_new_shooting_is_empty_and_in_production(
    client: Client, scenario: PhotographedProduct, organization_query: str
) -> None:
    created = create(client, f"/shootings/?{organization_query}", {"name": "Spring", "due_date": DUE})
    assert created["owner_id"] == str(scenario.owner.id)
    assert created["organization_id"] == str(scenario.organization.id)
    fields = {name: created[name] for name in created if name not in ("id", "created_at", "updated_at")}
    assert fields == {
        "owner_id": str(scenario.owner.id), "organization_id": str(scenario.organization.id),
        "external_id": None, "metadata": {},
        "name": "Spring", "description": None, "due_date": DUE, "archived": False, "season": None,
        "collection": None, "brand": None, "brand_id": None, "default_guidelines_id": None,
        "phase": "PRODUCTION", "require_test_shooting": False, "shot_status": "empty",
        "looks_count": 0, "shots_count": 0, "shots_approved_count": 0,
    }  # fmt: skip


def test_organization_id_is_taken_from_the_body_or_must_be_the_same_in_both(
    client: Client, scenario: PhotographedProduct, organization_query: str
) -> None:
    organization_id = str(scenario.organization.id)
    body = {"name": "Spring", "due_date": DUE, "organization_id": organization_id}
    for path in ("/shootings/", f"/shootings/?{organization_query}"):
        created = client("POST", path, body)
        assert (created.status, created.json()["organization_id"]) == (201, organization_id)
    other = body | {"organization_id": str(factories.make_organization(scenario.owner).id)}
    rejected = client("POST", f"/shootings/?{organization_query}", other)
    assert status_and_code(rejected) == (409, "scope_mismatch")
    foreign = body | {"organization_id": str(factories.make_organization(factories.make_user()).id)}
    assert status_and_code(client("POST", "/shootings/", foreign)) == (404, "not_found")


def test_inline_guidelines_are_created_together_with_the_shooting_or_not_at_all(
    client: Client, database: Database, scenario: PhotographedProduct, organization_query: str
) -> None:
    body: dict[str, Any] = {"name": "Spring", "due_date": DUE, "default_guidelines": {"name": "Shop"}}
    created = create(client, f"/shootings/?{organization_query}", body)
    guidelines = client("GET", f"/guidelines/{created['default_guidelines_id']}").json()
    assert (guidelines["name"], guidelines["file_format"], guidelines["quality"]) == ("Shop", "WEBP", 90)
    assert guidelines["organization_id"] == str(scenario.organization.id)

    with database.transaction(write=False) as reading:
        before = reading.query(Guidelines).count()
    foreign = factories.make_shot_type()
    body["default_guidelines"] = {"name": "Shop", "shot_type_ids": [str(foreign.id)]}
    assert status_and_code(client("POST", f"/shootings/?{organization_query}", body)) == (404, "not_found")
    with database.transaction(write=False) as reading:
        assert reading.query(Guidelines).count() == before


def test_phases_follow_the_allowed_transitions(client: Client, organization_query: str) -> None:
    body = {"name": "Spring", "due_date": DUE, "phase": "BRIEF"}
    path = f"/shootings/{create(client, f'/shootings/?{organization_query}', body)['id']}"
    assert status_and_code(client("PATCH", path, {"phase": "AGREEMENT"})) == (409, "invalid_transition")
    for phase in ("PRODUCTS_SELECTION", "AGREEMENT", "PRODUCTION", "CLOSED", "PRODUCTION"):
        assert client("PATCH", path, {"phase": phase}).json()["phase"] == phase


def test_production_starts_only_after_a_required_test_shooting(
    client: Client, organization_query: str
) -> None:
    body = {"name": "Spring", "due_date": DUE, "phase": "BRIEF", "require_test_shooting": True}
    path = f"/shootings/{create(client, f'/shootings/?{organization_query}', body)['id']}"
    for phase in ("PRODUCTS_SELECTION", "AGREEMENT"):
        client("PATCH", path, {"phase": phase})
    assert status_and_code(client("PATCH", path, {"phase": "PRODUCTION"})) == (409, "invalid_transition")
    for phase in ("PRODUCTS_SELECTION", "BRIEF", "TEST_SHOOTING", "PRODUCTS_SELECTION", "AGREEMENT"):
        assert client("PATCH", path, {"phase": phase}).status == 200
    assert client("PATCH", path, {"phase": "PRODUCTION"}).json()["phase"] == "PRODUCTION"


def test_a_shooting_created_in_production_cannot_require_a_test_shooting(client: Client) -> None:
    body = {"name": "Spring", "due_date": DUE, "phase": "PRODUCTION", "require_test_shooting": True}
    assert client("POST", "/shootings/", body).status == 422


@pytest.mark.parametrize(
    ("shot_statuses", "shooting_status"),
    [
        (["pending", "pending"], "pending"),
        (["pending", "generating"], "in_progress"),
        (["rejected", "approved"], "in_progress"),
        (["pending_review", "approved"], "in_review"),
        (["approved", "approved"], "approved"),
    ],
)
def test_the_status_of_a_shooting_summarizes_its_shots(
    client: Client, scenario: PhotographedProduct, shot_statuses: list[str], shooting_status: str
) -> None:
    shooting = factories.make_shooting(**scenario.ownership)
    look = factories.make_look(shooting)
    for status in shot_statuses:
        factories.make_shot(look, status=status)
    shown = client("GET", f"/shootings/{shooting.id}").json()
    assert shown["shot_status"] == shooting_status
    assert (shown["looks_count"], shown["shots_count"]) == (1, 2)
    assert shown["shots_approved_count"] == shot_statuses.count("approved")


def test_shootings_are_filtered_by_brand_phase_and_name(
    client: Client, scenario: PhotographedProduct, organization_query: str
) -> None:
    brand = factories.make_brand(**scenario.ownership)
    shooting = factories.make_shooting(
        **scenario.ownership, name="100% linen", brand_id=brand.id, phase="BRIEF"
    )

    def found(query: str) -> list[str]:
        response = client("GET", f"/shootings/?{organization_query}&{query}")
        assert response.status == 200, response.body
        return [row["id"] for row in response.json()["data"]]

    for query in (f"brand_id={brand.id}", "phase=BRIEF", "q=100%25", "q=LINEN&archived=false"):
        assert found(query) == [str(shooting.id)]
    assert found("q=10_%25") == []


def test_creating_a_look_creates_one_shot_for_each_shot_type_in_order(
    client: Client, scenario: PhotographedProduct
) -> None:
    shot_types = [factories.make_shot_type(**scenario.ownership) for _ in range(3)]
    shot_type_ids = [str(row.id) for row in reversed(shot_types)]
    body = {"main_product_id": str(scenario.product.id), "shot_type_ids": shot_type_ids}
    look = create(client, f"/shootings/{scenario.shooting.id}/looks", body)
    assert look["shot_type_ids"] == shot_type_ids
    assert [shot["shot_type_id"] for shot in look["shots"]] == shot_type_ids
    assert {shot["status"] for shot in look["shots"]} == {"pending"}
    assert client("GET", f"/shots/{look['shots'][0]['id']}").json()["look_id"] == look["id"]


def test_changing_the_shot_types_of_a_look_creates_and_deletes_shots(
    client: Client, scenario: PhotographedProduct
) -> None:
    first, second, third = (str(factories.make_shot_type(**scenario.ownership).id) for _ in range(3))
    body = {"main_product_id": str(scenario.product.id), "shot_type_ids": [first, second]}
    look = create(client, f"/shootings/{scenario.shooting.id}/looks", body)
    kept = look["shots"][1]["id"]
    path = f"/shootings/{scenario.shooting.id}/looks/{look['id']}"
    changed = client("PATCH", path, {"shot_type_ids": [third, second]}).json()
    assert [shot["shot_type_id"] for shot in changed["shots"]] == [third, second]
    assert changed["shots"][1]["id"] == kept
    assert changed["updated_at"] > look["updated_at"]
    assert client("GET", path).json() == changed
    assert client("GET", f"/shots/{look['shots'][0]['id']}").status == 404


@pytest.mark.parametrize("state", ["generating", "pending_review"])
def test_a_shot_type_whose_shot_has_predictions_or_is_generating_cannot_be_removed(
    client: Client, scenario: PhotographedProduct, state: str
) -> None:
    look = factories.make_look(scenario.shooting, shot_type_ids=[scenario.shot_type.id])
    shot = factories.make_shot(look, shot_type_id=scenario.shot_type.id, status=state)
    if state == "pending_review":
        factories.make_prediction(factories.make_generation(shot, status="completed"))
    other = factories.make_shot_type(**scenario.ownership)
    path = f"/shootings/{scenario.shooting.id}/looks/{look.id}"
    response = client("PATCH", path, {"shot_type_ids": [str(other.id)]})
    assert status_and_code(response) == (409, "shot_has_predictions")
    assert [shot["id"] for shot in client("GET", path).json()["shots"]] == [str(shot.id)]


def test_a_look_cannot_reference_rows_of_another_tenant(
    client: Client, scenario: PhotographedProduct
) -> None:
    personal = factories.make_product(owner=scenario.owner)
    body = {"main_product_id": str(personal.id), "shot_type_ids": [str(scenario.shot_type.id)]}
    path = f"/shootings/{scenario.shooting.id}/looks"
    assert status_and_code(client("POST", path, body)) == (409, "scope_mismatch")
    body["main_product_id"] = str(factories.make_product().id)
    assert status_and_code(client("POST", path, body)) == (404, "not_found")


@pytest.mark.parametrize("what", ["shooting", "look"])
def test_shootings_and_looks_cannot_be_deleted_while_a_generation_runs(
    client: Client, database: Database, scenario: PhotographedProduct, what: str
) -> None:
    prediction = factories.make_prediction(factories.make_generation(scenario.shot, status="completed"))
    running = factories.make_generation(scenario.shot, status="running")
    path = f"/shootings/{scenario.shooting.id}"
    path += f"/looks/{scenario.look.id}" if what == "look" else ""
    assert status_and_code(client("DELETE", path)) == (409, "generation_running")
    with database.transaction(write=True) as writing:
        writing.merge(running).status = "failed"
    assert client("DELETE", path).status == 204
    assert client("GET", path).status == 404
    with database.transaction(write=False) as reading:
        assert reading.query(Shot).filter(Shot.id == scenario.shot.id).count() == 0
        assert reading.query(Prediction).filter(Prediction.id == prediction.id).count() == 0


def test_looks_are_listed_with_their_shots(client: Client, scenario: PhotographedProduct) -> None:
    response = client("GET", f"/shootings/{scenario.shooting.id}/looks")
    assert [look["id"] for look in response.json()["data"]] == [str(scenario.look.id)]
    assert [shot["id"] for shot in response.json()["data"][0]["shots"]] == [str(scenario.shot.id)]
