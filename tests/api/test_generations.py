"""Generations through the API: creation, lists, cancellation, retries and rejected requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.models import Subscription
from db.session import Database
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.generations import complete_generation, limit_open_generations
from tests.support.scenarios import PhotographedProduct, run_pending_generations


def test_a_generation_needs_only_a_product(
    client: Client, scenario: PhotographedProduct, path: str, database: Database, storage: LocalDisk
) -> None:
    body = {"product_id": str(scenario.product.id), "width": 96, "height": 128, "batch_size": 2}
    response = client("POST", path, body)
    assert response.status == 202, response.body
    assert response.json()["shot_id"] is None
    assert run_pending_generations(database, storage) == 1
    done = client("GET", f"/generations/{response.json()['id']}").json()
    assert done["status"] == "completed"
    assert {(row["width"], row["height"], row["shot_id"]) for row in done["predictions"]} == {(96, 128, None)}
    approved = client("POST", f"/predictions/{done['predictions'][0]['id']}/approve", {}).json()
    assert approved["status"] == "approved"


def test_a_generation_returns_the_parameters_of_its_request(
    client: Client, scenario: PhotographedProduct, path: str
) -> None:
    body = {
        "product_id": str(scenario.product.id),
        "steps": 12,
        "extra_prompt": "calm and bright",
        "min_confidence_score": 1,
        "width": 96,
    }
    shown = client("POST", path, body).json()
    assert {name: shown[name] for name in body} == body
    assert (shown["batch_size"], shown["num_predictions"], shown["tool"]) == (1, 1, "BASE_GENERATION")
    assert isinstance(shown["seed"], int)
    assert shown["urls"]["self"] == f"http://localhost:8000/api/v1/generations/{shown['id']}"


def test_a_photo_can_be_given_by_its_url(client: Client, scenario: PhotographedProduct, path: str) -> None:
    url = client("GET", f"/products/{scenario.product.id}").json()["images"][0]["url"]
    assert client("POST", path, {"product_image": url}).status == 202


def test_a_shot_of_another_tenant_is_rejected(client: Client, scenario: PhotographedProduct) -> None:
    response = client("POST", "/generations/", {"shot_id": str(scenario.shot.id)})
    assert status_and_code(response) == (409, "scope_mismatch")


def test_a_request_without_inputs_is_rejected(client: Client, path: str) -> None:
    assert status_and_code(client("POST", path, {})) == (409, "nothing_to_generate")


def test_queue_positions_start_at_one_and_follow_the_order_of_requests(
    client: Client, scenario: PhotographedProduct, path: str
) -> None:
    body = {"product_id": str(scenario.product.id)}
    first, second = (client("POST", path, body).json() for _ in range(2))
    assert (first["queue_position"], second["queue_position"]) == (1, 2)
    listed = client("GET", path + "&status=pending").json()["data"]
    assert [(row["id"], row["queue_position"]) for row in listed] == [(second["id"], 2), (first["id"], 1)]


def test_the_start_is_estimated_from_the_position_and_the_speed_of_the_queue(
    client: Client, scenario: PhotographedProduct, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"product_id": str(scenario.product.id)}
    first = client("POST", path, body).json()
    # No generation was completed yet.
    assert (first["queue_position"], first["estimated_start_at"]) == (1, None)
    now = datetime(2026, 11, 2, 9, 15, 30, tzinfo=UTC)
    monkeypatch.setattr("studio.generations.estimates.utc_now", lambda: now)
    started = now - timedelta(hours=1)
    # The last 20 took 100 seconds each, an older one much longer.
    for age, seconds in [(30, 9_000), *((age, 100) for age in range(20))]:
        factories.make_generation(
            owner=scenario.owner, status="completed", created_at=started - timedelta(minutes=age),
            started_at=started, completed_at=started + timedelta(seconds=seconds),
        )  # fmt: skip
    second = client("POST", path, body).json()
    assert (second["queue_position"], second["estimated_start_at"]) == (2, "2026-11-02T09:19:00.000000Z")
    for _ in range(2):
        factories.make_generation(owner=scenario.owner, status="running", started_at=now)
    listed = client("GET", path + "&status=pending").json()["data"]
    assert [row["estimated_start_at"] for row in listed] == [
        "2026-11-02T09:18:00.000000Z",
        "2026-11-02T09:17:00.000000Z",
    ]
    shown = client("GET", f"/generations/{second['id']}").json()
    assert shown == listed[0]
    canceled = client("POST", f"/generations/{second['id']}/cancel").json()
    assert (canceled["queue_position"], canceled["estimated_start_at"]) == (None, None)


def test_generations_are_filtered_by_shot_status_and_strategy(
    client: Client, scenario: PhotographedProduct, path: str, database: Database, storage: LocalDisk
) -> None:
    done = complete_generation(client, scenario.shot, database, storage, num_predictions=1)
    for query in (f"shot_id={scenario.shot.id}", "status=completed", "generation_strategy=GENERATE"):
        listed = client("GET", f"{path}&{query}").json()
        assert [row["id"] for row in listed["data"]] == [done["id"]]
        assert listed["data"][0] == done
    assert client("GET", f"{path}&status=failed").json()["count"] == 0


def test_personal_generations_are_charged_to_their_owner(
    client: Client, scenario: PhotographedProduct
) -> None:
    product = factories.make_product(owner=scenario.owner)
    factories.make_product_image(product, media_id=factories.make_media(owner=scenario.owner).id)
    assert client("POST", "/generations/", {"product_id": str(product.id)}).json()["cost_credits"] == 1


def request_generation(
    client: Client, scenario: PhotographedProduct, path: str, **body: object
) -> dict[str, Any]:
    response = client("POST", path, {"product_id": str(scenario.product.id), **body})
    assert response.status == 202, response.body
    generation: dict[str, Any] = response.json()
    return generation


def test_an_unfinished_generation_has_a_retry_after_header(
    client: Client, scenario: PhotographedProduct, path: str, database: Database, storage: LocalDisk
) -> None:
    generation_path = f"/generations/{request_generation(client, scenario, path)['id']}"
    assert client("GET", generation_path).headers["retry-after"] == "1"
    run_pending_generations(database, storage)
    assert "retry-after" not in client("GET", generation_path).headers


def test_canceling_is_idempotent(client: Client, scenario: PhotographedProduct, path: str) -> None:
    generation = request_generation(client, scenario, path, batch_size=3)
    generation_path = f"/generations/{generation['id']}"
    first, second = (client("POST", f"{generation_path}/cancel") for _ in range(2))
    assert (first.status, second.status) == (200, 200)
    canceled = first.json()
    assert (canceled["status"], canceled["cost_credits"], canceled["error"]) == ("canceled", 0, None)
    assert canceled["cancel_requested_at"] <= canceled["completed_at"]
    assert canceled["queue_position"] is None
    assert second.json() == canceled == client("GET", generation_path).json()
    assert second.headers["etag"] == client("GET", generation_path).headers["etag"]
    assert [row["id"] for row in client("GET", f"{path}&status=canceled").json()["data"]] == [
        generation["id"]
    ]


def test_a_deadline_is_stored_with_the_request(
    client: Client, scenario: PhotographedProduct, path: str
) -> None:
    generation = request_generation(client, scenario, path, cancel_after_seconds=3600)
    assert generation["cancel_after_seconds"] == 3600
    time_limit = datetime.fromisoformat(generation["deadline_at"]) - datetime.fromisoformat(
        generation["created_at"]
    )
    assert abs(time_limit.total_seconds() - 3600) < 5
    from_shot = client("POST", f"/shots/{scenario.shot.id}/generate", {"cancel_after_seconds": 5}).json()
    assert (from_shot["cancel_after_seconds"], request_generation(client, scenario, path)["deadline_at"]) == (
        5,
        None,
    )
    assert client("POST", path, {"cancel_after_seconds": 4}).status == 422


def test_a_retry_creates_a_generation_with_the_same_inputs(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    original = client("POST", f"/shots/{scenario.shot.id}/generate", {"num_predictions": 2}).json()
    retry_path = f"/generations/{original['id']}/retry"
    assert status_and_code(client("POST", retry_path)) == (409, "invalid_transition")
    client("POST", f"/generations/{original['id']}/cancel")
    response = client("POST", retry_path)
    retried = response.json()
    assert (response.status, response.headers["location"]) == (202, f"/api/v1/generations/{retried['id']}")
    own_fields = {"id", "created_at", "updated_at", "status", "urls", "cost_credits", "queue_position",
           "retry_of_id", "completed_at", "cancel_requested_at", "predictions"}  # fmt: skip
    shared_fields = client("GET", f"/generations/{original['id']}").json().keys() - own_fields
    assert {name: retried[name] for name in shared_fields} == {name: original[name] for name in shared_fields}
    assert (retried["retry_of_id"], retried["status"], retried["cost_credits"]) == (
        original["id"],
        "pending",
        2,
    )
    busy = client("POST", retry_path)
    assert status_and_code(busy) == (409, "shot_busy")
    assert busy.json()["conflicts_with"] == [
        {"resource_type": "generation", "count": 1, "ids": [retried["id"]]}
    ]
    assert run_pending_generations(database, storage) == 1
    assert client("GET", f"/shots/{scenario.shot.id}").json()["predictions_count"] == 2
    assert status_and_code(client("POST", f"/generations/{retried['id']}/retry")) == (
        409,
        "invalid_transition",
    )


def test_a_retry_without_credits_or_queue_capacity_is_rejected(
    client: Client,
    scenario: PhotographedProduct,
    path: str,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = request_generation(client, scenario, path, batch_size=8)
    client("POST", f"/generations/{original['id']}/cancel")
    retry_path = f"/generations/{original['id']}/retry"
    with database.transaction(write=True) as session:
        session.get_one(Subscription, scenario.subscription.id).credits_used = 13
    assert status_and_code(client("POST", retry_path)) == (409, "out_of_credits")
    with database.transaction(write=True) as session:
        session.get_one(Subscription, scenario.subscription.id).credits_used = 0
    limit_open_generations(monkeypatch, 1)
    factories.make_generation(**scenario.ownership, model_id=scenario.model.id)
    assert status_and_code(client("POST", retry_path)) == (409, "queue_full")
