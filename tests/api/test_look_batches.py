"""Looks of many products in one request, and copies of shootings."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from db.base import utc_now
from db.models import AuditEvent, Look, RowCount, Shot
from db.session import Database
from studio.shootings import look_batches
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer


@pytest.fixture
def owned(customer: Customer) -> dict[str, Any]:
    return {"organization": customer.organization}


def list_looks(client: Client, shooting_id: object) -> list[dict[str, Any]]:
    """Return the looks of a shooting in the order of their creation."""
    rows: list[dict[str, Any]] = client("GET", f"/shootings/{shooting_id}/looks").json()["data"]
    return rows[::-1]


def make_body(owned: dict[str, Any], products: int) -> dict[str, Any]:
    return {
        "main_product_ids": [str(factories.make_product(**owned).id) for _ in range(products)],
        "subject_id": str(factories.make_subject(**owned).id),
        "style_id": str(factories.make_style(public=True).id),
        "shot_type_ids": [str(factories.make_shot_type(**owned).id) for _ in range(2)],
        "guidelines_ids": [str(factories.make_guidelines(**owned).id)],
        "notes": "Sleeves rolled up.",
    }


def test_each_product_gets_a_look_with_the_same_properties(client: Client, owned: dict[str, Any]) -> None:
    shooting, body = factories.make_shooting(**owned), make_body(owned, 3)
    response = client("POST", f"/shootings/{shooting.id}/looks/batch", body)
    assert response.status == 200, response.body
    looks = response.json()["data"]
    assert looks == list_looks(client, shooting.id)
    assert [look["main_product_id"] for look in looks] == body.pop("main_product_ids")
    for look in looks:
        assert {name: look[name] for name in body} == body
        assert (look["product_ids"], look["shooting_id"]) == ([], str(shooting.id))
        assert [shot["shot_type_id"] for shot in look["shots"]] == body["shot_type_ids"]
        assert {shot["status"] for shot in look["shots"]} == {"pending"}
    shown = client("GET", f"/shootings/{shooting.id}").json()
    assert (shown["looks_count"], shown["shots_count"], shown["shot_status"]) == (3, 6, "pending")


def test_all_looks_of_a_request_are_created_or_none(client: Client, owned: dict[str, Any]) -> None:
    shooting, body = factories.make_shooting(**owned), make_body(owned, 2)
    path = f"/shootings/{shooting.id}/looks/batch"
    unknown = {**body, "main_product_ids": [*body["main_product_ids"], str(factories.make_product().id)]}
    response = client("POST", path, unknown)
    assert (status_and_code(response), response.json()["pointer"]) == (
        (404, "not_found"),
        "/main_product_ids/2",
    )
    assert list_looks(client, shooting.id) == []


def test_a_repeated_request_with_a_key_creates_no_more_looks(client: Client, owned: dict[str, Any]) -> None:
    shooting, body = factories.make_shooting(**owned), make_body(owned, 1)
    headers = {"Idempotency-Key": "spring"}
    path = f"/shootings/{shooting.id}/looks/batch"
    first, second = (client("POST", path, body, headers=headers) for _ in range(2))
    assert (first.status, second.json()) == (200, first.json())
    assert len(list_looks(client, shooting.id)) == 1


def test_the_largest_batch_is_created(client: Client, owned: dict[str, Any], database: Database) -> None:
    shooting, body = factories.make_shooting(**owned), make_body(owned, 100)
    body["shot_type_ids"] = [str(factories.make_shot_type(**owned).id) for _ in range(20)]
    assert client("POST", f"/shootings/{shooting.id}/looks/batch", body).status == 200
    assert client("GET", f"/shots/?shooting_id={shooting.id}&limit=1").json()["count"] == 2000
    with database.transaction(write=False) as reading:
        counted = select(func.sum(RowCount.number)).where(
            RowCount.table_name == "shots",
            RowCount.column_name == "",
            RowCount.scope_id == owned["organization"].id,
        )
        assert reading.scalar(counted) == 2000
    body["main_product_ids"].append(str(factories.make_product(**owned).id))
    assert client("POST", f"/shootings/{shooting.id}/looks/batch", body).status == 422


def make_reviewed_shooting(client: Client, owned: dict[str, Any]) -> tuple[Any, Look]:
    """Return a shooting with two looks, and the one whose shot is approved."""
    shooting = factories.make_shooting(
        **owned, name="Spring", season="2027", phase="CLOSED", archived=True, test_shooting_held=True,
        external_id="S-1", custom_metadata={"campaign": "27"}, description="Coats", collection="Outdoor",
        brand="Nord", brand_id=factories.make_brand(**owned).id, require_test_shooting=True,
        default_guidelines_id=factories.make_guidelines(**owned).id,
    )  # fmt: skip
    types = [factories.make_shot_type(**owned).id for _ in range(2)]
    look = factories.make_look(
        shooting,
        shot_type_ids=types[::-1],
        product_ids=[factories.make_product(**owned).id],
        guidelines_ids=[factories.make_guidelines(**owned).id],
        subject_id=factories.make_subject(**owned).id,
        style_id=factories.make_style(**owned).id,
        notes="Sleeves rolled up.",
        external_id="L-1",
        custom_metadata={"drop": "1"},
    )
    own_keys: dict[str, Any] = {"external_id": "H-1", "custom_metadata": {"view": "front"}}
    shot = factories.make_shot(
        look, shot_type_id=types[0], notes="Closer.", status="pending_review", **own_keys
    )
    factories.make_shot(look, shot_type_id=types[1], status="rejected", rejection_reason="Blurred.")
    generation = factories.make_generation(shot, status="completed", progress=100)
    prediction = factories.make_prediction(generation)
    assert client("POST", f"/predictions/{prediction.id}/approve", {}).status == 200
    factories.make_shot(factories.make_look(shooting, shot_type_ids=[types[0]]), shot_type_id=types[0])
    return shooting, look


def test_a_copy_of_a_shooting_has_its_looks_and_pending_shots(
    client: Client, owned: dict[str, Any], customer: Customer
) -> None:
    shooting, look = make_reviewed_shooting(client, owned)
    original = client("GET", f"/shootings/{shooting.id}").json()
    response = client("POST", f"/shootings/{shooting.id}/duplicate")
    assert response.status == 201, response.body
    copy = response.json()
    assert response.headers["location"] == f"/api/v1/shootings/{copy['id']}"
    assert client("GET", f"/shootings/{copy['id']}").json() == copy
    changed = {
        "id": copy["id"], "created_at": copy["created_at"], "updated_at": copy["updated_at"],
        "owner_id": str(customer.owner.id), "name": "Spring (copy)", "due_date": copy["due_date"],
        "archived": False, "phase": "BRIEF", "shot_status": "pending", "shots_approved_count": 0,
        "external_id": None,
    }  # fmt: skip
    assert copy == original | changed
    assert copy["id"] != original["id"]
    due = datetime.fromisoformat(copy["due_date"]) - utc_now()
    assert timedelta(days=29) < due < timedelta(days=31)

    originals, copies = list_looks(client, shooting.id), list_looks(client, copy["id"])
    lists = ("shot_type_ids", "product_ids", "guidelines_ids")
    same = (*lists, "main_product_id", "subject_id", "style_id", "notes", "organization_id", "metadata")
    assert {row["external_id"] for row in copies} == {None}
    assert [{name: row[name] for name in same} for row in copies] == [
        {name: row[name] for name in same} for row in originals
    ]
    assert copies[0]["product_ids"] == [str(row_id) for row_id in look.product_ids]
    shots = client("GET", f"/shots/?shooting_id={copy['id']}").json()["data"]
    undecided = {
        "status": "pending", "approved_prediction_id": None, "generation_id": None, "predictions_count": 0,
        "rejection_reason": None, "revision_note": None,
    }  # fmt: skip
    assert [{name: shot[name] for name in undecided} for shot in shots] == [undecided] * 3
    noted = [(shot["notes"], shot["metadata"], shot["external_id"]) for shot in shots if shot["notes"]]
    assert noted == [("Closer.", {"view": "front"}, None)]


def test_a_copy_can_have_a_name_and_a_due_date(client: Client, owned: dict[str, Any]) -> None:
    shooting = factories.make_shooting(**owned, name="S" * 120, require_test_shooting=True, phase="CLOSED")
    body = {"name": "Summer", "due_date": "2027-04-15T12:00:00.000000Z"}
    copy = client("POST", f"/shootings/{shooting.id}/duplicate", body).json()
    assert {name: copy[name] for name in body} == body
    assert (copy["phase"], copy["require_test_shooting"]) == ("BRIEF", True)
    names = [client("POST", f"/shootings/{shooting.id}/duplicate").json()["name"] for _ in range(2)]
    assert names == ["S" * 113 + " (copy)", "S" * 111 + " (copy 2)"]


def test_a_superuser_copies_a_personal_shooting_for_its_owner(
    superuser: Client, client: Client, customer: Customer
) -> None:
    shooting = factories.make_shooting(owner=customer.owner)
    copy = superuser("POST", f"/shootings/{shooting.id}/duplicate").json()
    assert (copy["owner_id"], copy["organization_id"]) == (str(customer.owner.id), None)
    assert client("GET", f"/shootings/{copy['id']}").status == 200


def test_a_large_shooting_is_not_copied(
    client: Client, owned: dict[str, Any], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_batches, "MAX_COPIED_SHOTS", 2)
    shooting, _ = make_reviewed_shooting(client, owned)
    factories.make_shot(factories.make_look(shooting))
    response = client("POST", f"/shootings/{shooting.id}/duplicate")
    assert status_and_code(response) == (409, "shooting_too_large")
    assert response.json()["limit"] == 2
    with database.transaction(write=False) as reading:
        assert (
            reading.scalar(select(func.count()).select_from(Shot).where(Shot.shooting_id != shooting.id)) == 0
        )


def test_the_events_name_the_copy_and_the_looks(
    client: Client, owned: dict[str, Any], database: Database
) -> None:
    shooting, body = factories.make_shooting(**owned), make_body(owned, 2)
    looks = client("POST", f"/shootings/{shooting.id}/looks/batch", body).json()["data"]
    copy = client("POST", f"/shootings/{shooting.id}/duplicate").json()
    with database.transaction(write=False) as reading:
        created, duplicated = (
            reading.scalars(select(AuditEvent).where(AuditEvent.action == action)).one()
            for action in ("create_looks", "duplicate_shooting")
        )
    assert (str(created.target_id), str(duplicated.target_id)) == (str(shooting.id), copy["id"])
    assert {created.organization_id, duplicated.organization_id} == {owned["organization"].id}
    change = {"field": "look_ids", "before": None, "after": [look["id"] for look in looks]}
    assert created.changes == [change]
