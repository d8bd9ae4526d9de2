"""Predictions through the API: review, image variants, shared links and deletion."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import select

from db.base import new_id, utc_now
from db.models import Prediction, User
from db.session import Database
from handlers.app import Application
from studio.infrastructure.storage import LocalDisk
from studio.media.signing import sign_share
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.scenarios import HEIGHT, WIDTH, PhotographedProduct, make_stored_image


@pytest.fixture
def predictions(
    client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> list[dict[str, Any]]:
    """Return two predictions of the scenario's shot that wait for review."""
    shot = scenario.shot
    shot.status = "pending_review"
    factories.make(shot)
    generation = factories.make_generation(
        shot, model_id=scenario.model.id, status="completed", progress=100, batch_size=2
    )
    rows = []
    for index, color in enumerate(("#8a4b3c", "#3c6f8a")):
        content = io.BytesIO()
        Image.new("RGB", (WIDTH, HEIGHT), color).save(content, "WEBP")
        media = make_stored_image(storage, database, scenario.ownership, content.getvalue())
        columns = {"content_type": media.content_type, "file_size": media.file_size, "index": index}
        size = {"width": WIDTH, "height": HEIGHT}
        prediction = factories.make_prediction(generation, media_id=media.id, **columns, **size)
        rows.append(client("GET", f"/predictions/{prediction.id}").json())
    return rows


def test_an_approval_changes_the_counts_of_the_shooting_and_its_updated_at(
    client: Client, scenario: PhotographedProduct, predictions: list[dict[str, Any]]
) -> None:
    path = f"/shootings/{scenario.shooting.id}"
    before = client("GET", path).json()
    client("POST", f"/predictions/{predictions[0]['id']}/approve")
    after = client("GET", path).json()
    assert (before["shots_approved_count"], after["shots_approved_count"]) == (0, 1)
    assert after["updated_at"] > before["updated_at"]


def test_approving_a_prediction_approves_its_shot_and_returns_the_previous_one_to_review(
    client: Client, scenario: PhotographedProduct, predictions: list[dict[str, Any]]
) -> None:
    first, second = (f"/predictions/{prediction['id']}" for prediction in predictions)
    assert client("POST", f"{first}/approve", {"note": "Sharp."}).json()["review"]["note"] == "Sharp."
    assert client("POST", f"{second}/approve", {}).json()["status"] == "approved"
    assert client("GET", first).json()["status"] == "pending_review"
    shot = client("GET", f"/shots/{scenario.shot.id}").json()
    assert (shot["status"], shot["approved_prediction_id"]) == ("approved", predictions[1]["id"])

    assert client("POST", f"{second}/reopen").json()["status"] == "pending_review"
    shot = client("GET", f"/shots/{scenario.shot.id}").json()
    assert (shot["status"], shot["approved_prediction_id"]) == ("pending_review", None)


def test_a_review_has_the_name_that_the_reviewer_had_until_their_account_is_deleted(
    client: Client,
    client_for: Callable[..., Client],
    scenario: PhotographedProduct,
    predictions: list[dict[str, Any]],
    database: Database,
) -> None:
    reviewer = factories.make_user(full_name="Ada Nord", email="ada@example.com")
    factories.make_membership(scenario.organization, reviewer, role="member")
    first, second = (f"/predictions/{prediction['id']}" for prediction in predictions)
    rejected = client_for(reviewer)("POST", f"{first}/reject", {"reason": "Too dark."}).json()["review"]
    assert rejected == {
        "by": str(reviewer.id), "by_name": "Ada Nord", "at": rejected["at"], "note": "Too dark.",
    }  # fmt: skip
    with database.transaction(write=True) as session:
        session.get_one(User, reviewer.id).full_name = None
    approved = client_for(reviewer)("POST", f"{second}/approve").json()["review"]
    # Without a full name, the part of the address before the `@`.
    assert approved == {"by": str(reviewer.id), "by_name": "ada", "at": approved["at"], "note": None}
    path = f"/predictions/?shot_id={scenario.shot.id}&sort=created_at"
    assert [row["review"] for row in client("GET", path).json()["data"]] == [rejected, approved]

    administrator = client_for(factories.make_user(is_superuser=True))
    assert administrator("DELETE", f"/users/{reviewer.id}").status == 204
    assert client("GET", first).json()["review"] == rejected | {"by": None, "by_name": None}
    with database.transaction(write=False) as session:
        stored = select(Prediction.reviewed_by_name).where(Prediction.reviewed_by_name.is_not(None))
        assert session.scalars(stored).all() == []
    assert client("GET", path).json()["data"][1]["review"] == approved | {"by": None, "by_name": None}


def test_a_review_of_an_api_key_has_the_name_of_the_keys_creator(
    client: Client, scenario: PhotographedProduct, predictions: list[dict[str, Any]], database: Database
) -> None:
    with database.transaction(write=True) as session:
        session.get_one(User, scenario.owner.id).full_name = "Dana Demo"
    keys = f"/organizations/{scenario.organization.id}/api-keys"
    created = client("POST", keys, {"name": "Shop", "scopes": ["predictions:review"], "expires_in_days": 1})
    key = created.json()["secret"]
    with_key = {"Authorization": f"Bearer {key}"}
    path = f"/predictions/{predictions[0]['id']}/approve"
    review = client("POST", path, {}, headers=with_key).json()["review"]
    assert (review["by"], review["by_name"]) == (str(scenario.owner.id), "Dana Demo")


