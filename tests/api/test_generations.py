"""Generations through the API: asked for without a shot, listed, watched, refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from db.session import Database
from studio.media.storage import LocalDisk
from tests import factories
from tests.api.conftest import Client
from tests.api.workflow import generated, refusal
from tests.production import Production, work_off


@pytest.fixture
def client(client_of: Callable[..., Client], production: Production) -> Client:
    return client_of(production.owner)


@pytest.fixture
def path(production: Production) -> str:
    return f"/generations/?organization_id={production.organization.id}"


def test_a_product_alone_is_enough(
    client: Client, production: Production, path: str, database: Database, storage: LocalDisk
) -> None:
    body = {"product_id": str(production.product.id), "width": 96, "height": 128, "batch_size": 2}
    reply = client("POST", path, body)
    assert reply.status == 202, reply.body
    assert reply.json()["shot_id"] is None
    assert work_off(database, storage) == 1
    done = client("GET", f"/generations/{reply.json()['id']}").json()
    assert done["status"] == "completed"
    assert {(made["width"], made["height"], made["shot_id"]) for made in done["predictions"]} == {
        (96, 128, None)
    }
    picture = client("POST", f"/predictions/{done['predictions'][0]['id']}/approve", {}).json()
    assert picture["status"] == "approved"


def test_the_order_is_shown_as_it_was_given(client: Client, production: Production, path: str) -> None:
    body = {
        "product_id": str(production.product.id),
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


def test_a_photograph_may_be_named_by_its_address(client: Client, production: Production, path: str) -> None:
    address = client("GET", f"/products/{production.product.id}").json()["images"][0]["url"]
    assert client("POST", path, {"product_image": address}).status == 202
    elsewhere = {"product_image": "https://elsewhere.example/dress.jpg"}
    assert refusal(client("POST", path, elsewhere)) == (409, "target_not_allowed")


def test_a_shot_of_another_scope_is_refused(client: Client, production: Production) -> None:
    reply = client("POST", "/generations/", {"shot_id": str(production.shot.id)})
    assert refusal(reply) == (409, "scope_mismatch")


def test_an_empty_order_has_nothing_to_generate(client: Client, path: str) -> None:
    assert refusal(client("POST", path, {})) == (409, "nothing_to_generate")


def test_the_place_in_the_queue_counts_what_came_before(
    client: Client, production: Production, path: str
) -> None:
    body = {"product_id": str(production.product.id)}
    first, second = (client("POST", path, body).json() for _ in range(2))
    assert (first["queue_position"], second["queue_position"]) == (1, 2)
    listed = client("GET", path + "&status=pending").json()["data"]
    assert [(row["id"], row["queue_position"]) for row in listed] == [(second["id"], 2), (first["id"], 1)]


def test_generations_are_listed_by_shot_state_and_strategy(
    client: Client, production: Production, path: str, database: Database, storage: LocalDisk
) -> None:
    done = generated(client, production.shot, database, storage, num_predictions=1)
    for query in (f"shot_id={production.shot.id}", "status=completed", "generation_strategy=GENERATE"):
        listed = client("GET", f"{path}&{query}").json()
        assert [row["id"] for row in listed["data"]] == [done["id"]]
        assert listed["data"][0] == done
    assert client("GET", f"{path}&status=failed").json()["count"] == 0


def test_personal_work_is_paid_by_oneself(client: Client, production: Production) -> None:
    product = factories.make_product(owner=production.owner)
    factories.make_product_image(product, media_id=factories.make_media(owner=production.owner).id)
    assert client("POST", "/generations/", {"product_id": str(product.id)}).json()["cost_credits"] == 1
