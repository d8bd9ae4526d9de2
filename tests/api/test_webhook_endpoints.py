"""Webhook endpoints through the API: secrets, target URLs, workflow events, deliveries and redeliveries."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from standardwebhooks.webhooks import Webhook

from db.base import utc_now
from db.models import WebhookDelivery, WebhookEndpoint
from db.session import Database
from handlers.app import Application
from studio.generations.worker import queue as generations
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk
from studio.webhooks.dispatcher import send_next
from studio.webhooks.outbox import publish
from tests.api.conftest import Client
from tests.support import factories
from tests.support.app import REACHABLE_HOST
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer
from tests.support.queues import LEASE, build_worker, try_record
from tests.support.scenarios import PhotographedProduct
from tools.servers.http_recorder import HttpRecorder, run_http_recorder

URL = f"http://{REACHABLE_HOST}/hooks"


def create_endpoint(customer: Customer, **body: Any) -> dict[str, Any]:
    return customer.create("/webhook-endpoints/", {"url": URL, "event_types": ["shot.approved"], **body})


def endpoint_path(endpoint: dict[str, Any]) -> str:
    return f"/webhook-endpoints/{endpoint['id']}"


def list_payloads(customer: Customer, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the payloads of an endpoint's deliveries, oldest first."""
    response = customer.client("GET", f"{endpoint_path(endpoint)}/deliveries?sort=created_at")
    return [row["payload"] for row in response.json()["data"]]


def test_the_secret_is_returned_only_by_create_and_rotate(customer: Customer, database: Database) -> None:
    response = customer.client(
        "POST",
        f"/webhook-endpoints/{customer.organization_query}",
        {"url": URL, "event_types": ["shot.approved"]},
    )
    created = response.json()
    assert response.status == 201
    assert response.headers["cache-control"] == "no-store"
    secret = created.pop("secret")
    assert created == {
        "id": created["id"],
        "created_at": created["created_at"],
        "updated_at": created["updated_at"],
        "owner_id": str(customer.owner.id),
        "organization_id": str(customer.organization.id),
        "delivery": "push",
        "url": URL,
        "description": None,
        "event_types": ["shot.approved"],
        "is_enabled": True,
        "disabled_at": None,
        "disabled_reason": None,
        "failing_since": None,
        "previous_secret_expires_at": None,
    }
    assert customer.client("GET", endpoint_path(created)).json() == created
    assert customer.client("GET", f"/webhook-endpoints/{customer.organization_query}").json()["data"] == [
        created
    ]
    rotated = customer.client("POST", f"{endpoint_path(created)}/rotate-secret")
    assert rotated.headers["cache-control"] == "no-store"
    assert rotated.json()["secret"] != secret
    assert rotated.json()["previous_secret_expires_at"] is not None
    changed = customer.client("PATCH", endpoint_path(created), {"description": "The shop"}).json()
    assert "secret" not in changed
    with database.transaction(write=False) as reading:
        # unscoped: the rows of this test
        (row,) = reading.scalars(select(WebhookEndpoint)).all()
        assert secret not in str(vars(row))


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://0.0.0.0/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://172.16.0.1/",
        "https://192.168.0.1/",
        "https://[fc00::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://0x7f.0.0.1/",
        "https://localhost./",
        "https://hooks.example.com@127.0.0.1/",
        "https://93.184.216.34:22/",
    ],
)
def test_s09_a_forbidden_target_url_is_rejected_by_create_and_update(customer: Customer, url: str) -> None:
    rejected = customer.client(
        "POST",
        f"/webhook-endpoints/{customer.organization_query}",
        {"url": url, "event_types": ["shot.approved"]},
    )
    assert status_and_code(rejected) == (409, "target_not_allowed")
    assert customer.client("GET", f"/webhook-endpoints/{customer.organization_query}").json()["count"] == 0
    row = factories.make_webhook_endpoint(organization=customer.organization)
    rejected = customer.client("PATCH", f"/webhook-endpoints/{row.id}", {"url": url})
    assert status_and_code(rejected) == (409, "target_not_allowed")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1/", "https://a b.example.com/"])
