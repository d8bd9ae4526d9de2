"""Idempotency-Key: what counts as the same request, what is kept, for whom, and how long."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select, update

import handlers.pipeline.idempotency
from db.base import utc_now
from db.models import Generation, IdempotencyKey, Membership, Subscription, User
from db.session import Database, current_session
from handlers import brands
from handlers.app import Application
from studio.idempotency import IdempotencyLock, delete_expired_keys, store_response
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.client import ClientResponse
from tests.support.concurrency import PausedCall
from tests.support.factories.catalogue import Customer, status_and_code
from tests.support.idempotency import HEADER, mark_in_progress, update_key
from tests.support.scenarios import PhotographedProduct, make_product_photo

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
NORD = {"name": "Atelier Nord"}


def send_with_key(
    client: Client, path: str, as_json: Any = None, key: str = KEY, **content: Any
) -> ClientResponse:
    headers = {HEADER: key, **content.pop("headers", {})}
    return client("POST", path, as_json, headers=headers, **content)


def is_replay(reply: ClientResponse) -> bool:
    return reply.headers.get("idempotency-replayed") == "true"


def list_stored_keys(database: Database) -> list[IdempotencyKey]:
    with database.transaction(write=False) as reading:
        return list(reading.scalars(select(IdempotencyKey)))


def test_without_the_header_nothing_is_kept(customer: Customer, database: Database) -> None:
    customer.create("/brands/", NORD)
    assert list_stored_keys(database) == []


def test_the_order_of_properties_and_named_defaults_make_no_other_request(customer: Customer) -> None:
    path = f"/products/{customer.organization_query}"
    first = send_with_key(customer.client, path, {"name": "Wrap dress", "color": "terracotta"})
    again = send_with_key(
        customer.client, f"{path}&mode=complete", {"color": "terracotta", "name": "Wrap dress"}
    )
    assert is_replay(again)
    assert again.body == first.body


def test_another_query_makes_another_request(customer: Customer) -> None:
    path = f"/products/{customer.organization_query}"
    send_with_key(customer.client, path, {"name": "Wrap dress"})
    refused = send_with_key(customer.client, f"{path}&mode=basic", {"name": "Wrap dress"})
    assert status_and_code(refused) == (422, "idempotency_key_reused")


def build_form(boundary: str, file: bytes, kind: str = "front") -> dict[str, Any]:
    """A photograph in a form, between lines of the sender's choice."""
    text = f'--{boundary}\r\nContent-Disposition: form-data; name="type"\r\n\r\n{kind}\r\n'
    head = 'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg'
    body = f"{text}--{boundary}\r\n{head}\r\n\r\n".encode() + file + f"\r\n--{boundary}--\r\n".encode()
    return {"body": body, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


def test_forms_are_compared_by_their_content_and_not_by_their_boundary(customer: Customer) -> None:
    path = f"/products/{customer.create('/products/', {'name': 'Wrap dress'})['id']}/images"
    # Larger than what is held in memory, so that the file has to be read twice from disk.
    picture = make_product_photo() + bytes(1_200_000)
    first = send_with_key(customer.client, path, **build_form("one-line", picture))
    assert first.status == 201, first.body
    again = send_with_key(customer.client, path, **build_form("another-line", picture))
    assert is_replay(again)
    assert again.body == first.body
    for other in (build_form("one-line", picture + b"."), build_form("one-line", picture, "back")):
        assert status_and_code(send_with_key(customer.client, path, **other)) == (
            422,
            "idempotency_key_reused",
        )
    assert customer.client("GET", path).json()["count"] == 1


def test_s21_the_same_key_counts_for_each_organization_operation_and_account_alone(
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
    assert [reply.status for reply in sent] == [201] * 4
    foreign = send_with_key(
        client_for(colleague), f"/brands/{customer.organization_query}", {"name": "Atelier Sud"}
    )
    assert foreign.status == 201
    assert not any(is_replay(reply) for reply in [*sent, foreign])


def test_a_conflict_is_answered_again_although_its_reason_is_gone(customer: Customer) -> None:
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


def test_what_is_not_there_is_answered_again(customer: Customer) -> None:
    path = f"/shootings/{uuid4()}/looks"
    shot_type, product = factories.make_shot_type(), factories.make_product()
    body = {"main_product_id": str(product.id), "shot_type_ids": [str(shot_type.id)]}
    assert [
        (reply.status, is_replay(reply))
        for reply in (send_with_key(customer.client, path, body) for _ in "12")
    ] == [
        (404, False),
        (404, True),
    ]


def test_a_refused_permission_frees_the_key(customer: Customer, app: Application, client_for: Any) -> None:
    viewer = factories.make_user()
    membership = factories.make_membership(customer.organization, viewer, role="viewer")
    client = client_for(viewer)
    assert send_with_key(client, f"/brands/{customer.organization_query}", NORD).status == 403
    with app.database.transaction(write=True) as writing:
        writing.get_one(Membership, membership.id).role = "member"
    created = send_with_key(client, f"/brands/{customer.organization_query}", NORD)
    assert (created.status, is_replay(created)) == (201, False)


def test_what_the_contract_refuses_leaves_the_key_alone(customer: Customer, database: Database) -> None:
    path = f"/brands/{customer.organization_query}"
    assert send_with_key(customer.client, path, {**NORD, "surprise": 1}).status == 422
    assert send_with_key(customer.client, path, body=b"{").status == 415
    assert list_stored_keys(database) == []
    assert send_with_key(customer.client, path, NORD).status == 201


def test_bytes_that_are_no_picture_leave_the_key_free(customer: Customer, database: Database) -> None:
    path = f"/products/{customer.create('/products/', {'name': 'Wrap dress'})['id']}/images"
    assert status_and_code(send_with_key(customer.client, path, **build_form("a-line", b"no picture"))) == (
        415,
        "not_an_image",
    )
    assert list_stored_keys(database) == []
    assert send_with_key(customer.client, path, **build_form("a-line", make_product_photo())).status == 201


def test_a_defect_and_a_dead_database_are_never_kept(
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
        refused = send_with_key(customer.client, path, NORD, key=key)
        assert refused.error_types == {
            ("header", "Idempotency-Key"): "string_too_long" if key else "string_too_short"
        }
    assert send_with_key(customer.client, path, NORD, key="k" * 255).status == 201


def test_s21_neither_key_nor_password_can_be_read_from_the_database(
    superuser: Client, database: Database
) -> None:
    reply = send_with_key(superuser, "/users/", {"email": "new@example.com", "password": "terracotta-1953"})
    assert reply.status == 201, reply.body
    (row,) = list_stored_keys(database)
    kept = " ".join(str(getattr(row, column.key)) for column in IdempotencyKey.__table__.columns)
    assert KEY not in kept
    assert "terracotta" not in kept
    # Nor the answer: some answers hold a secret that is shown once.
    assert "new@example.com" not in kept
    again = send_with_key(superuser, "/users/", {"email": "new@example.com", "password": "terracotta-1953"})
    assert again.body == reply.body


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
            "The stored response of this Idempotency-Key cannot be read; the request is not repeated"
        )
        assert not is_replay(response)
    assert customer.client("GET", path).json()["count"] == 1
    assert "stored response of create_brand cannot be decrypted" in caplog.text
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


def test_s21_a_superuser_of_yesterday_gets_no_answer_of_yesterday(
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


def test_s20_a_generation_is_paid_once_and_told_as_it_was(
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


def test_work_of_a_dead_process_is_taken_over_when_its_lease_expires(
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


def test_who_is_slower_than_the_lease_keeps_nothing(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_too_late(turn: IdempotencyLock, *answer: Any) -> bool:
        current_session().execute(update(IdempotencyKey).values(turn=uuid4()))
        return store_response(turn, *answer)

    path = f"/products/{customer.create('/products/', {'name': 'Wrap dress'})['id']}/images"
    monkeypatch.setattr("handlers.pipeline.idempotency.store_response", keep_too_late)
    # A picture is decoded before there is a transaction that could be the turn.
    refused = send_with_key(customer.client, path, **build_form("a-line", make_product_photo()))
    assert status_and_code(refused) == (409, "idempotency_key_in_progress")
    # Whoever took over adds the picture; here is nothing left of it.
    assert customer.client("GET", path).json()["count"] == 0


def test_of_two_concurrent_responses_one_is_stored_and_the_other_leaves_nothing(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_too_late(turn: IdempotencyLock, *answer: Any) -> bool:
        """Keep what another send is answered, which ends just after this one looked for it."""
        assert store_response(replace(turn, token=uuid4()), *answer)
        return store_response(turn, *answer)

    monkeypatch.setattr("handlers.pipeline.idempotency.store_response", keep_too_late)
    path = f"/brands/{customer.organization_query}"
    assert status_and_code(send_with_key(customer.client, path, NORD)) == (409, "idempotency_key_in_progress")
    assert customer.client("GET", path).json()["count"] == 0


def test_a_repeat_during_the_first_request_gets_a_conflict_or_waits_for_the_response(
    committing_server: CommittingServer, database_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = PausedCall(monkeypatch, handlers.pipeline.idempotency, "store_encoded_response")
    send = partial(send_with_key, committing_server.client, "/brands/", NORD)
    answer, again = first.run_during_pause(send, send)
    assert (answer.status, is_replay(answer)) == (201, False)
    if database_kind == "postgresql":
        assert status_and_code(again) == (409, "idempotency_key_in_progress")
        assert again.headers["retry-after"] == "1"
        again = send()
    assert (again.body, is_replay(again)) == (answer.body, True)
    assert committing_server.client("GET", "/brands/").json()["count"] == 1


def test_what_is_refused_is_told_only_where_it_is_kept(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, body = committing_server.client, {**NORD, "slug": "nord"}
    in_the_way = client("POST", "/brands/", body).json()["id"]

    def send_when_the_way_is_free() -> ClientResponse:
        assert client("DELETE", f"/brands/{in_the_way}").status == 204
        return send_with_key(client, "/brands/", body)

    # The paused request has rolled back and blocks no other one, so the pause may last.
    refused = PausedCall(monkeypatch, handlers.pipeline.idempotency, "store_or_release", max_seconds=30)
    answer, made = refused.run_during_pause(
        send_when_the_way_is_free, partial(send_with_key, client, "/brands/", body)
    )
    assert (made.status, is_replay(made)) == (201, False)
    assert status_and_code(answer) == (409, "idempotency_key_in_progress")
    again = send_with_key(client, "/brands/", body)
    assert (again.body, is_replay(again)) == (made.body, True)


def test_an_expired_idempotency_key_can_be_reused_for_rejected_requests_and_dry_runs(
    client_for: Callable[..., Client], scenario: PhotographedProduct, app: Application
) -> None:
    """Both undo what the request did: the row that is over must not come back and be taken for work."""
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


def test_a_key_is_forgotten_after_a_day(
    customer: Customer, app: Application, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/products/{customer.organization_query}"
    for key in ("first", "second", "third", "young"):
        send_with_key(customer.client, path, {"name": "Wrap dress"}, key=key)
    for row, key in zip(list_stored_keys(database), ("first", "second", "third", "young"), strict=True):
        assert row.expires_at - row.created_at == timedelta(hours=24), key
    for key in ("first", "second", "third"):
        update_key(app, key, expires_at=utc_now())
    # Before the upkeep comes round, the key is as good as new already.
    anew = send_with_key(customer.client, path, {"name": "Mug"}, key="third")
    assert (anew.status, is_replay(anew)) == (201, False)
    monkeypatch.setattr("db.queries.statements.DELETE_BATCH_SIZE", 1)
    assert delete_expired_keys(database) == 2
    assert len(list_stored_keys(database)) == 2
    assert delete_expired_keys(database) == 0
    assert is_replay(send_with_key(customer.client, path, {"name": "Wrap dress"}, key="young"))
