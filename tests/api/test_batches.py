"""Batches: one request generates all pending shots of a shooting, with an independent result per shot."""

from __future__ import annotations

from typing import Any

import pytest

from db.base import new_id
from db.models import Shot, Subscription
from db.session import Database
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.generations import limit_open_generations
from tests.support.scenarios import PhotographedProduct, run_pending_generations


@pytest.fixture
def path(scenario: PhotographedProduct) -> str:
    return f"/shootings/{scenario.shooting.id}/generate"


@pytest.fixture
def shots(scenario: PhotographedProduct) -> list[Shot]:
    """Return three shots: the first and the last can be generated, the second has no photo."""
    look_without_photo = factories.make_look(
        scenario.shooting, main_product_id=factories.make_product(**scenario.ownership).id
    )
    return [scenario.shot, factories.make_shot(look_without_photo), factories.make_shot(scenario.look)]


def summary(response: Any) -> tuple[int, int, int, list[str | None]]:
    """Return the cost, the numbers of accepted and rejected shots, and the error code of each shot."""
    body = response.json()
    codes = [result["error"] and result["error"]["code"] for result in body["results"]]
    return body["cost_credits"], body["accepted_count"], body["refused_count"], codes


def test_a_rejected_shot_does_not_affect_others(
    client: Client, path: str, shots: list[Shot], database: Database, storage: LocalDisk
) -> None:
    estimate = client("POST", f"{path}?validate_only=true", {"num_predictions": 2})
    assert estimate.status == 200
    assert summary(estimate) == (4, 2, 1, [None, "nothing_to_generate", None])
    assert {result["generation_id"] for result in estimate.json()["results"]} == {None}
    assert client("GET", f"/shots/{shots[0].id}").json()["status"] == "pending"

    response = client("POST", path, {"num_predictions": 2})
    assert response.status == 202
    assert summary(response) == summary(estimate)
    results = response.json()["results"]
    assert [result["shot_id"] for result in results] == [str(shot.id) for shot in shots]
    assert results[1]["error"]["detail"] == estimate.json()["results"][1]["error"]["detail"]
    states = [client("GET", f"/shots/{shot.id}").json()["status"] for shot in shots]
    assert states == ["generating", "pending", "generating"]
    listed = client("GET", response.headers["location"].removeprefix("/api/v1")).json()
    assert {row["id"] for row in listed["data"]} == {results[0]["generation_id"], results[2]["generation_id"]}
    assert run_pending_generations(database, storage) == 2
    assert summary(client("POST", path, {})) == (0, 0, 1, ["nothing_to_generate"])


def test_exhausted_credits_or_capacity_reject_all_later_shots(
    client: Client,
    scenario: PhotographedProduct,
    path: str,
    shots: list[Shot],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used_up = [None, "nothing_to_generate", "out_of_credits", "out_of_credits"]
    factories.make_shot(scenario.look)
    update_subscription(database, scenario, credits_total=7)
    assert summary(client("POST", f"{path}?validate_only=true", {})) == (4, 1, 3, used_up)
    update_subscription(database, scenario, credits_total=20)
    limit_open_generations(monkeypatch, 3)
    for _ in range(2):
        factories.make_generation(**scenario.ownership, model_id=scenario.model.id)
    full = [None, "nothing_to_generate", "queue_full", "queue_full"]
    assert summary(client("POST", path, {"num_predictions": 1})) == (1, 1, 3, full)
    plan = client("GET", f"/subscriptions/{scenario.subscription.id}").json()
    assert plan["credits_used"] == 1


def update_subscription(database: Database, scenario: PhotographedProduct, **values: Any) -> None:
    with database.transaction(write=True) as session:
        subscription = session.get_one(Subscription, scenario.subscription.id)
        for name, value in values.items():
            setattr(subscription, name, value)


def test_each_generation_has_the_inputs_of_the_body(
    client: Client, path: str, scenario: PhotographedProduct
) -> None:
    body = {
        "model_id": str(scenario.model.id),
        "num_predictions": 1,
        "generation_type": "AGENTIC",
        "seed": 7,
        "extra_prompt": "calm",
        "cancel_after_seconds": 60,
    }
    response = client("POST", path, body)
    shown = client("GET", f"/generations/{response.json()['results'][0]['generation_id']}").json()
    assert {name: shown[name] for name in body} == body


def test_a_batch_with_an_unknown_model_creates_nothing(client: Client, path: str) -> None:
    assert status_and_code(client("POST", path, {"model_id": str(new_id())})) == (404, "not_found")
    assert summary(client("POST", path, {"num_predictions": 1})) == (1, 1, 0, [None])