def test_a_malformed_or_non_http_url_violates_the_contract(customer: Customer, url: str) -> None:
    body = {"url": url, "event_types": ["shot.approved"]}
    assert customer.client("POST", f"/webhook-endpoints/{customer.organization_query}", body).status == 422


def test_a_tenant_has_at_most_twenty_endpoints(customer: Customer) -> None:
    for _ in range(20):
        factories.make_webhook_endpoint(organization=customer.organization)
    body = {"url": URL, "event_types": ["shot.approved"]}
    full = customer.client("POST", f"/webhook-endpoints/{customer.organization_query}", body)
    assert status_and_code(full) == (409, "too_many_endpoints")
    assert customer.client("POST", "/webhook-endpoints/", body).status == 201


def test_a_disabled_endpoint_receives_no_events_until_it_is_enabled_again(customer: Customer) -> None:
    endpoint = create_endpoint(customer, event_types=["shooting.phase_changed"])
    off = customer.client("PATCH", endpoint_path(endpoint), {"is_enabled": False}).json()
    assert (off["is_enabled"], off["disabled_reason"]) == (False, "manual")
    assert off["disabled_at"] is not None
    assert status_and_code(customer.client("POST", f"{endpoint_path(endpoint)}/test")) == (
        409,
        "endpoint_disabled",
    )
    shooting = factories.make_shooting(organization=customer.organization, phase="BRIEF")
    customer.client("PATCH", f"/shootings/{shooting.id}", {"phase": "PRODUCTS_SELECTION"})
    on = customer.client("PATCH", endpoint_path(endpoint), {"is_enabled": True}).json()
    assert (on["is_enabled"], on["disabled_reason"], on["disabled_at"]) == (True, None, None)
    assert list_payloads(customer, endpoint) == []
    customer.client("PATCH", f"/shootings/{shooting.id}", {"phase": "PRODUCTS_SELECTION"})
    customer.client("PATCH", f"/shootings/{shooting.id}", {"phase": "AGREEMENT"})
    (payload,) = list_payloads(customer, endpoint)
    assert payload["type"] == "shooting.phase_changed"
    assert payload["data"] == {
        "id": str(shooting.id),
        "organization_id": str(customer.organization.id),
        "status": "AGREEMENT",
        "url": f"http://localhost:8000/api/v1/shootings/{shooting.id}",
        "external_id": None,
        "metadata": {},
    }


def test_shot_events_contain_the_ids_of_the_shooting_and_the_prediction(customer: Customer) -> None:
    endpoint = create_endpoint(customer, event_types=["shot.approved", "shot.rejected"])
    shooting = factories.make_shooting(organization=customer.organization)
    shots = [factories.make_shot(factories.make_look(shooting), status="pending_review") for _ in range(2)]
    prediction = factories.make_prediction(factories.make_generation(shots[0], status="completed"))
    assert customer.client("POST", f"/shots/{shots[0].id}/approve", {}).status == 200
    assert customer.client("POST", f"/shots/{shots[1].id}/reject", {"reason": "Too dark"}).status == 200
    # A rejected transition sends no event.
    assert customer.client("POST", f"/shots/{shots[1].id}/reject", {"reason": "Too dark"}).status == 409
    approved, rejected = list_payloads(customer, endpoint)
    assert (approved["type"], approved["data"]["status"]) == ("shot.approved", "approved")
    assert approved["data"]["prediction_id"] == str(prediction.id)
    assert (rejected["type"], rejected["data"]["id"]) == ("shot.rejected", str(shots[1].id))
    assert rejected["data"]["shooting_id"] == str(shooting.id)


