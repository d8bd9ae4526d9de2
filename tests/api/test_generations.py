"""Generations through the API: created, listed, canceled, retried and rejected."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from db.models import Subscription
from db.session import Database
from studio.media.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.generations import complete_generation, status_and_code
from tests.support.scenarios import PhotographedProduct, run_pending_generations


@pytest.fixture
def client(client_for: Callable[..., Client], scenario: PhotographedProduct) -> Client:
    return client_for(scenario.owner)


@pytest.fixture
def path(scenario: PhotographedProduct) -> str:
    return f"/generations/?organization_id={scenario.organization.id}"


def test_a_product_is_enough_for_a_generation(
    client: Client, scenario: PhotographedProduct, path: str, database: Database, storage: LocalDisk
) -> None:
    body = {"product_id": str(scenario.product.id), "width": 96, "height": 128, "batch_size": 2}
    reply = client("POST", path, body)
    assert reply.status == 202, reply.body
    assert reply.json()["shot_id"] is None
    assert run_pending_generations(database, storage) == 1
    done = client("GET", f"/generations/{reply.json()['id']}").json()
    assert done["status"] == "completed"
    assert {(made["width"], made["height"], made["shot_id"]) for made in done["predictions"]} == {
        (96, 128, None)
    }
    picture = client("POST", f"/predictions/{done['predictions'][0]['id']}/approve", {}).json()
    assert picture["status"] == "approved"


def test_a_generation_shows_the_request_as_it_was_given(
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
    assert shown["urls"]["self"] == f"/api/v1/generations/{shown['id']}"


def test_a_photo_can_be_given_by_its_url(client: Client, scenario: PhotographedProduct, path: str) -> None:
    address = client("GET", f"/products/{scenario.product.id}").json()["images"][0]["url"]
    assert client("POST", path, {"product_image": address}).status == 202


def test_a_shot_of_another_tenant_is_rejected(client: Client, scenario: PhotographedProduct) -> None:
    reply = client("POST", "/generations/", {"shot_id": str(scenario.shot.id)})
    assert status_and_code(reply) == (409, "scope_mismatch")


def test_an_empty_request_has_nothing_to_generate(client: Client, path: str) -> None:
    assert status_and_code(client("POST", path, {})) == (409, "nothing_to_generate")


def test_the_queue_position_counts_the_generations_before(
    client: Client, scenario: PhotographedProduct, path: str
) -> None:
    body = {"product_id": str(scenario.product.id)}
    first, second = (client("POST", path, body).json() for _ in range(2))
    assert (first["queue_position"], second["queue_position"]) == (1, 2)
    listed = client("GET", path + "&status=pending").json()["data"]
    assert [(row["id"], row["queue_position"]) for row in listed] == [(second["id"], 2), (first["id"], 1)]


def test_generations_are_filtered_by_shot_status_and_strategy(
    client: Client, scenario: PhotographedProduct, path: str, database: Database, storage: LocalDisk
) -> None:
    done = complete_generation(client, scenario.shot, database, storage, num_predictions=1)
    for query in (f"shot_id={scenario.shot.id}", "status=completed", "generation_strategy=GENERATE"):
        listed = client("GET", f"{path}&{query}").json()
        assert [row["id"] for row in listed["data"]] == [done["id"]]
        assert listed["data"][0] == done
    assert client("GET", f"{path}&status=failed").json()["count"] == 0


def test_the_owner_pays_for_personal_generations(client: Client, scenario: PhotographedProduct) -> None:
    product = factories.make_product(owner=scenario.owner)
    factories.make_product_image(product, media_id=factories.make_media(owner=scenario.owner).id)
    assert client("POST", "/generations/", {"product_id": str(product.id)}).json()["cost_credits"] == 1


def request_generation(
    client: Client, scenario: PhotographedProduct, path: str, **body: object
) -> dict[str, Any]:
    reply = client("POST", path, {"product_id": str(scenario.product.id), **body})
    assert reply.status == 202, reply.body
    answer: dict[str, Any] = reply.json()
    return answer


def test_an_open_generation_has_retry_after(
    client: Client, scenario: PhotographedProduct, path: str, database: Database, storage: LocalDisk
) -> None:
    address = f"/generations/{request_generation(client, scenario, path)['id']}"
    assert client("GET", address).headers["retry-after"] == "1"
    run_pending_generations(database, storage)
    assert "retry-after" not in client("GET", address).headers


def test_canceling_is_idempotent(client: Client, scenario: PhotographedProduct, path: str) -> None:
    asked = request_generation(client, scenario, path, batch_size=3)
    address = f"/generations/{asked['id']}"
    first, second = (client("POST", f"{address}/cancel") for _ in range(2))
    assert (first.status, second.status) == (200, 200)
    canceled = first.json()
    assert (canceled["status"], canceled["cost_credits"], canceled["error"]) == ("canceled", 0, None)
    assert canceled["cancel_requested_at"] <= canceled["completed_at"]
    assert canceled["queue_position"] is None
    assert second.json() == canceled == client("GET", address).json()
    assert second.headers["etag"] == client("GET", address).headers["etag"]
    assert [row["id"] for row in client("GET", f"{path}&status=canceled").json()["data"]] == [asked["id"]]


def test_a_deadline_is_stored_with_the_request(
    client: Client, scenario: PhotographedProduct, path: str
) -> None:
    asked = request_generation(client, scenario, path, cancel_after_seconds=3600)
    assert asked["cancel_after_seconds"] == 3600
    waiting = datetime.fromisoformat(asked["deadline_at"]) - datetime.fromisoformat(asked["created_at"])
    assert abs(waiting.total_seconds() - 3600) < 5
    shot = client("POST", f"/shots/{scenario.shot.id}/generate", {"cancel_after_seconds": 5}).json()
    assert (shot["cancel_after_seconds"], request_generation(client, scenario, path)["deadline_at"]) == (
        5,
        None,
    )
    assert client("POST", path, {"cancel_after_seconds": 4}).status == 422


def test_a_retry_creates_a_generation_with_the_same_inputs(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    asked = client("POST", f"/shots/{scenario.shot.id}/generate", {"num_predictions": 2}).json()
    retry = f"/generations/{asked['id']}/retry"
    assert status_and_code(client("POST", retry)) == (409, "invalid_transition")
    client("POST", f"/generations/{asked['id']}/cancel")
    reply = client("POST", retry)
    again = reply.json()
    assert (reply.status, reply.headers["location"]) == (202, f"/api/v1/generations/{again['id']}")
    own = {"id", "created_at", "updated_at", "status", "urls", "cost_credits", "queue_position",
           "retry_of_id", "completed_at", "cancel_requested_at", "predictions"}  # fmt: skip
    same = client("GET", f"/generations/{asked['id']}").json().keys() - own
    assert {name: again[name] for name in same} == {name: asked[name] for name in same}
    assert (again["retry_of_id"], again["status"], again["cost_credits"]) == (asked["id"], "pending", 2)
    assert status_and_code(client("POST", retry)) == (409, "shot_busy")
    assert run_pending_generations(database, storage) == 1
    assert client("GET", f"/shots/{scenario.shot.id}").json()["predictions_count"] == 2
    assert status_and_code(client("POST", f"/generations/{again['id']}/retry")) == (409, "invalid_transition")


def test_a_retry_is_rejected_like_any_request(
    client: Client, scenario: PhotographedProduct, path: str, database: Database
) -> None:
    asked = request_generation(client, scenario, path, batch_size=8)
    client("POST", f"/generations/{asked['id']}/cancel")
    retry = f"/generations/{asked['id']}/retry"
    with database.transaction(write=True) as session:
        session.get_one(Subscription, scenario.subscription.id).credits_used = 13
    assert status_and_code(client("POST", retry)) == (409, "out_of_credits")
    with database.transaction(write=True) as session:
        session.get_one(Subscription, scenario.subscription.id).credits_used = 0
    for _ in range(50):
        factories.make_generation(**scenario.ownership, model_id=scenario.model.id)
    assert status_and_code(client("POST", retry)) == (409, "queue_full")
