"""Idempotency-Key: which requests are equal, which responses are stored, for which caller, and how long."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, event, select, update

import handlers.pipeline.idempotency
from db.base import utc_now
from db.models import AuditEvent, Generation, IdempotencyKey, Membership, Subscription, User
from db.session import Database, current_session
from handlers import brands
from handlers.app import Application
from handlers.pipeline.admission.limits import Limit
from studio.infrastructure.idempotency import IdempotencyLock, delete_expired_keys, store_response
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.client import ClientResponse, status_and_code
from tests.support.concurrency import PausedCall
from tests.support.factories.catalog import Customer
from tests.support.idempotency import HEADER, mark_in_progress, update_key
from tests.support.rejections import Rejections
from tests.support.scenarios import PhotographedProduct, make_product_photo

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
NORD = {"name": "Atelier Nord"}


def send_with_key(
    client: Client, path: str, as_json: Any = None, key: str = KEY, **content: Any
) -> ClientResponse:
    headers = {HEADER: key, **content.pop("headers", {})}
    return client("POST", path, as_json, headers=headers, **content)


def is_replay(response: ClientResponse) -> bool:
    return response.headers.get("idempotency-replayed") == "true"


def list_stored_keys(database: Database) -> list[IdempotencyKey]:
    with database.transaction(write=False) as reading:
        return list(reading.scalars(select(IdempotencyKey)))


def test_the_response_and_the_audit_event_are_stored_with_one_statement(
    customer: Customer, database: Database, database_engine: Engine
) -> None:
    inserts: list[str] = []

    def record(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        inserts.extend(re.findall(r"INSERT INTO (audit_events|idempotency_keys)", statement))
        statements.append(statement)

    statements: list[str] = []
    event.listen(database_engine, "before_cursor_execute", record)
    try:
        send_with_key(customer.client, "/brands/", NORD)
    finally:
        event.remove(database_engine, "before_cursor_execute", record)
    assert sorted(inserts) == ["audit_events", "idempotency_keys"]
    containing = [each for each in statements if "audit_events" in each or "INTO idempotency_keys" in each]
    assert len(containing) == 1
    with database.transaction(write=False) as reading:
        stored = reading.scalars(select(AuditEvent).where(AuditEvent.action == "create_brand")).one()
    assert (stored.target_type, stored.outcome, stored.count) == ("brand", "succeeded", 1)


def test_without_the_header_nothing_is_stored(customer: Customer, database: Database) -> None:
    customer.create("/brands/", NORD)
    assert list_stored_keys(database) == []


def test_property_order_and_explicit_defaults_do_not_change_the_request(customer: Customer) -> None:
    path = f"/products/{customer.organization_query}"
    first = send_with_key(customer.client, path, {"name": "Wrap dress", "color": "terracotta"})
    again = send_with_key(
        customer.client, f"{path}&mode=complete", {"color": "terracotta", "name": "Wrap dress"}
    )
    assert is_replay(again)
    assert again.body == first.body


def test_another_query_is_another_request(customer: Customer) -> None:
    path = f"/products/{customer.organization_query}"
    send_with_key(customer.client, path, {"name": "Wrap dress"})
    rejected = send_with_key(customer.client, f"{path}&mode=basic", {"name": "Wrap dress"})
    assert status_and_code(rejected) == (422, "idempotency_key_reused")


def build_form(boundary: str, file: bytes, kind: str = "front") -> dict[str, Any]:
    """Return a form with a photo, between the given boundary lines."""
    text = f'--{boundary}\r\nContent-Disposition: form-data; name="type"\r\n\r\n{kind}\r\n'
    head = 'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg'
    body = f"{text}--{boundary}\r\n{head}\r\n\r\n".encode() + file + f"\r\n--{boundary}--\r\n".encode()
    return {"body": body, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


def test_forms_are_compared_by_content_and_not_by_boundary(customer: Customer) -> None:
    path = f"/products/{customer.create('/products/', {'name': 'Wrap dress'})['id']}/images"
    # Larger than the in-memory limit of uploads, so that the file is read from disk twice.
    photo = make_product_photo() + bytes(1_200_000)
    first = send_with_key(customer.client, path, **build_form("one-line", photo))
    assert first.status == 201, first.body
    again = send_with_key(customer.client, path, **build_form("another-line", photo))
    assert is_replay(again)
    assert again.body == first.body
    for other in (build_form("one-line", photo + b"."), build_form("one-line", photo, "back")):
        assert status_and_code(send_with_key(customer.client, path, **other)) == (
            422,
            "idempotency_key_reused",
        )
    assert customer.client("GET", path).json()["count"] == 1


def test_s21_a_key_belongs_to_one_organization_operation_and_account(
    customer: Customer, client_for: Callable[..., Client]
) -> None:
    colleague = factories.make_user()
    factories.make_membership(customer.organization, colleague)
    second = factories.make_organization(customer.owner)
    sent = [
        send_with_key(client, path, NORD)
        for client, path in (
            (customer.client, f"/brands/{customer.organization_query}"),
            (customer.client, f"/brands/?organization_id={second.id}"),
            (customer.client, "/brands/"),
            (customer.client, f"/styles/{customer.organization_query}"),
        )
    ]
    assert [response.status for response in sent] == [201] * 4
    foreign = send_with_key(
        client_for(colleague), f"/brands/{customer.organization_query}", {"name": "Atelier Sud"}
    )
    assert foreign.status == 201
    assert not any(is_replay(response) for response in [*sent, foreign])


def test_a_conflict_is_replayed_after_its_cause_is_gone(customer: Customer) -> None:
    body, path = {**NORD, "slug": "nord"}, f"/brands/{customer.organization_query}"
    brand = customer.create("/brands/", body)
    first = send_with_key(customer.client, path, body)
    assert status_and_code(first) == (409, "slug_taken")
    customer.client("DELETE", f"/brands/{brand['id']}")
    again = send_with_key(customer.client, path, body)
    assert is_replay(again)
    assert again.json() == {**first.json(), "request_id": again.headers["x-request-id"]}
    assert again.headers["cache-control"] == first.headers["cache-control"]
    assert send_with_key(customer.client, path, body, key="another").status == 201


def test_a_404_is_replayed(customer: Customer) -> None:
    path = f"/shootings/{uuid4()}/looks"
    shot_type, product = factories.make_shot_type(), factories.make_product()
    body = {"main_product_id": str(product.id), "shot_type_ids": [str(shot_type.id)]}
    assert [
        (response.status, is_replay(response))
        for response in (send_with_key(customer.client, path, body) for _ in "12")
    ] == [
        (404, False),
        (404, True),
    ]


def test_a_denied_request_releases_the_key(customer: Customer, app: Application, client_for: Any) -> None:
    viewer = factories.make_user()
    membership = factories.make_membership(customer.organization, viewer, role="viewer")
    client = client_for(viewer)
    assert send_with_key(client, f"/brands/{customer.organization_query}", NORD).status == 403
    with app.database.transaction(write=True) as writing:
        writing.get_one(Membership, membership.id).role = "member"
    created = send_with_key(client, f"/brands/{customer.organization_query}", NORD)
    assert (created.status, is_replay(created)) == (201, False)


def test_a_request_that_violates_the_contract_does_not_use_the_key(
    customer: Customer, database: Database
) -> None:
    path = f"/brands/{customer.organization_query}"
    assert send_with_key(customer.client, path, {**NORD, "surprise": 1}).status == 422
    assert send_with_key(customer.client, path, body=b"{").status == 415
    assert list_stored_keys(database) == []
    assert send_with_key(customer.client, path, NORD).status == 201


def test_an_invalid_image_releases_the_key(customer: Customer, database: Database) -> None:
    path = f"/products/{customer.create('/products/', {'name': 'Wrap dress'})['id']}/images"
    assert status_and_code(send_with_key(customer.client, path, **build_form("a-line", b"not an image"))) == (
        415,
        "not_an_image",
    )
    assert list_stored_keys(database) == []
    assert send_with_key(customer.client, path, **build_form("a-line", make_product_photo())).status == 201


def test_a_500_is_never_stored(
    customer: Customer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    path = f"/brands/{customer.organization_query}"
    with monkeypatch.context() as patch:
        patch.setattr(brands, "created", fail)
        assert send_with_key(customer.client, path, NORD).status == 500
    assert list_stored_keys(database) == []
    created = send_with_key(customer.client, path, NORD)
    assert (created.status, is_replay(created)) == (201, False)
    assert customer.client("GET", f"/brands/{customer.organization_query}").json()["count"] == 1


def test_s21_a_key_is_one_to_255_characters(customer: Customer) -> None:
    path = f"/brands/{customer.organization_query}"
    for key in ("", "k" * 256):
        rejected = send_with_key(customer.client, path, NORD, key=key)
        assert rejected.error_types == {
            ("header", "Idempotency-Key"): "string_too_long" if key else "string_too_short"
        }
    assert send_with_key(customer.client, path, NORD, key="k" * 255).status == 201


def test_s21_neither_key_nor_password_can_be_read_from_the_database(
    superuser: Client, database: Database
) -> None:
    response = send_with_key(
        superuser, "/users/", {"email": "new@example.com", "password": "terracotta-1953"}
    )
    assert response.status == 201, response.body
    (row,) = list_stored_keys(database)
    stored = " ".join(str(getattr(row, column.key)) for column in IdempotencyKey.__table__.columns)
    assert KEY not in stored
    assert "terracotta" not in stored
    # The response is encrypted, too: some responses contain a secret that is shown once.
    assert "new@example.com" not in stored
    again = send_with_key(superuser, "/users/", {"email": "new@example.com", "password": "terracotta-1953"})
    assert again.body == response.body


def test_s21_stored_responses_are_encrypted_with_aes_gcm_and_a_new_nonce(
    customer: Customer, app: Application, database: Database
) -> None:
    path = f"/brands/{customer.organization_query}"
    response = send_with_key(customer.client, path, NORD)
    (row,) = list_stored_keys(database)
    assert row.body is not None
    assert row.body[0] == 1
    assert len(row.body) == 1 + 12 + len(response.body) + 16
    associated_data = [row.user_id, row.organization_id, row.operation_id, row.key_hash]
    secret = app.settings.secret_key.encode()
    cipher = AESGCM(hmac.digest(secret, b"stored idempotent response" + row.turn.bytes, "sha256"))
    authenticated = json.dumps([*map(str, associated_data), row.status, row.headers], sort_keys=True)
    assert cipher.decrypt(row.body[1:13], row.body[13:], authenticated.encode()) == response.body
    assert send_with_key(customer.client, path, {**NORD, "name": "Atelier Sud"}, key="another").status == 201
    first, second = list_stored_keys(database)
    assert first.body is not None
    assert second.body is not None
    assert first.body[1:13] != second.body[1:13]


def encrypt_as_version_0_1_0(app: Application, body: bytes, token: UUID) -> bytes:
    """Return a stored body as servers wrote it before AES-GCM."""
    seed = hmac.digest(app.settings.secret_key.encode(), b"kept answer" + token.bytes, "sha256")
    pad = hashlib.shake_256(seed).digest(len(body))
    return bytes(byte ^ mask for byte, mask in zip(body, pad, strict=True))


@pytest.mark.parametrize("starts_with_version_byte", [False, True])
def test_a_response_that_the_previous_version_stored_is_replayed(
    customer: Customer, app: Application, starts_with_version_byte: bool
) -> None:
    path = f"/brands/{customer.organization_query}"
    first = send_with_key(customer.client, path, NORD)
    tokens = iter(uuid4, None)
    token, body = next(
        (token, body)
        for token, body in ((token, encrypt_as_version_0_1_0(app, first.body, token)) for token in tokens)
        if (body[0] == 1) == starts_with_version_byte
    )
    assert update_key(app, KEY, body=body, turn=token) == 1
    again = send_with_key(customer.client, path, NORD)
    assert (again.status, again.body, is_replay(again)) == (201, first.body, True)


def flip_a_bit(row: IdempotencyKey) -> dict[str, Any]:
    body = row.body or b""
    return {"body": body[:-20] + bytes([body[-20] ^ 1]) + body[-19:]}


TAMPERINGS: dict[str, Callable[[IdempotencyKey], dict[str, Any]]] = {
    "a changed bit": flip_a_bit,
    "another nonce": lambda row: {"body": (row.body or b"")[:1] + bytes(12) + (row.body or b"")[13:]},
    "another version": lambda row: {"body": b"\x02" + (row.body or b"")[1:]},
    "a truncated body": lambda row: {"body": (row.body or b"")[:20]},
    "no more than the version": lambda row: {"body": (row.body or b"")[:1]},
    "an empty body": lambda row: {"body": b""},
    "no body": lambda row: {"body": None},
    "plain text": lambda row: {"body": b'{"name": "Atelier Nord"}'},
    "another token": lambda row: {"turn": uuid4()},
    "another status": lambda row: {"status": 200},
    "another header": lambda row: {"headers": {**(row.headers or {}), "Location": "https://example.com/"}},
    "no headers": lambda row: {"headers": None},
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_s21_a_stored_response_that_cannot_be_decrypted_is_503_and_not_executed_again(
    tampering: str,
    customer: Customer,
    app: Application,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    rejections: Rejections,
) -> None:
    path = f"/brands/{customer.organization_query}"
    assert send_with_key(customer.client, path, NORD).status == 201
    (row,) = list_stored_keys(database)
    assert update_key(app, KEY, **TAMPERINGS[tampering](row)) == 1
    for _ in range(2):
        response = send_with_key(customer.client, path, NORD)
        assert status_and_code(response) == (503, "unavailable")
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["detail"] == (
            "The stored response of this Idempotency-Key cannot be read; the request is not run again"
        )
        assert not is_replay(response)
    assert customer.client("GET", path).json()["count"] == 1
    assert "stored response of create_brand cannot be decrypted" in caplog.text
    assert rejections.take() == {(503, "unavailable", Limit.STORED_RESPONSE)}
    assert len(list_stored_keys(database)) == 1


def test_s21_a_stored_response_is_bound_to_its_key(
    customer: Customer, app: Application, database: Database
) -> None:
    path = f"/brands/{customer.organization_query}"
    for key in ("first", "second"):
        assert send_with_key(customer.client, path, {"name": key}, key=key).status == 201
    first = min(list_stored_keys(database), key=lambda row: row.created_at)
    assert update_key(app, "second", body=first.body, turn=first.turn, headers=first.headers) == 1
    assert status_and_code(send_with_key(customer.client, path, {"name": "second"}, key="second")) == (
        503,
        "unavailable",
    )
    assert customer.client("GET", path).json()["count"] == 2


def test_s21_a_former_superuser_gets_no_replay(
    superuser: Client, customer: Customer, app: Application, database: Database
) -> None:
    shooting = factories.make_shooting(owner=customer.owner)
    path = f"/shootings/{shooting.id}/looks"
    scope = {"owner": customer.owner}
    body = {
        "main_product_id": str(factories.make_product(**scope).id),
        "shot_type_ids": [str(factories.make_shot_type(**scope).id)],
    }
    assert send_with_key(superuser, path, body).status == 201
    (row,) = list_stored_keys(database)
    assert row.scope_id == customer.owner.id
    with app.database.transaction(write=True) as writing:
        writing.get_one(User, row.user_id).is_superuser = False
    assert send_with_key(superuser, path, body).status == 404


def test_s20_a_generation_is_charged_once_and_its_response_is_replayed_unchanged(
    client_for: Callable[..., Client], scenario: PhotographedProduct, app: Application
) -> None:
    client, path = client_for(scenario.owner), f"/shots/{scenario.shot.id}/generate"
    first = send_with_key(client, path, {"num_predictions": 2})
    assert first.status == 202, first.body
    with app.database.transaction(write=True) as writing:
        writing.scalars(select(Generation)).one().progress = 50
    again = send_with_key(client, path, {"num_predictions": 2})
    assert (again.status, again.body, is_replay(again)) == (202, first.body, True)
    with app.database.transaction(write=False) as reading:
        assert reading.get_one(Subscription, scenario.subscription.id).credits_used == 2


def test_a_key_of_a_dead_process_can_be_taken_over_after_its_lease(
    customer: Customer, app: Application
) -> None:
    path = f"/products/{customer.organization_query}"
    send_with_key(customer.client, path, {"name": "Wrap dress"})
    mark_in_progress(app, KEY)
    assert status_and_code(send_with_key(customer.client, path, {"name": "Wrap dress"})) == (
        409,
        "idempotency_key_in_progress",
    )
    update_key(app, KEY, lease_expires_at=utc_now())
    assert status_and_code(send_with_key(customer.client, path, {"name": "Mug"})) == (
        422,
        "idempotency_key_reused",
    )
    taken_over = send_with_key(customer.client, path, {"name": "Wrap dress"})
    assert (taken_over.status, is_replay(taken_over)) == (201, False)
    assert is_replay(send_with_key(customer.client, path, {"name": "Wrap dress"}))


def test_a_request_that_outlives_its_lease_stores_nothing(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store_too_late(lock: IdempotencyLock, *response: Any) -> bool:
        current_session().execute(update(IdempotencyKey).values(turn=uuid4()))
        return store_response(lock, *response)

    path = f"/products/{customer.create('/products/', {'name': 'Wrap dress'})['id']}/images"
    monkeypatch.setattr("handlers.pipeline.idempotency.store_response", store_too_late)
    # An image is decoded before the transaction, so the lock is held by a row.
    rejected = send_with_key(customer.client, path, **build_form("a-line", make_product_photo()))
    assert status_and_code(rejected) == (409, "idempotency_key_in_progress")
    # The request that took over adds the image; this one has added nothing.
    assert customer.client("GET", path).json()["count"] == 0


def test_of_two_concurrent_responses_one_is_stored_and_the_other_leaves_nothing(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store_too_late(lock: IdempotencyLock, *response: Any) -> bool:
        """Store the response of a concurrent request that started after this one had acquired its lock."""
        assert store_response(replace(lock, token=uuid4()), *response)
        return store_response(lock, *response)

    monkeypatch.setattr("handlers.pipeline.idempotency.store_response", store_too_late)
    path = f"/brands/{customer.organization_query}"
    assert status_and_code(send_with_key(customer.client, path, NORD)) == (409, "idempotency_key_in_progress")
    assert customer.client("GET", path).json()["count"] == 0


def test_a_repeat_during_the_first_request_gets_a_conflict(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused = PausedCall(monkeypatch, handlers.pipeline.idempotency, "store_encoded_response")
    send = partial(send_with_key, committing_server.client, "/brands/", NORD)
    first, again = paused.run_during_pause(send, send)
    assert (first.status, is_replay(first)) == (201, False)
    assert status_and_code(again) == (409, "idempotency_key_in_progress")
    assert again.headers["retry-after"] == "1"
    again = send()
    assert (again.body, is_replay(again)) == (first.body, True)
    assert committing_server.client("GET", "/brands/").json()["count"] == 1


def test_an_error_is_returned_only_if_it_is_stored(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, body = committing_server.client, {**NORD, "slug": "nord"}
    existing_id = client("POST", "/brands/", body).json()["id"]

    def delete_and_send() -> ClientResponse:
        assert client("DELETE", f"/brands/{existing_id}").status == 204
        return send_with_key(client, "/brands/", body)

    # The paused request has rolled back and blocks no other one, so the pause may last.
    paused = PausedCall(monkeypatch, handlers.pipeline.idempotency, "store_or_release", max_seconds=30)
    rejected, created = paused.run_during_pause(
        delete_and_send, partial(send_with_key, client, "/brands/", body)
    )
    assert (created.status, is_replay(created)) == (201, False)
    assert status_and_code(rejected) == (409, "idempotency_key_in_progress")
    again = send_with_key(client, "/brands/", body)
    assert (again.body, is_replay(again)) == (created.body, True)


def test_an_expired_idempotency_key_can_be_reused_for_rejected_requests_and_dry_runs(
    client_for: Callable[..., Client], scenario: PhotographedProduct, app: Application
) -> None:
    """Both roll back: the deleted expired row must not reappear as a running request."""
    client, shot = client_for(scenario.owner), f"/shots/{scenario.shot.id}/generate?validate_only=true"
    absent = f"/shootings/{uuid4()}/looks"
    look = {"main_product_id": str(uuid4()), "shot_type_ids": [str(uuid4())]}
    for path, body, status in ((absent, look, 404), (shot, {}, 200)):
        assert send_with_key(client, path, body, key=path).status == status
        update_key(app, path, expires_at=utc_now())
        anew = send_with_key(client, path, body, key=path)
        assert (anew.status, is_replay(anew)) == (status, False), anew.body
        again = send_with_key(client, path, body, key=path)
        assert (again.status, is_replay(again)) == (status, True), again.body


def test_a_key_expires_after_24_hours(
    customer: Customer, app: Application, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/products/{customer.organization_query}"
    for key in ("first", "second", "third", "recent"):
        send_with_key(customer.client, path, {"name": "Wrap dress"}, key=key)
    for row, key in zip(list_stored_keys(database), ("first", "second", "third", "recent"), strict=True):
        assert row.expires_at - row.created_at == timedelta(hours=24), key
    for key in ("first", "second", "third"):
        update_key(app, key, expires_at=utc_now())
    # An expired key can be reused before maintenance deletes it.
    anew = send_with_key(customer.client, path, {"name": "Mug"}, key="third")
    assert (anew.status, is_replay(anew)) == (201, False)
    monkeypatch.setattr("db.queries.statements.DELETE_BATCH_SIZE", 1)
    assert delete_expired_keys(database) == 2
    assert len(list_stored_keys(database)) == 2
    assert delete_expired_keys(database) == 0
    assert is_replay(send_with_key(customer.client, path, {"name": "Wrap dress"}, key="recent"))