def test_every_final_status_of_a_generation_sends_an_event(
    client_for: Callable[..., Client], scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    customer = Customer(client_for(scenario.owner), scenario.owner, scenario.organization)
    final_states = ["canceled", "failed", "completed", "expired"]
    endpoint = create_endpoint(customer, event_types=[f"generation.{state}" for state in final_states])

    def acquire_lease() -> generations.GenerationLease:
        lease = generations.GENERATIONS.lease_next(database, LEASE)
        assert lease is not None
        return lease

    def new_generation(**columns: Any) -> str:
        return str(factories.make_generation(scenario.shot, **columns).id)

    ids = [new_generation()]
    assert customer.client("POST", f"/generations/{ids[0]}/cancel").status == 200
    ids.append(new_generation())
    generations.GENERATIONS.fail(database, acquire_lease(), generations.INTERNAL_ERROR)
    ids.append(new_generation())
    assert try_record(database, generations.complete_generation, storage, acquire_lease(), [])
    ids.append(new_generation(deadline_at=utc_now() - timedelta(seconds=1)))
    assert generations.expire_overdue(database) == 1
    payloads = list_payloads(customer, endpoint)
    assert [payload["type"] for payload in payloads] == [f"generation.{state}" for state in final_states]
    assert [payload["data"]["status"] for payload in payloads] == final_states
    assert [payload["data"]["id"] for payload in payloads] == ids
    assert {payload["data"]["shot_id"] for payload in payloads} == {str(scenario.shot.id)}


@pytest.fixture
def receiver() -> Iterator[HttpRecorder]:
    with run_http_recorder() as recorder:
        yield recorder


def send_deliveries(app: Application, database: Database, receiver: HttpRecorder) -> None:
    """Send every due delivery, with the host of the receiver as an allowed target."""
    while send_next(app.settings, build_worker(database), SafeHttpClient([receiver.host])):
        pass


def test_a_test_event_is_sent_and_its_delivery_can_be_read(
    customer: Customer, app: Application, database: Database, receiver: HttpRecorder
) -> None:
    row = factories.make_webhook_endpoint(organization=customer.organization, url=f"{receiver.url}/hooks")
    secret = customer.client("POST", f"/webhook-endpoints/{row.id}/rotate-secret").json()["secret"]
    response = customer.client("POST", f"/webhook-endpoints/{row.id}/test")
    queued = response.json()
    assert response.status == 202
    assert (queued["status"], queued["attempts"], queued["event_type"]) == ("pending", 0, "webhook.test")
    send_deliveries(app, database, receiver)
    (request,) = receiver.requests
    assert Webhook(secret).verify(request.body, dict(request.headers)) == queued["payload"]
    delivered = customer.client("GET", response.headers["location"].removeprefix("/api/v1")).json()
    assert (delivered["status"], delivered["last_status_code"]) == ("delivered", 200)
    assert delivered["delivered_at"] is not None
    assert delivered["message_id"] == request.headers["webhook-id"]


def test_an_endpoint_has_at_most_fifty_pending_test_events(customer: Customer) -> None:
    row = factories.make_webhook_endpoint(organization=customer.organization)
    for _ in range(50):
        factories.make_webhook_delivery(row, event_type="webhook.test", status="pending")
    assert status_and_code(customer.client("POST", f"/webhook-endpoints/{row.id}/test")) == (
        409,
        "queue_full",
    )


def test_a_redelivery_keeps_the_message_id(
    customer: Customer, app: Application, database: Database, receiver: HttpRecorder
) -> None:
    row = factories.make_webhook_endpoint(organization=customer.organization, url=receiver.url)
    failed = factories.make_webhook_delivery(row)
    path = f"/webhook-endpoints/{row.id}/deliveries/{failed.id}"
    again = customer.client("POST", f"{path}/redeliver")
    assert (again.status, again.json()["status"]) == (202, "pending")
    assert again.headers["location"] == f"/api/v1{path}"
    send_deliveries(app, database, receiver)
    shown = customer.client("GET", path).json()
    assert (shown["status"], shown["attempts"], shown["last_error"]) == ("delivered", 11, None)
    assert [request.headers["webhook-id"] for request in receiver.requests] == [failed.message_id]


def test_a_time_range_is_redelivered_once(
    customer: Customer, app: Application, database: Database, receiver: HttpRecorder
) -> None:
    row = factories.make_webhook_endpoint(organization=customer.organization, url=receiver.url)
    now = utc_now()
    for hours, status in ((1, "failed"), (2, "failed"), (3, "delivered"), (9, "failed")):
        factories.make_webhook_delivery(row, status=status, created_at=now - timedelta(hours=hours))
    factories.make_webhook_delivery(
        factories.make_webhook_endpoint(organization=customer.organization),
        created_at=now - timedelta(hours=1),
    )
    path = f"/webhook-endpoints/{row.id}/redeliver"
    window = {"since": (now - timedelta(hours=5)).isoformat(), "until": now.isoformat()}
    response = customer.client("POST", path, window)
    assert (response.status, response.json()) == (202, {"count": 2, "is_complete": True})
    assert customer.client("POST", path, window).json()["count"] == 0
    waiting = customer.client("GET", response.headers["location"].removeprefix("/api/v1")).json()
    assert waiting["count"] == 2
    send_deliveries(app, database, receiver)
    assert len(receiver.requests) == 2
    all_deliveries = customer.client("POST", path, {**window, "only_failed": False}).json()
    assert all_deliveries == {"count": 3, "is_complete": True}
    reversed_window = {"since": window["until"], "until": window["since"]}
    assert customer.client("POST", path, reversed_window).json()["count"] == 0


def test_a_long_time_range_is_redelivered_in_parts(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.webhooks.endpoints.MAX_REDELIVERED", 2)
    row = factories.make_webhook_endpoint(organization=customer.organization)
    for _ in range(3):
        factories.make_webhook_delivery(row)
    path, body = f"/webhook-endpoints/{row.id}/redeliver", {"since": "2026-01-01T00:00:00Z"}
    assert customer.client("POST", path, body).json() == {"count": 2, "is_complete": False}
    assert customer.client("POST", path, body).json() == {"count": 1, "is_complete": True}


def test_deliveries_can_be_filtered_and_do_not_contain_the_response_of_the_target(
    customer: Customer, app: Application, database: Database
) -> None:
    row = factories.make_webhook_endpoint(organization=customer.organization)
    factories.make_webhook_delivery(row, event_type="shot.approved", status="delivered")
    factories.make_webhook_delivery(row)
    path = f"/webhook-endpoints/{row.id}/deliveries"
    (failed,) = customer.client("GET", f"{path}?status=failed").json()["data"]
    assert set(failed) == {
        "id", "created_at", "updated_at", "endpoint_id", "message_id", "event_type", "status", "attempts",
        "next_attempt_at", "last_attempt_at", "last_status_code", "last_error", "delivered_at", "payload",
    }  # fmt: skip
    approved = customer.client("GET", f"{path}?event_type=shot.approved&status=failed").json()
    assert approved["count"] == 0
    assert customer.client("GET", f"{path}?event_type=shot.approved").json()["count"] == 1


def test_a_delivery_of_another_endpoint_returns_404(customer: Customer) -> None:
    one, other = (factories.make_webhook_endpoint(organization=customer.organization) for _ in range(2))
    delivery = factories.make_webhook_delivery(one)
    path = f"/webhook-endpoints/{other.id}/deliveries/{delivery.id}"
    assert customer.client("GET", path).status == 404
    assert customer.client("POST", f"{path}/redeliver").status == 404


def test_deleting_an_endpoint_deletes_its_deliveries(customer: Customer, database: Database) -> None:
    endpoint = create_endpoint(customer)
    customer.client("POST", f"{endpoint_path(endpoint)}/test")
    assert customer.client("DELETE", endpoint_path(endpoint)).status == 204
    assert customer.client("GET", endpoint_path(endpoint)).status == 404
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(WebhookDelivery)).all() == []


def test_endpoints_can_subscribe_to_every_event_type_except_test_events(app: Application) -> None:
    contract = json.loads(zlib.decompress(app.services.compressed_contract))["components"]["schemas"]
    known = set(contract["WebhookEventType"]["x-extensible-enum"])
    offered = set(contract["WebhookSubscriptionInput"]["enum"])
    assert known == offered | {"webhook.test"}


def test_a_message_that_breaks_the_contract_is_logged_and_not_stored(
    customer: Customer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    create_endpoint(customer, event_types=["shooting.phase_changed"])
    shooting = factories.make_shooting(organization=customer.organization)
    with database.transaction(write=True) as writing:
        labels = {"external_id": 5, "metadata": {}}
        row = writing.merge(shooting)
        publish("shooting.phase_changed", row, "PRODUCTION", "/api/v1/shootings/1", **labels)
        assert writing.scalars(select(WebhookDelivery)).all() == []
    assert "webhook message not sent: shooting.phase_changed: data/external_id: the value" in caplog.text