def test_a_decision_without_a_name_by_a_process_of_the_release_before_does_not_keep_the_last_name(
    client: Client,
    predictions: list[dict[str, Any]],
    scenario: PhotographedProduct,
    database: Database,
) -> None:
    path = f"/predictions/{predictions[0]['id']}"
    assert client("POST", f"{path}/approve").json()["review"]["by_name"] == scenario.owner.full_name
    other = factories.make_user()
    with database.transaction(write=True) as session:
        prediction = session.get_one(Prediction, UUID(predictions[0]["id"]))
        prediction.reviewed_by, prediction.reviewed_at = other.id, utc_now()
    review = client("GET", path).json()["review"]
    assert (review["by"], review["by_name"]) == (str(other.id), None)


def test_a_rejected_prediction_must_be_reopened_before_it_is_approved(
    client: Client, predictions: list[dict[str, Any]]
) -> None:
    path = f"/predictions/{predictions[0]['id']}"
    rejected = client("POST", f"{path}/reject", {"reason": "Too dark."}).json()
    assert (rejected["status"], rejected["review"]["note"]) == ("rejected", "Too dark.")
    assert status_and_code(client("POST", f"{path}/approve", {})) == (409, "invalid_transition")
    assert status_and_code(client("POST", f"{path}/reject", {"reason": "Again"})) == (
        409,
        "invalid_transition",
    )
    assert client("POST", f"{path}/reopen").json()["status"] == "pending_review"
    assert status_and_code(client("POST", f"{path}/reopen")) == (409, "invalid_transition")
    assert client("POST", f"{path}/approve", {}).json()["status"] == "approved"


def test_predictions_of_a_shot_cannot_be_approved_while_it_is_generated(
    client: Client, scenario: PhotographedProduct, predictions: list[dict[str, Any]]
) -> None:
    generation = client("POST", f"/shots/{scenario.shot.id}/generate", {}).json()
    response = client("POST", f"/predictions/{predictions[0]['id']}/approve", {})
    assert status_and_code(response) == (409, "shot_busy")
    assert response.json()["conflicts_with"][0]["ids"] == [generation["id"]]


def test_only_predictions_that_are_not_approved_can_be_deleted(
    client: Client, scenario: PhotographedProduct, predictions: list[dict[str, Any]]
) -> None:
    approved, other = (f"/predictions/{prediction['id']}" for prediction in predictions)
    client("POST", f"{approved}/approve", {})
    assert status_and_code(client("DELETE", approved)) == (409, "in_use")
    assert client("DELETE", other).status == 204
    assert client("GET", other).status == 404
    shot = client("GET", f"/shots/{scenario.shot.id}").json()
    assert (shot["approved_prediction_id"], shot["predictions_count"]) == (predictions[0]["id"], 1)


@pytest.mark.parametrize(
    ("query", "media_type", "size"),
    [
        ("", "image/webp", (WIDTH, HEIGHT)),
        ("?width=96", "image/webp", (128, 171)),
        ("?width=4096&format=jpeg", "image/jpeg", (WIDTH, HEIGHT)),
        ("?format=png", "image/png", (WIDTH, HEIGHT)),
        ("?format=avif&width=50", "image/avif", (64, 85)),
    ],
)
def test_an_image_is_served_in_the_requested_size_and_format(
    client: Client, predictions: list[dict[str, Any]], query: str, media_type: str, size: tuple[int, int]
) -> None:
    path = f"/predictions/{predictions[0]['id']}/image{query}"
    response = client("GET", path)
    assert response.status == 200, response.body
    assert response.headers["content-type"] == media_type
    assert response.headers["x-content-type-options"] == "nosniff"
    with Image.open(io.BytesIO(response.body)) as opened:
        assert opened.size == size
    assert client("GET", path, headers={"if-none-match": response.headers["etag"]}).status == 304


def test_the_image_urls_of_a_prediction_can_be_fetched(
    client: Client, app: Application, predictions: list[dict[str, Any]]
) -> None:
    for name in ("image_url", "thumbnail_url"):
        url = predictions[0][name]
        assert url.startswith(app.settings.public_url)
        path = url.removeprefix(f"{app.settings.public_url}/api/v1")
        assert client("GET", path).status == 200


def test_s26_a_shared_link_serves_the_image_without_authentication_until_it_expires(
    client: Client,
    client_for: Callable[..., Client],
    app: Application,
    predictions: list[dict[str, Any]],
) -> None:
    anonymous, settings = client_for(None), app.settings
    link = client("POST", f"/predictions/{predictions[0]['id']}/share", {"expires_in_seconds": 60}).json()[
        "url"
    ]
    path = link.removeprefix(f"{settings.public_url}/api/v1")
    image = client("GET", f"/predictions/{predictions[0]['id']}/image").body
    assert anonymous("GET", path).body == image
    assert anonymous("GET", f"{path}?width=48&format=png").headers["content-type"] == "image/png"
    assert status_and_code(anonymous("GET", path + "x")) == (404, "not_found")
    unknown = sign_share(settings.secret_key, new_id())
    assert status_and_code(anonymous("GET", f"/shared/predictions/{unknown}")) == (404, "not_found")


def test_predictions_are_filtered_by_shot_generation_shooting_and_status(
    client: Client, scenario: PhotographedProduct, predictions: list[dict[str, Any]]
) -> None:
    ids = {prediction["id"] for prediction in predictions}
    for query in (
        f"shot_id={scenario.shot.id}",
        f"generation_id={predictions[0]['generation_id']}",
        f"shooting_id={scenario.shooting.id}&status=pending_review",
    ):
        response = client("GET", f"/predictions/?organization_id={scenario.organization.id}&{query}")
        assert {row["id"] for row in response.json()["data"]} == ids
    other = factories.make_shooting(**scenario.ownership)
    query = f"organization_id={scenario.organization.id}&shooting_id={other.id}"
    assert client("GET", f"/predictions/?{query}").json()["count"] == 0
