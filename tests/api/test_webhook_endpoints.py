"""Webhook endpoints through the API: secrets, targets, events of the workflow, the log and redeliveries."""

from __future__ import annotations

import json
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
from studio.jobs import queue as generations
from studio.media.storage import LocalDisk
from studio.outbound import Outbound
from studio.webhooks.senders import send_next
from tests import factories
from tests.api.catalogue import House, code_of
from tests.api.conftest import Client
from tests.listening import Listening, listening
from tests.production import LEASE, Production
from tests.serving import REACHABLE_HOST

URL = f"http://{REACHABLE_HOST}/hooks"


def new_endpoint(house: House, **body: Any) -> dict[str, Any]:
    return house.create("/webhook-endpoints/", {"url": URL, "event_types": ["shot.approved"], **body})


def path_of(endpoint: dict[str, Any]) -> str:
    return f"/webhook-endpoints/{endpoint['id']}"


def payloads(house: House, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """What was queued for an endpoint, the oldest first."""
    reply = house.client("GET", f"{path_of(endpoint)}/deliveries?sort=created_at")
    return [row["payload"] for row in reply.json()["data"]]


def test_the_secret_is_shown_by_the_answers_that_make_it_and_by_no_other(
    house: House, database: Database
) -> None:
    reply = house.client(
        "POST", f"/webhook-endpoints/{house.scope}", {"url": URL, "event_types": ["shot.approved"]}
    )
    made = reply.json()
    assert reply.status == 201
    assert reply.headers["cache-control"] == "no-store"
    secret = made.pop("secret")
    assert made == {
        "id": made["id"],
        "created_at": made["created_at"],
        "updated_at": made["updated_at"],
        "owner_id": str(house.owner.id),
        "organization_id": str(house.organization.id),
        "url": URL,
        "description": None,
        "event_types": ["shot.approved"],
        "is_enabled": True,
        "disabled_at": None,
        "disabled_reason": None,
        "failing_since": None,
        "previous_secret_expires_at": None,
    }
    assert house.client("GET", path_of(made)).json() == made
    assert house.client("GET", f"/webhook-endpoints/{house.scope}").json()["data"] == [made]
    rotated = house.client("POST", f"{path_of(made)}/rotate-secret")
    assert rotated.headers["cache-control"] == "no-store"
    assert rotated.json()["secret"] != secret
    assert rotated.json()["previous_secret_expires_at"] is not None
    changed = house.client("PATCH", path_of(made), {"description": "The shop"}).json()
    assert "secret" not in changed
    with database.transaction(write=False) as reading:
        # unscoped: the rows of this test
        (row,) = reading.scalars(select(WebhookEndpoint)).all()
        assert secret not in str(vars(row))


def test_members_see_endpoints_and_only_admins_manage_them(
    house: House, client_of: Callable[..., Client]
) -> None:
    endpoint = new_endpoint(house)
    member, admin = factories.make_user(), factories.make_user()
    factories.make_membership(house.organization, member, role="member")
    factories.make_membership(house.organization, admin, role="admin")
    assert client_of(member)("GET", path_of(endpoint)).status == 200
    assert client_of(member)("GET", f"{path_of(endpoint)}/deliveries").status == 200
    for method, path in (("POST", "/rotate-secret"), ("POST", "/test"), ("DELETE", "")):
        assert client_of(member)(method, path_of(endpoint) + path).status == 403
    assert client_of(admin)("POST", f"{path_of(endpoint)}/test").status == 202


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
def test_s09_an_address_inside_is_refused_at_creation_and_at_every_change(house: House, url: str) -> None:
    refused = house.client(
        "POST", f"/webhook-endpoints/{house.scope}", {"url": url, "event_types": ["shot.approved"]}
    )
    assert code_of(refused) == (409, "target_not_allowed")
    assert house.client("GET", f"/webhook-endpoints/{house.scope}").json()["count"] == 0
    row = factories.make_webhook_endpoint(organization=house.organization)
    refused = house.client("PATCH", f"/webhook-endpoints/{row.id}", {"url": url})
    assert code_of(refused) == (409, "target_not_allowed")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1/", "https://a b.example.com/"])
def test_what_is_no_address_of_the_web_breaks_the_contract(house: House, url: str) -> None:
    body = {"url": url, "event_types": ["shot.approved"]}
    assert house.client("POST", f"/webhook-endpoints/{house.scope}", body).status == 422


def test_a_scope_has_at_most_twenty_endpoints(house: House) -> None:
    for _ in range(20):
        factories.make_webhook_endpoint(organization=house.organization)
    body = {"url": URL, "event_types": ["shot.approved"]}
    full = house.client("POST", f"/webhook-endpoints/{house.scope}", body)
    assert code_of(full) == (409, "too_many_endpoints")
    assert house.client("POST", "/webhook-endpoints/", body).status == 201


def test_an_endpoint_that_is_disabled_gets_nothing_until_it_is_enabled_again(house: House) -> None:
    endpoint = new_endpoint(house, event_types=["shooting.phase_changed"])
    off = house.client("PATCH", path_of(endpoint), {"is_enabled": False}).json()
    assert (off["is_enabled"], off["disabled_reason"]) == (False, "manual")
    assert off["disabled_at"] is not None
    assert code_of(house.client("POST", f"{path_of(endpoint)}/test")) == (409, "endpoint_disabled")
    shooting = factories.make_shooting(organization=house.organization, phase="BRIEF")
    house.client("PATCH", f"/shootings/{shooting.id}", {"phase": "PRODUCTS_SELECTION"})
    on = house.client("PATCH", path_of(endpoint), {"is_enabled": True}).json()
    assert (on["is_enabled"], on["disabled_reason"], on["disabled_at"]) == (True, None, None)
    assert payloads(house, endpoint) == []
    house.client("PATCH", f"/shootings/{shooting.id}", {"phase": "PRODUCTS_SELECTION"})
    house.client("PATCH", f"/shootings/{shooting.id}", {"phase": "AGREEMENT"})
    (payload,) = payloads(house, endpoint)
    assert payload["type"] == "shooting.phase_changed"
    assert payload["data"] == {
        "id": str(shooting.id),
        "organization_id": str(house.organization.id),
        "status": "AGREEMENT",
        "url": f"http://localhost:8000/api/v1/shootings/{shooting.id}",
    }


def test_the_events_of_a_shot_name_its_shooting_and_its_picture(house: House) -> None:
    endpoint = new_endpoint(house, event_types=["shot.approved", "shot.rejected"])
    shooting = factories.make_shooting(organization=house.organization)
    shots = [factories.make_shot(factories.make_look(shooting), status="pending_review") for _ in range(2)]
    prediction = factories.make_prediction(factories.make_generation(shots[0], status="completed"))
    assert house.client("POST", f"/shots/{shots[0].id}/approve", {}).status == 200
    assert house.client("POST", f"/shots/{shots[1].id}/reject", {"reason": "Too dark"}).status == 200
    # A refused step tells nothing.
    assert house.client("POST", f"/shots/{shots[1].id}/reject", {"reason": "Too dark"}).status == 409
    approved, rejected = payloads(house, endpoint)
    assert (approved["type"], approved["data"]["status"]) == ("shot.approved", "approved")
    assert approved["data"]["prediction_id"] == str(prediction.id)
    assert (rejected["type"], rejected["data"]["id"]) == ("shot.rejected", str(shots[1].id))
    assert rejected["data"]["shooting_id"] == str(shooting.id)


def test_every_end_of_a_generation_is_an_event(
    client_of: Callable[..., Client], production: Production, database: Database, storage: LocalDisk
) -> None:
    house = House(client_of(production.owner), production.owner, production.organization)
    ends = ["canceled", "failed", "completed", "expired"]
    endpoint = new_endpoint(house, event_types=[f"generation.{end}" for end in ends])

    def claimed() -> generations.Claim:
        claim = generations.claim_next(database, "test", LEASE)
        assert claim is not None
        return claim

    def new_generation(**columns: Any) -> str:
        return str(factories.make_generation(production.shot, **columns).id)

    ids = [new_generation()]
    assert house.client("POST", f"/generations/{ids[0]}/cancel").status == 200
    ids.append(new_generation())
    generations.fail(database, claimed(), generations.INTERNAL_ERROR)
    ids.append(new_generation())
    assert generations.finish(database, storage, claimed(), [])
    ids.append(new_generation(deadline_at=utc_now() - timedelta(seconds=1)))
    assert generations.settle_overdue(database) == 1
    told = payloads(house, endpoint)
    assert [one["type"] for one in told] == [f"generation.{end}" for end in ends]
    assert [one["data"]["status"] for one in told] == ends
    assert [one["data"]["id"] for one in told] == ids
    assert {one["data"]["shot_id"] for one in told} == {str(production.shot.id)}


@pytest.fixture
def receiver() -> Iterator[Listening]:
    with listening() as at:
        yield at


def deliver(app: Application, database: Database, receiver: Listening) -> None:
    """Send everything that is due, to the receiver instead of where nobody answers."""
    while send_next(app.settings, database, Outbound([receiver.host]), "test"):
        pass


def test_a_test_event_is_sent_and_its_delivery_followed(
    house: House, app: Application, database: Database, receiver: Listening
) -> None:
    row = factories.make_webhook_endpoint(organization=house.organization, url=f"{receiver.url}/hooks")
    secret = house.client("POST", f"/webhook-endpoints/{row.id}/rotate-secret").json()["secret"]
    reply = house.client("POST", f"/webhook-endpoints/{row.id}/test")
    queued = reply.json()
    assert reply.status == 202
    assert (queued["status"], queued["attempts"], queued["event_type"]) == ("pending", 0, "webhook.test")
    deliver(app, database, receiver)
    (asked,) = receiver.asked
    assert Webhook(secret).verify(asked.body, dict(asked.headers)) == queued["payload"]
    delivered = house.client("GET", reply.headers["location"].removeprefix("/api/v1")).json()
    assert (delivered["status"], delivered["last_status_code"]) == ("delivered", 200)
    assert delivered["delivered_at"] is not None
    assert delivered["message_id"] == asked.headers["webhook-id"]


def test_test_events_that_wait_are_bounded(house: House) -> None:
    row = factories.make_webhook_endpoint(organization=house.organization)
    for _ in range(50):
        factories.make_webhook_delivery(row, event_type="webhook.test", status="pending")
    assert code_of(house.client("POST", f"/webhook-endpoints/{row.id}/test")) == (409, "queue_full")


def test_one_message_is_sent_again_under_its_id(
    house: House, app: Application, database: Database, receiver: Listening
) -> None:
    row = factories.make_webhook_endpoint(organization=house.organization, url=receiver.url)
    failed = factories.make_webhook_delivery(row)
    path = f"/webhook-endpoints/{row.id}/deliveries/{failed.id}"
    again = house.client("POST", f"{path}/redeliver")
    assert (again.status, again.json()["status"]) == (202, "pending")
    assert again.headers["location"] == f"/api/v1{path}"
    deliver(app, database, receiver)
    shown = house.client("GET", path).json()
    assert (shown["status"], shown["attempts"], shown["last_error"]) == ("delivered", 11, None)
    assert [asked.headers["webhook-id"] for asked in receiver.asked] == [failed.message_id]


def test_a_range_is_sent_again_once(
    house: House, app: Application, database: Database, receiver: Listening
) -> None:
    row = factories.make_webhook_endpoint(organization=house.organization, url=receiver.url)
    now = utc_now()
    for hours, status in ((1, "failed"), (2, "failed"), (3, "delivered"), (9, "failed")):
        factories.make_webhook_delivery(row, status=status, created_at=now - timedelta(hours=hours))
    factories.make_webhook_delivery(
        factories.make_webhook_endpoint(organization=house.organization), created_at=now - timedelta(hours=1)
    )
    path = f"/webhook-endpoints/{row.id}/redeliver"
    window = {"since": (now - timedelta(hours=5)).isoformat(), "until": now.isoformat()}
    reply = house.client("POST", path, window)
    assert (reply.status, reply.json()) == (202, {"count": 2, "is_complete": True})
    assert house.client("POST", path, window).json()["count"] == 0
    waiting = house.client("GET", reply.headers["location"].removeprefix("/api/v1")).json()
    assert waiting["count"] == 2
    deliver(app, database, receiver)
    assert len(receiver.asked) == 2
    everything = house.client("POST", path, {**window, "only_failed": False}).json()
    assert everything == {"count": 3, "is_complete": True}
    upside_down = {"since": window["until"], "until": window["since"]}
    assert house.client("POST", path, upside_down).json()["count"] == 0


def test_a_long_range_is_taken_in_parts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.webhooks.endpoints.MOST_REDELIVERED", 2)
    row = factories.make_webhook_endpoint(organization=house.organization)
    for _ in range(3):
        factories.make_webhook_delivery(row)
    path, body = f"/webhook-endpoints/{row.id}/redeliver", {"since": "2026-01-01T00:00:00Z"}
    assert house.client("POST", path, body).json() == {"count": 2, "is_complete": False}
    assert house.client("POST", path, body).json() == {"count": 1, "is_complete": True}


def test_the_log_is_filtered_and_tells_nothing_that_the_target_said(
    house: House, app: Application, database: Database
) -> None:
    row = factories.make_webhook_endpoint(organization=house.organization)
    factories.make_webhook_delivery(row, event_type="shot.approved", status="delivered")
    factories.make_webhook_delivery(row)
    path = f"/webhook-endpoints/{row.id}/deliveries"
    (failed,) = house.client("GET", f"{path}?status=failed").json()["data"]
    assert set(failed) == {
        "id", "created_at", "updated_at", "endpoint_id", "message_id", "event_type", "status", "attempts",
        "next_attempt_at", "last_attempt_at", "last_status_code", "last_error", "delivered_at", "payload",
    }  # fmt: skip
    approved = house.client("GET", f"{path}?event_type=shot.approved&status=failed").json()
    assert approved["count"] == 0
    assert house.client("GET", f"{path}?event_type=shot.approved").json()["count"] == 1


def test_a_delivery_is_found_below_its_own_endpoint_only(house: House) -> None:
    one, other = (factories.make_webhook_endpoint(organization=house.organization) for _ in range(2))
    delivery = factories.make_webhook_delivery(one)
    path = f"/webhook-endpoints/{other.id}/deliveries/{delivery.id}"
    assert house.client("GET", path).status == 404
    assert house.client("POST", f"{path}/redeliver").status == 404


def test_a_deleted_endpoint_takes_its_log_with_it(house: House, database: Database) -> None:
    endpoint = new_endpoint(house)
    house.client("POST", f"{path_of(endpoint)}/test")
    assert house.client("DELETE", path_of(endpoint)).status == 204
    assert house.client("GET", path_of(endpoint)).status == 404
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(WebhookDelivery)).all() == []


def test_the_events_of_the_contract_are_those_that_endpoints_can_ask_for(app: Application) -> None:
    contract = json.loads(app.app.config["CONTRACT_JSON"])["components"]["schemas"]
    known = set(contract["WebhookEventType"]["enum"])
    offered = set(contract["WebhookSubscription"]["enum"])
    assert known == offered | {"webhook.test"}
