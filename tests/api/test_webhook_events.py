"""Each event of the contract, provoked and received: its message is signed, valid and sent once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import Engine, select, update
from sqlalchemy import event as sqlalchemy_event

from db.models import Product, Subscription, WebhookDelivery, WebhookEndpoint
from db.session import Database
from handlers.app import Application
from studio.infrastructure.storage import LocalDisk
from studio.webhooks.message_schemas import BUNDLE
from tests.api.conftest import Client
from tests.api.webhook_provocations import APPROVAL, PROVOCATIONS, Studio
from tests.support import factories
from tests.support.factories.catalog import post_form
from tests.support.scenarios import PhotographedProduct, make_product_photo
from tests.support.servers.webhook_receiver import WebhookReceiver, make_endpoint

CONTRACT = json.loads(BUNDLE.read_bytes())

DELETIONS = ("prediction.deleted", "product.deleted")
"""Events whose resource cannot be read."""


@pytest.fixture
def studio(
    app: Application,
    client_for: Callable[..., Client],
    scenario: PhotographedProduct,
    database: Database,
    storage: LocalDisk,
    receiver: WebhookReceiver,
) -> Studio:
    """Return a customer with an endpoint that listens to every event."""
    event_types = CONTRACT["components"]["schemas"]["WebhookSubscriptionInput"]["enum"]
    endpoint = make_endpoint(receiver, organization=scenario.organization, event_types=event_types)
    return Studio(scenario, client_for(scenario.owner), database, storage, endpoint, receiver, app)


def test_every_event_of_the_contract_is_provoked_by_a_test() -> None:
    assert list(PROVOCATIONS) == list(CONTRACT["webhooks"])


@pytest.mark.parametrize("event_type", PROVOCATIONS)
def test_each_event_is_received_once_and_matches_the_contract(studio: Studio, event_type: str) -> None:
    provoke, others = PROVOCATIONS[event_type]
    provoke(studio)
    bodies = studio.receive()
    assert sorted(body["type"] for body in bodies) == sorted([event_type, *others])
    for body in bodies:
        schema = CONTRACT["webhooks"][body["type"]]["post"]["requestBody"]["content"]["application/json"]
        validator = Draft202012Validator({**schema["schema"], "components": CONTRACT["components"]})
        validator.validate(body)
        assert body["data"]["organization_id"] == str(studio.scenario.organization.id)
    if event_type not in DELETIONS:
        url = next(body["data"]["url"] for body in bodies if body["type"] == event_type)
        assert studio.client("GET", url.partition("/api/v1")[2]).status == 200


def test_reopening_a_published_prediction_unpublishes_it(studio: Studio) -> None:
    prediction = studio.approve()
    assert studio.client("POST", f"/predictions/{prediction.id}/publish").status == 200
    studio.post(f"/predictions/{prediction.id}/reopen")
    types = [body["type"] for body in studio.receive()]
    assert sorted(types) == sorted(
        [*APPROVAL, "prediction.published", "prediction.unpublished", "prediction.reopened", "shot.reopened"]
    )


def test_messages_have_ids_and_labels_of_the_resource_and_its_product(studio: Studio) -> None:
    labels = {"external_id": "vase", "metadata": {"season": "spring"}}
    assert studio.client("PATCH", f"/products/{studio.product.id}", labels).status == 200
    of_shot = {"external_id": "vase-front", "metadata": {"side": "front"}}
    assert studio.client("PATCH", f"/shots/{studio.shot.id}", of_shot).status == 200
    prediction = studio.approve()
    product = {"id": str(studio.product.id), "sku": studio.product.sku, **labels}
    data = {body["type"]: body["data"] for body in studio.receive()}
    ids = {"organization_id": str(studio.scenario.organization.id), "status": "approved", "product": product}
    url = f"{studio.app.settings.public_url}/api/v1"
    assert data["prediction.approved"] == {
        **ids,
        "id": str(prediction.id),
        "url": f"{url}/predictions/{prediction.id}",
        "generation_id": str(prediction.generation_id),
        "shot_id": str(studio.shot.id),
    }
    assert data["shot.approved"] == {
        **ids,
        **of_shot,
        "id": str(studio.shot.id),
        "url": f"{url}/shots/{studio.shot.id}",
        "shooting_id": str(studio.shot.shooting_id),
        "look_id": str(studio.shot.look_id),
        "prediction_id": str(prediction.id),
    }


def test_messages_show_a_product_of_another_tenant_only_while_it_is_public(studio: Studio) -> None:
    product = factories.make_product(organization=factories.make_organization(), public=True)
    studio.product = product
    studio.approve()
    assert [body["data"]["product"]["id"] for body in studio.receive()] == [str(product.id)] * len(APPROVAL)
    with studio.database.transaction(write=True) as session:
        session.execute(update(Product).where(Product.id == product.id).values(public=False))
    studio.post(f"/shots/{studio.shot.id}/reopen")
    assert {body["data"]["product"] for body in studio.receive()} == {None}


def test_a_prediction_that_is_replaced_is_reopened(studio: Studio) -> None:
    replaced = studio.approve()
    studio.receive()
    approved = studio.approve()
    assert sorted((body["type"], body["data"]["id"]) for body in studio.receive()) == [
        ("prediction.approved", str(approved.id)),
        ("prediction.reopened", str(replaced.id)),
        ("shot.approved", str(studio.shot.id)),
    ]


def test_what_changes_nothing_sends_no_event(studio: Studio) -> None:
    prediction, product = studio.approve(), studio.create_product(sku="VASE")
    studio.receive()
    studio.post(f"/shots/{studio.shot.id}/approve", {"prediction_id": str(prediction.id), "note": "Again"})
    studio.post(f"/predictions/{prediction.id}/approve")
    assert studio.client("PATCH", product, {"sku": "VASE"}).status == 200
    assert studio.client("PATCH", product, {"state": "MISSING"}).status == 422
    # The shot is exported already.
    studio.export(studio.export())
    types = [body["type"] for body in studio.receive()]
    assert types == ["shot.exported", "export.completed", "export.completed"]


def test_a_put_creates_or_updates_a_product(studio: Studio) -> None:
    path = f"/products/by-external-id/vase?organization_id={studio.scenario.organization.id}"
    for name, status in (("Vase", 201), ("Vase", 200), ("Jug", 200)):
        assert studio.client("PUT", path, {"name": name}).status == status
    bodies = studio.receive()
    assert [body["type"] for body in bodies] == ["product.created", "product.updated"]
    assert {body["data"]["external_id"] for body in bodies} == {"vase"}


def test_a_change_of_a_photo_is_a_change_of_its_product(studio: Studio) -> None:
    path = f"/products/{studio.scenario.product.id}"
    assert post_form(studio.client, f"{path}/images", make_product_photo(), type="back").status == 201
    image = studio.client("GET", f"{path}/images").json()["data"][0]
    assert studio.client("PATCH", f"{path}/images/{image['id']}", {"alt_text": "Vase"}).status == 200
    assert studio.client("DELETE", f"{path}/images/{image['id']}").status == 204
    bodies = studio.receive()
    assert [body["type"] for body in bodies] == ["product.updated"] * 3
    assert {body["data"]["id"] for body in bodies} == {str(studio.scenario.product.id)}


def test_a_transfer_deletes_a_product_for_one_tenant_and_creates_it_for_the_other(studio: Studio) -> None:
    personal = make_endpoint(studio.receiver, owner=studio.scenario.owner, event_types=["product.created"])
    product = studio.create_product(sku="VASE")
    studio.receive()
    studio.post(f"{product}/transfer", {"organization_id": None})
    with studio.database.transaction(write=False) as reading:
        query = select(WebhookDelivery).where(WebhookDelivery.status == "pending")
        deliveries = {row.event_type: row for row in reading.scalars(query)}
    assert {name: row.endpoint_id for name, row in deliveries.items()} == {
        "product.deleted": studio.endpoint.id,
        "product.created": personal.id,
    }
    assert deliveries["product.created"].payload["data"]["organization_id"] is None
    organization_id = deliveries["product.deleted"].payload["data"]["organization_id"]
    assert organization_id == str(studio.scenario.organization.id)


def test_rows_that_are_deleted_with_another_row_send_no_event(studio: Studio) -> None:
    studio.add_prediction()
    path = f"/shootings/{studio.scenario.shooting.id}"
    assert studio.client("DELETE", f"{path}/looks/{studio.shot.look_id}").status == 204
    assert studio.client("DELETE", path).status == 204
    assert studio.receive() == []


def test_the_items_of_a_batch_send_the_events_of_their_operations(studio: Studio) -> None:
    query = f"?organization_id={studio.scenario.organization.id}"
    created = [{"action": "create", "body": {"name": "Vase", "sku": sku}} for sku in ("A", "A", "B")]
    batch = studio.post(f"/products/batch{query}", {"items": created})
    assert [result["status"] for result in batch["results"]] == [201, 409, 201]
    # The savepoint of the item that failed is rolled back, with its event.
    assert [body["data"]["sku"] for body in studio.receive()] == ["A", "B"]
    replaced = studio.approve()
    studio.receive()
    approved, rejected = studio.add_prediction(), studio.add_prediction()
    reviews = [
        {"action": "approve", "id": str(approved.id)},
        {"action": "reject", "id": str(rejected.id), "body": {"reason": "Dark"}},
    ]
    assert studio.post(f"/predictions/batch{query}", {"items": reviews})["accepted_count"] == 2
    assert sorted((body["type"], body["data"]["id"]) for body in studio.receive()) == [
        ("prediction.approved", str(approved.id)),
        ("prediction.rejected", str(rejected.id)),
        ("prediction.reopened", str(replaced.id)),
        ("shot.approved", str(studio.shot.id)),
    ]


def test_a_tenant_without_endpoints_pays_one_statement_for_all_events_of_a_request(
    studio: Studio, database_engine: Engine
) -> None:
    with studio.database.transaction(write=True) as writing:
        # unscoped: the row of this test
        writing.delete(writing.get_one(WebhookEndpoint, studio.endpoint.id))
    studio.approve()
    prediction, statements = studio.add_prediction(), list[str]()

    def record(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "webhook_" in statement:
            statements.append(statement)

    sqlalchemy_event.listen(database_engine, "before_cursor_execute", record)
    studio.post(f"/shots/{studio.shot.id}/approve", {"prediction_id": str(prediction.id)})
    assert len(statements) == 1
    assert statements.pop().startswith("SELECT webhook_endpoints")
    # The statement that inserts the product tells that there are none.
    studio.create_product()
    sqlalchemy_event.remove(database_engine, "before_cursor_execute", record)
    assert [statement.partition(" (")[0] for statement in statements] == ["INSERT INTO products"]
    assert studio.receive() == []


def test_low_credits_are_announced_once_per_period_to_every_tenant_of_the_account(
    studio: Studio, client_for: Callable[..., Client], superuser: Client
) -> None:
    scenario, database = studio.scenario, studio.database
    owner, subscription = scenario.owner, scenario.subscription
    others: list[dict[str, Any]] = [{"organization": factories.make_organization(owner)}, {"owner": owner}]
    listening = [
        factories.make_webhook_endpoint(**tenant, event_types=["credits.low"])
        for tenant in [{"organization": scenario.organization}, *others]
    ]
    # An account that does not pay.
    factories.make_webhook_endpoint(event_types=["credits.low"])
    member = factories.make_user()
    factories.make_membership(scenario.organization, member)
    # The member sees only one of the organizations, and not the subscription.
    client = client_for(member)

    def use_credits(**columns: int) -> dict[str, Any]:
        with database.transaction(write=True) as writing:
            writing.execute(update(Subscription).values(columns))
        look = factories.make_look(scenario.shooting, main_product_id=scenario.product.id)
        shot, body = factories.make_shot(look), {"model_id": str(scenario.model.id)}
        response = client("POST", f"/shots/{shot.id}/generate", body)
        assert response.status == 202, response.body
        generation: dict[str, Any] = response.json()
        return generation

    def count_messages() -> int:
        with database.transaction(write=False) as reading:
            ids = reading.scalars(
                select(WebhookDelivery.endpoint_id).where(
                    WebhookDelivery.event_type == "credits.low",
                    WebhookDelivery.endpoint_id != studio.endpoint.id,
                )
            ).all()
        assert set(ids) <= {endpoint.id for endpoint in listening}
        return len(ids)

    use_credits(credits_total=100, credits_used=50)
    assert count_messages() == 0
    generation = use_credits(credits_used=90)
    assert count_messages() == 3
    assert client("POST", f"/generations/{generation['id']}/cancel").status == 200
    use_credits(credits_used=90)
    assert count_messages() == 3
    assert superuser("POST", f"/subscriptions/{subscription.id}/renew").status == 200
    assert count_messages() == 3
    plan = {"service_type": "SELF_SERVICE", "tier": "START"}
    # A smaller plan leaves few credits, too.
    with database.transaction(write=True) as writing:
        writing.execute(update(Subscription).values(tier="GROW", credits_total=5_000, credits_used=460))
    assert superuser("PUT", f"/subscriptions/{subscription.id}", plan).status == 200
    assert count_messages() == 6
    use_credits(credits_used=460)
    assert count_messages() == 6
