"""Test the content, the recipients and the signature of webhook messages (Standard Webhooks)."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import time_machine
from sqlalchemy import select
from standardwebhooks.webhooks import WebhookVerificationError

from db.base import utc_now
from db.models import WebhookDelivery, WebhookEndpoint
from db.session import Database, current_session
from studio.webhooks import endpoints, outbox, queue
from studio.webhooks.signing import derive_secret, generate_salt
from tests.support import factories
from tests.support.servers.webhook_receiver import (
    SETTINGS,
    START,
    WebhookReceiver,
    get_endpoint,
    get_only_delivery,
    list_rows,
    make_endpoint,
    publish_event,
    send_next_delivery,
    verify_signature,
)


def test_a_message_is_signed_as_standard_webhooks_requires(
    database: Database, receiver: WebhookReceiver
) -> None:
    organization = factories.make_organization()
    endpoint = make_endpoint(receiver, organization=organization)
    publish_event(database, endpoint)
    assert send_next_delivery(database, receiver)
    (request,) = receiver.recorder.requests
    assert (request.method, request.path) == ("POST", "/hooks")
    assert request.headers["content-type"] == "application/json"
    body = verify_signature(request, derive_secret(SETTINGS.secret_key, endpoint.secret_salt))
    delivery = get_only_delivery(database)
    assert body == {
        "type": "generation.completed",
        "timestamp": delivery.payload["timestamp"],
        "data": {
            "id": str(endpoint.id),
            "organization_id": str(organization.id),
            "status": "completed",
            "url": f"https://api.example.com/api/v1/generations/{endpoint.id}",
            "shot_id": None,
            "product": None,
        },
    }
    assert request.headers["webhook-id"] == delivery.message_id
    assert (delivery.status, delivery.attempts, delivery.last_status_code) == ("delivered", 1, 204)
    assert (delivery.next_attempt_at, delivery.last_error) == (None, None)
    assert not send_next_delivery(database, receiver)
    with pytest.raises(WebhookVerificationError):
        verify_signature(request, derive_secret(SETTINGS.secret_key, generate_salt()))


def test_both_secrets_sign_for_24_hours_after_a_rotation(
    database: Database, receiver: WebhookReceiver
) -> None:
    with time_machine.travel(START) as clock:
        endpoint = make_endpoint(receiver)
        old_secret = derive_secret(SETTINGS.secret_key, endpoint.secret_salt)
        with database.transaction(write=True):
            # unscoped: the row of this test
            found = (
                current_session()
                .scalars(select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint.id))
                .one()
            )
            endpoints.rotate_webhook_secret(found)
        secret = derive_secret(SETTINGS.secret_key, found.secret_salt)
        assert secret != old_secret
        publish_event(database, endpoint)
        send_next_delivery(database, receiver)
        request = receiver.recorder.requests[-1]
        assert len(request.headers["webhook-signature"].split(" ")) == 2
        assert verify_signature(request, secret) == verify_signature(request, old_secret)
        clock.shift(timedelta(hours=24, seconds=1))
        publish_event(database, endpoint)
        send_next_delivery(database, receiver)
        assert verify_signature(receiver.recorder.requests[-1], secret)
        with pytest.raises(WebhookVerificationError):
            verify_signature(receiver.recorder.requests[-1], old_secret)
        queue.delete_old_deliveries(database)
        assert get_endpoint(database, endpoint).previous_secret_salt is None


def test_a_rollback_discards_the_message(database: Database, receiver: WebhookReceiver) -> None:
    endpoint = make_endpoint(receiver)

    def fail_after_publishing() -> None:
        with database.transaction(write=True):
            ids = {"shot_id": None, "product": None}
            outbox.publish("generation.completed", endpoint, "completed", "/api/v1/generations/1", **ids)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_publishing()
    assert list_rows(database, WebhookDelivery) == []
    assert not send_next_delivery(database, receiver)


def test_only_endpoints_of_the_same_tenant_and_event_type_get_a_message(
    database: Database, receiver: WebhookReceiver
) -> None:
    owner = factories.make_user()
    organization = factories.make_organization(owner)
    subscribed = [make_endpoint(receiver, organization=organization) for _ in range(2)]
    for other in (
        {"organization": organization, "event_types": ["shot.rejected"]},
        {"organization": organization, "is_enabled": False},
        {"organization": factories.make_organization(owner)},
        {"owner": owner},
        {},
    ):
        make_endpoint(receiver, **other)
    publish_event(database, subscribed[0])
    deliveries = list_rows(database, WebhookDelivery)
    assert {delivery.endpoint_id for delivery in deliveries} == {endpoint.id for endpoint in subscribed}
    assert len({delivery.message_id for delivery in deliveries}) == 1


def test_an_event_of_a_personal_row_is_sent_to_the_personal_endpoints_of_its_owner(
    database: Database, receiver: WebhookReceiver
) -> None:
    endpoint = make_endpoint(receiver)
    make_endpoint(receiver)
    publish_event(database, endpoint)
    assert get_only_delivery(database).endpoint_id == endpoint.id


def test_a_delivery_does_not_change_the_etag_of_its_endpoint(
    database: Database, receiver: WebhookReceiver
) -> None:
    endpoint = make_endpoint(receiver)
    publish_event(database, endpoint)
    send_next_delivery(database, receiver)
    assert get_endpoint(database, endpoint).updated_at == endpoint.updated_at


def test_deliveries_are_kept_for_30_days(database: Database, receiver: WebhookReceiver) -> None:
    endpoint = make_endpoint(receiver)
    factories.make_webhook_delivery(endpoint, created_at=utc_now() - timedelta(days=30, minutes=1))
    kept = factories.make_webhook_delivery(endpoint, created_at=utc_now() - timedelta(days=29))
    assert queue.delete_old_deliveries(database) == 1
    assert get_only_delivery(database).id == kept.id


def test_a_secret_cannot_be_derived_from_the_database_alone(
    database: Database, receiver: WebhookReceiver
) -> None:
    endpoint = make_endpoint(receiver)
    secret = derive_secret(SETTINGS.secret_key, endpoint.secret_salt)
    assert secret == derive_secret(SETTINGS.secret_key, endpoint.secret_salt)
    assert secret != derive_secret("another secret key that is long enough", endpoint.secret_salt)
    assert endpoint.secret_salt not in secret


def test_a_stored_payload_is_encoded_to_the_same_body_each_time() -> None:
    payload = {"type": "shot.approved", "timestamp": "t", "data": {"id": "1", "url": "/api/v1/shots/1"}}
    text = outbox.encode_body(payload, "https://api.example.com")
    assert text == outbox.encode_body(json.loads(json.dumps(payload)), "https://api.example.com")
    assert json.loads(text)["data"]["url"] == "https://api.example.com/api/v1/shots/1"
