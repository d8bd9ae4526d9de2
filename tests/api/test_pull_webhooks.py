"""Webhook endpoints without a URL: `poll_webhook_messages` and `acknowledge_webhook_messages`."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from db.session import Database
from handlers.app import Application
from studio.infrastructure.http_client import SafeHttpClient
from studio.webhooks.dispatcher import send_next
from tests.api.test_long_polling import open_request, wait_for_listener
from tests.support import factories
from tests.support.app import REACHABLE_HOST
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer
from tests.support.queues import build_worker
from tests.support.streaming import run_with_long_polling

PULL = {"delivery": "pull", "event_types": ["shooting.phase_changed"]}


def create_endpoint(customer: Customer, **body: Any) -> dict[str, Any]:
    return customer.create("/webhook-endpoints/", {**PULL, **body})


def path_of(endpoint: dict[str, Any]) -> str:
    return f"/webhook-endpoints/{endpoint['id']}"


def change_phase(customer: Customer, shooting_id: object, phase: str) -> None:
    assert customer.client("PATCH", f"/shootings/{shooting_id}", {"phase": phase}).status == 200


def poll(customer: Customer, endpoint: dict[str, Any], query: str = "") -> dict[str, Any]:
    response = customer.client("GET", f"{path_of(endpoint)}/messages{query}")
    assert (response.status, response.headers["cache-control"]) == (200, "no-store")
    body: dict[str, Any] = response.json()
    return body


def acknowledge(customer: Customer, endpoint: dict[str, Any], *messages: dict[str, Any]) -> int:
    body = {"message_ids": [message["message_id"] for message in messages]}
    response = customer.client("POST", f"{path_of(endpoint)}/messages/acknowledge", body)
    assert response.status == 200, response.body
    count: int = response.json()["count"]
    return count


def send_everything(app: Application, database: Database) -> bool:
    """Send a due message as the dispatcher does; return whether there was one."""
    return send_next(app.settings, build_worker(database), SafeHttpClient([REACHABLE_HOST]))


def test_messages_wait_in_order_with_the_headers_of_a_push_until_they_are_acknowledged(
    customer: Customer, app: Application, database: Database
) -> None:
    endpoint = create_endpoint(customer)
    assert endpoint["url"] == f"http://localhost:8000/api/v1{path_of(endpoint)}/messages"
    shooting = factories.make_shooting(organization=customer.organization, phase="BRIEF")
    for phase in ("PRODUCTS_SELECTION", "AGREEMENT", "PRODUCTION"):
        change_phase(customer, shooting.id, phase)
    page = poll(customer, endpoint)
    assert page["has_more"] is False
    first, second, third = page["data"]
    assert [json.loads(message["body"])["data"]["status"] for message in page["data"]] == [
        "PRODUCTS_SELECTION",
        "AGREEMENT",
        "PRODUCTION",
    ]
    event = Webhook(endpoint["secret"]).verify(first["body"], first["headers"])
    assert first == {
        "message_id": first["headers"]["webhook-id"],
        "delivery_id": first["delivery_id"],
        "event_type": "shooting.phase_changed",
        "headers": {
            "content-type": "application/json",
            "user-agent": "Sartiq-Webhooks/1.0",
            **{
                f"webhook-{name}": first["headers"][f"webhook-{name}"]
                for name in ("id", "timestamp", "signature")
            },
        },
        "body": first["body"],
    }
    # No dispatcher sends them, however long they wait.
    assert not send_everything(app, database)
    page = poll(customer, endpoint, "?limit=2")
    assert ([message["message_id"] for message in page["data"]], page["has_more"]) == (
        [first["message_id"], second["message_id"]],
        True,
    )
    assert acknowledge(customer, endpoint, first, second) == 2
    assert acknowledge(customer, endpoint, first, second) == 0
    assert [message["message_id"] for message in poll(customer, endpoint)["data"]] == [third["message_id"]]
    delivery = customer.client("GET", f"{path_of(endpoint)}/deliveries/{first['delivery_id']}").json()
    assert delivery["payload"] == event
    assert {name: delivery[name] for name in ("status", "attempts", "next_attempt_at", "last_error")} == {
        "status": "delivered",
        "attempts": 0,
        "next_attempt_at": None,
        "last_error": None,
    }
    assert delivery["delivered_at"] is not None
    assert customer.client("GET", path_of(endpoint)).json()["failing_since"] is None


def test_a_redelivered_message_waits_again(customer: Customer, app: Application, database: Database) -> None:
    endpoint = create_endpoint(customer)
    queued = customer.client("POST", f"{path_of(endpoint)}/test").json()
    assert (queued["status"], queued["next_attempt_at"]) == ("pending", None)
    (message,) = poll(customer, endpoint)["data"]
    acknowledge(customer, endpoint, message)
    again = customer.client("POST", f"{path_of(endpoint)}/deliveries/{queued['id']}/redeliver")
    assert (again.status, again.json()["next_attempt_at"]) == (202, None)
    assert [each["message_id"] for each in poll(customer, endpoint)["data"]] == [message["message_id"]]
    acknowledge(customer, endpoint, message)
    since = {"since": "2026-01-01T00:00:00Z", "only_failed": False}
    many = customer.client("POST", f"{path_of(endpoint)}/redeliver", since)
    assert many.json() == {"count": 1, "is_complete": True}
    assert [each["message_id"] for each in poll(customer, endpoint)["data"]] == [message["message_id"]]
    assert not send_everything(app, database)


def test_a_disabled_endpoint_keeps_its_messages_and_collects_no_new_ones(customer: Customer) -> None:
    endpoint = create_endpoint(customer)
    shooting = factories.make_shooting(organization=customer.organization, phase="BRIEF")
    change_phase(customer, shooting.id, "PRODUCTS_SELECTION")
    assert customer.client("PATCH", path_of(endpoint), {"is_enabled": False}).status == 200
    change_phase(customer, shooting.id, "AGREEMENT")
    (message,) = poll(customer, endpoint)["data"]
    assert json.loads(message["body"])["data"]["status"] == "PRODUCTS_SELECTION"
    assert acknowledge(customer, endpoint, message) == 1


def test_after_a_rotation_both_secrets_sign(customer: Customer) -> None:
    endpoint = create_endpoint(customer)
    customer.client("POST", f"{path_of(endpoint)}/test")
    new = customer.client("POST", f"{path_of(endpoint)}/rotate-secret").json()["secret"]
    (message,) = poll(customer, endpoint)["data"]
    for secret in (endpoint["secret"], new):
        assert Webhook(secret).verify(message["body"], message["headers"])["type"] == "webhook.test"


def test_messages_of_another_endpoint_are_not_acknowledged(customer: Customer) -> None:
    endpoint, other = create_endpoint(customer), create_endpoint(customer)
    customer.client("POST", f"{path_of(other)}/test")
    (message,) = poll(customer, other)["data"]
    assert acknowledge(customer, endpoint, message) == 0
    assert len(poll(customer, other)["data"]) == 1


def test_an_endpoint_with_a_url_has_no_messages_to_poll(customer: Customer) -> None:
    push = factories.make_webhook_endpoint(organization=customer.organization)
    delivery = factories.make_webhook_delivery(push, status="pending")
    path = f"/webhook-endpoints/{push.id}/messages"
    assert status_and_code(customer.client("GET", path)) == (409, "wrong_delivery_mode")
    body = {"message_ids": [delivery.message_id]}
    assert status_and_code(customer.client("POST", f"{path}/acknowledge", body)) == (
        409,
        "wrong_delivery_mode",
    )


def test_a_pull_endpoint_gets_no_url(customer: Customer) -> None:
    endpoint = create_endpoint(customer)
    for url in ("https://hooks.example.com/sartiq", endpoint["url"]):
        rejected = customer.client("PATCH", path_of(endpoint), {"url": url})
        assert (*status_and_code(rejected), rejected.json()["pointer"]) == (
            409,
            "wrong_delivery_mode",
            "/url",
        )
    assert customer.client("PATCH", path_of(endpoint), {"description": "The shop"}).status == 200
    assert customer.client("PATCH", path_of(endpoint), {"delivery": "push"}).status == 422


@pytest.mark.parametrize(
    ("body", "violation"),
    [
        ({}, ('Is required with `delivery`: "push"', "missing")),
        ({"delivery": "push"}, ('Is required with `delivery`: "push"', "missing")),
        (
            {"delivery": "pull", "url": "https://hooks.example.com/sartiq"},
            ('Cannot be combined: `delivery`: "pull" and `url`', "not_allowed"),
        ),
    ],
)
def test_a_url_belongs_to_push_endpoints_only(
    customer: Customer, body: dict[str, Any], violation: tuple[str, str]
) -> None:
    body = {"event_types": ["shot.approved"], **body}
    response = customer.client("POST", f"/webhook-endpoints/{customer.organization_query}", body)
    assert response.status == 422
    (found,) = response.json()["detail"]
    assert (found["msg"], found["type"]) == violation


def test_a_long_poll_returns_as_soon_as_a_message_waits(
    customer: Customer, app: Application, database: Database
) -> None:
    endpoint = create_endpoint(customer)
    path = f"{path_of(endpoint)}/messages"
    with database.transaction(write=True):
        shooting = factories.make_shooting(organization=customer.organization, phase="BRIEF")

    async def scenario_steps() -> None:
        began = time.monotonic()
        waiting = open_request(customer.client, path, prefer="wait=30")
        await wait_for_listener(app)
        await asyncio.sleep(0.5)
        assert not waiting.task.done()
        await asyncio.to_thread(change_phase, customer, shooting.id, "PRODUCTS_SELECTION")
        response = await waiting.read_response()
        assert [each["event_type"] for each in response.json()["data"]] == ["shooting.phase_changed"]
        assert response.headers["preference-applied"].startswith("wait=")
        assert time.monotonic() - began < 10
        at_once = await open_request(customer.client, path, prefer="wait=30").read_response()
        assert (at_once.headers["preference-applied"], len(at_once.json()["data"])) == ("wait=0", 1)

    run_with_long_polling(app, scenario_steps)


def test_a_long_poll_ends_empty_after_its_time_or_with_404_after_a_deletion(
    customer: Customer, app: Application
) -> None:
    endpoint = create_endpoint(customer)
    path = f"{path_of(endpoint)}/messages"

    async def scenario_steps() -> None:
        empty = await open_request(customer.client, path, prefer="wait=1").read_response()
        assert (empty.status, empty.json()) == (200, {"data": [], "has_more": False})
        assert empty.headers["preference-applied"] == "wait=1"
        waiting = open_request(customer.client, path, prefer="wait=30")
        await wait_for_listener(app)
        await asyncio.to_thread(customer.client, "DELETE", path_of(endpoint))
        assert (await waiting.read_response()).status == 404

    run_with_long_polling(app, scenario_steps)
