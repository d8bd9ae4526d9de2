"""Shots through the API: generation, review and the state transitions of the contract."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID

from PIL import Image

from db.base import new_id
from db.models import Generation, Prediction, Shot, Subscription
from db.session import Database
from studio.billing.billing import PLANS
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.generations import complete_generation
from tests.support.scenarios import HEIGHT, WIDTH, PhotographedProduct, run_pending_generations


def get_shot(client: Client, shot: Shot) -> dict[str, Any]:
    response = client("GET", f"/shots/{shot.id}")
    assert response.status == 200, response.body
    body: dict[str, Any] = response.json()
    return body


def test_a_generated_shot_has_different_images_in_the_size_and_format_of_the_guidelines(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    response = client("POST", f"/shots/{scenario.shot.id}/generate", {"seed": 7})
    assert response.status == 202, response.body
    generation = response.json()
    assert response.headers["location"] == f"/api/v1/generations/{generation['id']}"
    assert (generation["status"], generation["progress"], generation["queue_position"]) == ("pending", 0, 1)
    assert (generation["num_predictions"], generation["cost_credits"], generation["predictions"]) == (
        4,
        4,
        [],
    )
    assert generation["product_id"] == str(scenario.product.id)
    assert get_shot(client, scenario.shot)["status"] == "generating"

    assert run_pending_generations(database, storage) == 1
    done = client("GET", f"/generations/{generation['id']}").json()
    assert (done["status"], done["progress"], done["attempts"]) == ("completed", 100, 1)
    assert done["queue_position"] is None
    assert [prediction["index"] for prediction in done["predictions"]] == [0, 1, 2, 3]
    assert len({prediction["content_hash"] for prediction in done["predictions"]}) == 4
    for prediction in done["predictions"]:
        assert prediction["provenance"]["ignored_inputs"] == []
        image = client("GET", f"/predictions/{prediction['id']}/image")
        assert image.headers["content-type"] == prediction["content_type"] == "image/webp"
        with Image.open(io.BytesIO(image.body)) as opened:
            assert (opened.format, opened.size) == ("WEBP", (WIDTH, HEIGHT))
    after = get_shot(client, scenario.shot)
    assert (after["status"], after["predictions_count"]) == ("pending_review", 4)
    assert after["generation_id"] == generation["id"]


def test_a_second_generation_while_one_runs_is_rejected(
    client: Client, scenario: PhotographedProduct
) -> None:
    path = f"/shots/{scenario.shot.id}"
    generation = client("POST", f"{path}/generate", {}).json()
    bodies: dict[str, dict[str, str]] = {
        "generate": {},
        "approve": {},
        "reject": {"reason": "blurred"},
        "request-revision": {"note": "brighter"},
        "reopen": {},
    }
    for action, body in bodies.items():
        response = client("POST", f"{path}/{action}", body)
        assert status_and_code(response) == (409, "shot_busy"), action
        assert response.json()["conflicts_with"] == [
            {"resource_type": "generation", "count": 1, "ids": [generation["id"]]}
        ]


def test_an_approved_shot_cannot_be_generated_again(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    complete_generation(client, scenario.shot, database, storage, num_predictions=1)
    assert client("POST", f"/shots/{scenario.shot.id}/approve", {}).status == 200
    response = client("POST", f"/shots/{scenario.shot.id}/generate", {})
    assert status_and_code(response) == (409, "invalid_transition")


def test_a_shot_of_a_product_without_photos_cannot_be_generated(
    client: Client, scenario: PhotographedProduct
) -> None:
    product = factories.make_product(**scenario.ownership)
    look = factories.make_look(scenario.shooting, main_product_id=product.id)
    shot = factories.make_shot(look)
    assert status_and_code(client("POST", f"/shots/{shot.id}/generate", {})) == (409, "nothing_to_generate")


def test_a_request_that_exceeds_the_credits_is_rejected_without_a_charge(
    client: Client, scenario: PhotographedProduct, database: Database
) -> None:
    with database.transaction(write=True) as session:
        subscription = session.get_one(type(scenario.subscription), scenario.subscription.id)
        subscription.credits_used = 17
    assert status_and_code(client("POST", f"/shots/{scenario.shot.id}/generate", {})) == (
        409,
        "out_of_credits",
    )
    assert get_shot(client, scenario.shot)["status"] == "pending"
    assert client("POST", f"/shots/{scenario.shot.id}/generate", {"num_predictions": 3}).status == 202


def test_the_plan_limits_the_open_generations_of_a_tenant(
    client: Client, scenario: PhotographedProduct, database: Database
) -> None:
    shots = [scenario.shot, factories.make_shot(scenario.look)]
    with database.transaction(write=True) as session:
        session.get_one(Subscription, scenario.subscription.id).tier = "START"
    for status in ("completed", "failed", "canceled"):
        factories.make_generation(**scenario.ownership, model_id=scenario.model.id, status=status)
    for status in ("running", "canceling", *["pending"] * 197):
        factories.make_generation(**scenario.ownership, model_id=scenario.model.id, status=status)
    factories.make_generation(owner=scenario.owner, model_id=scenario.model.id)
    responses = [
        client("POST", f"/shots/{shot.id}/generate", {"num_predictions": 1}).json() for shot in shots
    ]
    assert responses[0]["status"] == "pending"
    assert [responses[1][name] for name in ("status", "code", "limit")] == [409, "queue_full", 200]
    assert responses[1]["detail"] == "At most 200 generations may be open at a time with the plan START"
    with database.transaction(write=True) as session:
        session.get_one(Subscription, scenario.subscription.id).tier = "GROW"
    assert client("POST", f"/shots/{shots[1].id}/generate", {"num_predictions": 1}).status == 202


def test_larger_plans_allow_more_open_generations() -> None:
    limits = {tier: plan.max_open_generations for tier, plan in PLANS.items()}
    assert limits == {"START": 200, "GROW": 1_000, "SCALE": 5_000, "ENTERPRISE": 20_000}


def test_approving_a_second_prediction_returns_the_first_to_review(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    done = complete_generation(client, scenario.shot, database, storage, num_predictions=2)
    first, second = (prediction["id"] for prediction in done["predictions"])
    assert status_and_code(client("POST", f"/shots/{scenario.shot.id}/approve", {})) == (
        409,
        "prediction_ambiguous",
    )

    body = {"prediction_id": first, "note": "The hem is sharp."}
    response = client("POST", f"/shots/{scenario.shot.id}/approve", body)
    assert (response.json()["status"], response.json()["approved_prediction_id"]) == ("approved", first)
    approved = client("GET", f"/predictions/{first}").json()
    assert approved["status"] == "approved"
    assert approved["review"]["by"] == str(scenario.owner.id)
    assert approved["review"]["note"] == "The hem is sharp."

    response = client("POST", f"/shots/{scenario.shot.id}/approve", {"prediction_id": second})
    assert (response.json()["status"], response.json()["approved_prediction_id"]) == ("approved", second)
    statuses = [
        client("GET", f"/predictions/{prediction_id}").json()["status"] for prediction_id in (first, second)
    ]
    assert statuses == ["pending_review", "approved"]


def test_a_shot_cannot_be_approved_with_a_prediction_of_another_shot(
    client: Client, scenario: PhotographedProduct
) -> None:
    other = factories.make_prediction(
        factories.make_generation(factories.make_shot(scenario.look), status="completed")
    )
    response = client("POST", f"/shots/{scenario.shot.id}/approve", {"prediction_id": str(other.id)})
    assert status_and_code(response) == (409, "scope_mismatch")
    response = client("POST", f"/shots/{scenario.shot.id}/approve", {"prediction_id": str(new_id())})
    assert status_and_code(response) == (404, "not_found")


def test_a_shot_in_review_can_be_rejected_reopened_and_sent_to_revision(
    client: Client, scenario: PhotographedProduct
) -> None:
    shot = factories.make_shot(scenario.look, status="pending_review")
    path = f"/shots/{shot.id}"
    rejected = client("POST", f"{path}/reject", {"reason": "The shadow is wrong."}).json()
    assert (rejected["status"], rejected["rejection_reason"]) == ("rejected", "The shadow is wrong.")
    assert status_and_code(client("POST", f"{path}/reject", {"reason": "Again"})) == (
        409,
        "invalid_transition",
    )
    reopened = client("POST", f"{path}/reopen").json()
    assert (reopened["status"], reopened["rejection_reason"]) == ("pending_review", None)
    returned = client("POST", f"{path}/request-revision", {"note": "More room above."}).json()
    assert (returned["status"], returned["revision_note"]) == ("revision_requested", "More room above.")
    assert status_and_code(client("POST", f"{path}/reopen")) == (409, "invalid_transition")


def test_reopening_an_approved_shot_returns_its_prediction_to_review(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    done = complete_generation(client, scenario.shot, database, storage, num_predictions=1)
    client("POST", f"/shots/{scenario.shot.id}/approve", {})
    reopened = client("POST", f"/shots/{scenario.shot.id}/reopen").json()
    assert (reopened["status"], reopened["approved_prediction_id"]) == ("pending_review", None)
    prediction = client("GET", f"/predictions/{done['predictions'][0]['id']}").json()
    assert prediction["status"] == "pending_review"


def test_the_notes_of_a_shot_can_be_updated_but_not_its_status(
    client: Client, scenario: PhotographedProduct
) -> None:
    response = client("PATCH", f"/shots/{scenario.shot.id}", {"notes": "Sleeves rolled up."})
    assert (response.status, response.json()["notes"]) == (200, "Sleeves rolled up.")
    assert client("PATCH", f"/shots/{scenario.shot.id}", {"status": "approved"}).status == 422


def test_shots_are_filtered_by_look_status_shooting_and_shot_type(
    client: Client, scenario: PhotographedProduct
) -> None:
    other = factories.make_shot(scenario.look, status="pending_review")
    organization_query = f"organization_id={scenario.organization.id}"

    def ids(query: str) -> set[UUID]:
        response = client("GET", f"/shots/?{organization_query}&{query}")
        assert response.status == 200, response.body
        return {UUID(row["id"]) for row in response.json()["data"]}

    assert ids(f"look_id={scenario.look.id}") == {scenario.shot.id, other.id}
    assert ids("status=pending_review") == {other.id}
    assert ids(f"shooting_id={scenario.shooting.id}&shot_type_id={scenario.shot_type.id}") == {
        scenario.shot.id
    }


def test_a_rejected_generation_leaves_no_rows(
    client: Client, scenario: PhotographedProduct, database: Database
) -> None:
    body = {"model_id": str(new_id())}
    assert status_and_code(client("POST", f"/shots/{scenario.shot.id}/generate", body)) == (404, "not_found")
    with database.transaction(write=False) as session:
        assert session.query(Generation).count() == session.query(Prediction).count() == 0
