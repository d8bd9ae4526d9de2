"""Each event of the contract, provoked and received: its message is signed, valid and sent once."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import Engine, select, update
from sqlalchemy import event as sqlalchemy_event
from standardwebhooks.webhooks import Webhook

from db.base import utc_now
from db.models import (
    ApiKey,
    Prediction,
    Product,
    Shot,
    Subscription,
    WebhookDelivery,
    WebhookEndpoint,
)
from db.session import Database, current_session
from handlers.app import Application
from handlers.contract.body_checks import load_body_checks
from studio.api_key_expiry import send_expiry_notices
from studio.exports import queue as exports
from studio.exports.worker import run_pending_exports
from studio.generations.worker import queue as generations
from studio.http_client import SafeHttpClient
from studio.imports.worker import ImportRunner
from studio.media.data_files import store_data_file
from studio.media.storage import LocalDisk
from studio.webhooks.dispatcher import send_next
from studio.webhooks.message_schemas import BUNDLE
from studio.webhooks.signing import derive_secret
from tests.api.conftest import Client
from tests.support import factories
from tests.support.factories.catalogue import post_form
from tests.support.factories.exports import make_approved_prediction
from tests.support.scenarios import LEASE, PhotographedProduct, make_product_photo
from tests.support.servers.webhook_receiver import WebhookReceiver, make_endpoint

CONTRACT = json.loads(BUNDLE.read_bytes())


@dataclass
class Studio:
    """A customer with a shot, and the servers that the tests need."""

    scenario: PhotographedProduct
    client: Client
    database: Database
    storage: LocalDisk
    endpoint: WebhookEndpoint
    receiver: WebhookReceiver
    app: Application

    @cached_property
    def product(self) -> Product:
        """The product of the shot."""
        return factories.make_product(**self.scenario.ownership)

    @cached_property
    def shot(self) -> Shot:
        """A shot that is in review."""
        look = factories.make_look(self.scenario.shooting, main_product_id=self.product.id)
        return factories.make_shot(look, status="pending_review")

    def receive(self) -> list[dict[str, Any]]:
        """Send all messages and return those that the receiver has got since the last call, verified."""
        client = SafeHttpClient([self.receiver.recorder.host])
        while send_next(self.app.settings, self.database, client):
            pass
        secret = derive_secret(self.app.settings.secret_key, self.endpoint.secret_salt)
        requests = self.receiver.recorder.requests
        bodies = [Webhook(secret).verify(request.body, dict(request.headers)) for request in requests]
        requests.clear()
        return bodies

    def add_prediction(self) -> Prediction:
        """Add a prediction to the shot."""
        return factories.make_prediction(factories.make_generation(self.shot, status="completed"))

    def approve(self) -> Prediction:
        """Approve the shot with a new prediction."""
        prediction = self.add_prediction()
        self.post(f"/shots/{self.shot.id}/approve", {"prediction_id": str(prediction.id)})
        return prediction

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        """Send a request that succeeds, and return the body of the response."""
        response = self.client("POST", path, body or {})
        assert response.status < 300, response.body
        row: dict[str, Any] = response.json()
        return row

    def create_product(self, **body: Any) -> str:
        """Create a product through the API, and return its path."""
        query = f"?organization_id={self.scenario.organization.id}"
        return f"/products/{self.post(f'/products/{query}', {'name': 'Vase', **body})['id']}"

    def request_export(self, prediction: Prediction | None = None) -> Prediction:
        """Request an export of a prediction, by default of a new approved one."""
        if prediction is None:
            prediction = make_approved_prediction(self.storage, self.scenario, b"an image")
        body = {"prediction_ids": [str(prediction.id)]}
        self.post(f"/shootings/{self.scenario.shooting.id}/exports", body)
        return prediction

    def export(self, prediction: Prediction | None = None) -> Prediction:
        """Export a prediction, by default a new approved one."""
        prediction = self.request_export(prediction)
        assert run_pending_exports(self.database, self.storage) == 1
        return prediction

    def run_generation(self, status: str) -> None:
        """Bring a generation to a final status."""
        shot = factories.make_shot(factories.make_look(self.scenario.shooting))
        overdue = {"deadline_at": utc_now() - timedelta(seconds=1)} if status == "expired" else {}
        generation = factories.make_generation(shot, **overdue)
        if status == "canceled":
            self.post(f"/generations/{generation.id}/cancel")
        elif status == "expired":
            assert generations.expire_overdue(self.database) == 1
        else:
            lease = generations.lease_next(self.database, "test", LEASE)
            assert lease is not None
            if status == "completed":
                assert generations.try_complete(self.database, self.storage, lease, [])
            else:
                generations.fail(self.database, lease, generations.INTERNAL_ERROR)


def review_prediction(studio: Studio, action: str, **body: str) -> None:
    studio.post(f"/predictions/{studio.add_prediction().id}/{action}", body)


def reopen_prediction(studio: Studio) -> None:
    studio.post(f"/predictions/{studio.approve().id}/reopen")


def delete_prediction(studio: Studio) -> None:
    assert studio.client("DELETE", f"/predictions/{studio.add_prediction().id}").status == 204


def reopen_shot(studio: Studio) -> None:
    studio.approve()
    studio.post(f"/shots/{studio.shot.id}/reopen")


def update_product(studio: Studio) -> None:
    assert studio.client("PATCH", studio.create_product(), {"sku": "VASE-1"}).status == 200


def delete_product(studio: Studio) -> None:
    assert studio.client("DELETE", studio.create_product(sku="VASE-2")).status == 204


def change_phase(studio: Studio) -> None:
    path = f"/shootings/{studio.scenario.shooting.id}"
    assert studio.client("PATCH", path, {"phase": "CLOSED"}).status == 200


def fail_export(studio: Studio) -> None:
    studio.request_export()
    lease = exports.lease_next(studio.database, "test", LEASE)
    assert lease is not None
    exports.fail(studio.database, lease, exports.INTERNAL_ERROR)


def run_import(studio: Studio, text: str) -> None:
    """Import products from a CSV file."""
    stored = store_data_file(studio.storage, io.BytesIO(text.encode()))
    file = {"file_id": stored.id, "file_hash": stored.content_hash}
    factories.make_product_import(organization=studio.scenario.organization, **file)
    check = load_body_checks(BUNDLE)
    ImportRunner(studio.database, studio.storage, check, LEASE).run_pending()


def publish_prediction(studio: Studio) -> str:
    """Publish an approved prediction, and return its path."""
    path = f"/predictions/{studio.approve().id}"
    studio.post(f"{path}/publish")
    # It is published already.
    studio.post(f"{path}/publish")
    return path


def unpublish_prediction(studio: Studio) -> None:
    path = publish_prediction(studio)
    assert studio.client("POST", f"{path}/unpublish").status == 204


def use_most_credits(studio: Studio) -> None:
    scenario = studio.scenario
    with studio.database.transaction(write=True):
        row = current_session().merge(scenario.subscription)
        row.credits_total, row.credits_used = 100, 90
    shot = factories.make_shot(factories.make_look(scenario.shooting, main_product_id=scenario.product.id))
    studio.post(f"/shots/{shot.id}/generate", {"model_id": str(scenario.model.id)})


def let_a_key_expire(studio: Studio) -> None:
    body = {"name": "Shop", "scopes": ["products:read"], "expires_in_days": 30}
    key = studio.post(f"/organizations/{studio.scenario.organization.id}/api-keys", body)
    expires_at = utc_now() + timedelta(days=14)
    with studio.database.transaction(write=True) as writing:
        # unscoped: the row of this test
        row = writing.get_one(ApiKey, UUID(key["id"]))
        row.expires_at, row.next_expiry_notice_at = expires_at, utc_now()
    assert send_expiry_notices(studio.database) == 1


def reject_shot(studio: Studio) -> None:
    studio.post(f"/shots/{studio.shot.id}/reject", {"reason": "Dark"})


def request_revision(studio: Studio) -> None:
    studio.post(f"/shots/{studio.shot.id}/request-revision", {"note": "Lighter, please"})


def send_a_test_event(studio: Studio) -> None:
    studio.post(f"/webhook-endpoints/{studio.endpoint.id}/test")


APPROVAL = ("prediction.approved", "shot.approved")
PROVOCATIONS: dict[str, tuple[Callable[[Studio], object], tuple[str, ...]]] = {
    "generation.completed": (partial(Studio.run_generation, status="completed"), ()),
    "generation.failed": (partial(Studio.run_generation, status="failed"), ()),
    "generation.canceled": (partial(Studio.run_generation, status="canceled"), ()),
    "generation.expired": (partial(Studio.run_generation, status="expired"), ()),
    "shot.approved": (Studio.approve, ("prediction.approved",)),
    "shot.rejected": (reject_shot, ()),
    "shooting.phase_changed": (change_phase, ()),
    "shot.revision_requested": (request_revision, ()),
    "shot.reopened": (reopen_shot, (*APPROVAL, "prediction.reopened")),
    "shot.exported": (Studio.export, ("export.completed",)),
    "prediction.approved": (partial(review_prediction, action="approve"), ("shot.approved",)),
    "prediction.rejected": (partial(review_prediction, action="reject", reason="Dark"), ()),
    "prediction.reopened": (reopen_prediction, (*APPROVAL, "shot.reopened")),
    "prediction.deleted": (delete_prediction, ()),
    "prediction.published": (publish_prediction, APPROVAL),
    "prediction.unpublished": (unpublish_prediction, (*APPROVAL, "prediction.published")),
    "product.created": (Studio.create_product, ()),
    "product.updated": (update_product, ("product.created",)),
    "product.deleted": (delete_product, ("product.created",)),
    "export.completed": (Studio.export, ("shot.exported",)),
    "export.failed": (fail_export, ()),
    "import.completed": (partial(run_import, text="sku,name\nA,Vase\nB,Jug\n"), ()),
    "import.failed": (partial(run_import, text="colour\nred\n"), ()),
    "credits.low": (use_most_credits, ()),
    "api_key.expiring": (let_a_key_expire, ()),
    "webhook.test": (send_a_test_event, ()),
}
"""What provokes each event, and the other events that the same requests send."""
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
    event_types = CONTRACT["components"]["schemas"]["WebhookSubscription"]["enum"]
    endpoint = make_endpoint(receiver, organization=scenario.organization, event_types=event_types)
    return Studio(scenario, client_for(scenario.owner), database, storage, endpoint, receiver, app)


def test_every_event_of_the_contract_is_provoked_by_a_test() -> None:
    assert list(PROVOCATIONS) == list(CONTRACT["webhooks"])


@pytest.mark.both_databases
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


@pytest.mark.both_databases
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


@pytest.mark.both_databases
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


@pytest.mark.both_databases
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


@pytest.mark.both_databases
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
