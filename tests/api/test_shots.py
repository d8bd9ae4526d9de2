"""Shots through the API: generated, reviewed, approved, sent back, as the contract's table of states says."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from PIL import Image

from db.base import new_id
from db.models import Generation, Prediction, Shot
from db.session import Database
from studio.media.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.generations import complete_generation, status_and_code
from tests.support.scenarios import HEIGHT, WIDTH, PhotographedProduct, run_pending_generations


@pytest.fixture
def client(client_for: Callable[..., Client], scenario: PhotographedProduct) -> Client:
    return client_for(scenario.owner)


def get_shot(client: Client, shot: Shot) -> dict[str, Any]:
    reply = client("GET", f"/shots/{shot.id}")
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json()
    return answer


def test_a_shot_is_generated_into_different_pictures_of_the_guidelines_size_and_format(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    reply = client("POST", f"/shots/{scenario.shot.id}/generate", {"seed": 7})
    assert reply.status == 202, reply.body
    asked = reply.json()
    assert reply.headers["location"] == f"/api/v1/generations/{asked['id']}"
    assert (asked["status"], asked["progress"], asked["queue_position"]) == ("pending", 0, 1)
    assert (asked["num_predictions"], asked["cost_credits"], asked["predictions"]) == (4, 4, [])
    assert asked["product_id"] == str(scenario.product.id)
    assert get_shot(client, scenario.shot)["status"] == "generating"

    assert run_pending_generations(database, storage) == 1
    done = client("GET", f"/generations/{asked['id']}").json()
    assert (done["status"], done["progress"], done["attempts"]) == ("completed", 100, 1)
    assert done["queue_position"] is None
    assert [picture["index"] for picture in done["predictions"]] == [0, 1, 2, 3]
    assert len({picture["content_hash"] for picture in done["predictions"]}) == 4
    for picture in done["predictions"]:
        assert picture["provenance"]["ignored_inputs"] == []
        image = client("GET", f"/predictions/{picture['id']}/image")
        assert image.headers["content-type"] == picture["content_type"] == "image/webp"
        with Image.open(io.BytesIO(image.body)) as opened:
            assert (opened.format, opened.size) == ("WEBP", (WIDTH, HEIGHT))
    after = get_shot(client, scenario.shot)
    assert (after["status"], after["predictions_count"]) == ("pending_review", 4)
    assert after["generation_id"] == asked["id"]


def test_a_second_generation_while_one_runs_is_refused(client: Client, scenario: PhotographedProduct) -> None:
    assert client("POST", f"/shots/{scenario.shot.id}/generate", {}).status == 202
    assert status_and_code(client("POST", f"/shots/{scenario.shot.id}/generate", {})) == (409, "shot_busy")


def test_an_approved_shot_is_not_generated_again(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    complete_generation(client, scenario.shot, database, storage, num_predictions=1)
    assert client("POST", f"/shots/{scenario.shot.id}/approve", {}).status == 200
    reply = client("POST", f"/shots/{scenario.shot.id}/generate", {})
    assert status_and_code(reply) == (409, "invalid_transition")


def test_a_product_without_a_photograph_cannot_be_generated(
    client: Client, scenario: PhotographedProduct
) -> None:
    bare = factories.make_product(**scenario.ownership)
    look = factories.make_look(scenario.shooting, main_product_id=bare.id)
    shot = factories.make_shot(look)
    assert status_and_code(client("POST", f"/shots/{shot.id}/generate", {})) == (409, "nothing_to_generate")


def test_who_has_too_few_credits_gets_nothing_and_pays_nothing(
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


def test_the_fifty_first_open_generation_of_an_organization_is_refused(
    client: Client, scenario: PhotographedProduct
) -> None:
    for _ in range(50):
        factories.make_generation(**scenario.ownership, model_id=scenario.model.id)
    assert status_and_code(client("POST", f"/shots/{scenario.shot.id}/generate", {})) == (409, "queue_full")


def test_approving_a_second_picture_returns_the_first_to_review(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    done = complete_generation(client, scenario.shot, database, storage, num_predictions=2)
    first, second = (picture["id"] for picture in done["predictions"])
    assert status_and_code(client("POST", f"/shots/{scenario.shot.id}/approve", {})) == (
        409,
        "prediction_ambiguous",
    )

    body = {"prediction_id": first, "note": "The hem is sharp."}
    reply = client("POST", f"/shots/{scenario.shot.id}/approve", body)
    assert (reply.json()["status"], reply.json()["approved_prediction_id"]) == ("approved", first)
    approved = client("GET", f"/predictions/{first}").json()
    assert approved["status"] == "approved"
    assert approved["review"]["by"] == str(scenario.owner.id)
    assert approved["review"]["note"] == "The hem is sharp."

    reply = client("POST", f"/shots/{scenario.shot.id}/approve", {"prediction_id": second})
    assert (reply.json()["status"], reply.json()["approved_prediction_id"]) == ("approved", second)
    statuses = [client("GET", f"/predictions/{one}").json()["status"] for one in (first, second)]
    assert statuses == ["pending_review", "approved"]


def test_a_picture_of_another_shot_cannot_approve_this_one(
    client: Client, scenario: PhotographedProduct
) -> None:
    other = factories.make_prediction(
        factories.make_generation(factories.make_shot(scenario.look), status="completed")
    )
    reply = client("POST", f"/shots/{scenario.shot.id}/approve", {"prediction_id": str(other.id)})
    assert status_and_code(reply) == (409, "scope_mismatch")
    reply = client("POST", f"/shots/{scenario.shot.id}/approve", {"prediction_id": str(new_id())})
    assert status_and_code(reply) == (404, "not_found")


def test_a_shot_in_review_is_rejected_reopened_and_sent_back(
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


def test_reopening_an_approved_shot_brings_its_picture_back_into_review(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    done = complete_generation(client, scenario.shot, database, storage, num_predictions=1)
    client("POST", f"/shots/{scenario.shot.id}/approve", {})
    reopened = client("POST", f"/shots/{scenario.shot.id}/reopen").json()
    assert (reopened["status"], reopened["approved_prediction_id"]) == ("pending_review", None)
    picture = client("GET", f"/predictions/{done['predictions'][0]['id']}").json()
    assert picture["status"] == "pending_review"


def test_notes_change_and_states_do_not(client: Client, scenario: PhotographedProduct) -> None:
    reply = client("PATCH", f"/shots/{scenario.shot.id}", {"notes": "Sleeves rolled up."})
    assert (reply.status, reply.json()["notes"]) == (200, "Sleeves rolled up.")
    assert client("PATCH", f"/shots/{scenario.shot.id}", {"status": "approved"}).status == 422


def test_shots_are_listed_by_what_they_belong_to(client: Client, scenario: PhotographedProduct) -> None:
    other = factories.make_shot(scenario.look, status="pending_review")
    scope = f"organization_id={scenario.organization.id}"

    def ids(query: str) -> set[UUID]:
        reply = client("GET", f"/shots/?{scope}&{query}")
        assert reply.status == 200, reply.body
        return {UUID(row["id"]) for row in reply.json()["data"]}

    assert ids(f"look_id={scenario.look.id}") == {scenario.shot.id, other.id}
    assert ids("status=pending_review") == {other.id}
    assert ids(f"shooting_id={scenario.shooting.id}&shot_type_id={scenario.shot_type.id}") == {
        scenario.shot.id
    }


def test_nothing_is_left_of_a_refused_generation(
    client: Client, scenario: PhotographedProduct, database: Database
) -> None:
    body = {"model_id": str(new_id())}
    assert status_and_code(client("POST", f"/shots/{scenario.shot.id}/generate", body)) == (404, "not_found")
    with database.transaction(write=False) as session:
        assert session.query(Generation).count() == session.query(Prediction).count() == 0
