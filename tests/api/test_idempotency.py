"""Idempotency-Key: what counts as the same request, what is kept, for whom, and how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, update

import handlers.idempotency
from db.base import utc_now
from db.models import Generation, IdempotencyKey, Membership, Subscription, User
from db.session import Database, session
from handlers import brands
from handlers.app import Application
from studio import idempotency
from studio.idempotency import Turn, forget_expired, keep_answer
from tests import factories
from tests.api.catalogue import House, code_of
from tests.api.conftest import Client, Committed
from tests.contract.keys import HEADER, back_to_work, change_key
from tests.contract.mini.asking import Reply
from tests.overtaking import Begun
from tests.production import Production, photograph

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
NORD = {"name": "Atelier Nord"}


def keyed(client: Client, path: str, as_json: Any = None, key: str = KEY, **content: Any) -> Reply:
    headers = {HEADER: key, **content.pop("headers", {})}
    return client("POST", path, as_json, headers=headers, **content)


def is_replay(reply: Reply) -> bool:
    return reply.headers.get("idempotency-replayed") == "true"


def kept_keys(database: Database) -> list[IdempotencyKey]:
    with database.transaction(write=False) as reading:
        return list(reading.scalars(select(IdempotencyKey)))


def test_without_the_header_nothing_is_kept(house: House, database: Database) -> None:
    house.create("/brands/", NORD)
    assert kept_keys(database) == []


def test_the_order_of_properties_and_named_defaults_make_no_other_request(house: House) -> None:
    path = f"/products/{house.scope}"
    first = keyed(house.client, path, {"name": "Wrap dress", "color": "terracotta"})
    again = keyed(house.client, f"{path}&mode=complete", {"color": "terracotta", "name": "Wrap dress"})
    assert is_replay(again)
    assert again.body == first.body


def test_another_query_makes_another_request(house: House) -> None:
    path = f"/products/{house.scope}"
    keyed(house.client, path, {"name": "Wrap dress"})
    refused = keyed(house.client, f"{path}&mode=basic", {"name": "Wrap dress"})
    assert code_of(refused) == (422, "idempotency_key_reused")


def form(boundary: str, file: bytes, kind: str = "front") -> dict[str, Any]:
    """A photograph in a form, between lines of the sender's choice."""
    text = f'--{boundary}\r\nContent-Disposition: form-data; name="type"\r\n\r\n{kind}\r\n'
    head = 'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg'
    body = f"{text}--{boundary}\r\n{head}\r\n\r\n".encode() + file + f"\r\n--{boundary}--\r\n".encode()
    return {"body": body, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


def test_forms_are_compared_by_their_content_and_not_by_their_boundary(house: House) -> None:
    path = f"/products/{house.create('/products/', {'name': 'Wrap dress'})['id']}/images"
    # Larger than what is held in memory, so that the file has to be read twice from disk.
    picture = photograph() + bytes(1_200_000)
    first = keyed(house.client, path, **form("one-line", picture))
    assert first.status == 201, first.body
    again = keyed(house.client, path, **form("another-line", picture))
    assert is_replay(again)
    assert again.body == first.body
    for other in (form("one-line", picture + b"."), form("one-line", picture, "back")):
        assert code_of(keyed(house.client, path, **other)) == (422, "idempotency_key_reused")
    assert house.client("GET", path).json()["count"] == 1


def test_s21_the_same_key_counts_for_each_organization_operation_and_account_alone(
    house: House, client_of: Callable[..., Client]
) -> None:
    colleague = factories.make_user()
    factories.make_membership(house.organization, colleague)
    second = factories.make_organization(house.owner)
    sent = [
        keyed(client, path, NORD)
        for client, path in (
            (house.client, f"/brands/{house.scope}"),
            (house.client, f"/brands/?organization_id={second.id}"),
            (house.client, "/brands/"),
            (house.client, f"/styles/{house.scope}"),
        )
    ]
    assert [reply.status for reply in sent] == [201] * 4
    foreign = keyed(client_of(colleague), f"/brands/{house.scope}", {"name": "Atelier Sud"})
    assert foreign.status == 201
    assert not any(is_replay(reply) for reply in [*sent, foreign])


def test_a_conflict_is_answered_again_although_its_reason_is_gone(house: House) -> None:
    body, path = {**NORD, "slug": "nord"}, f"/brands/{house.scope}"
    brand = house.create("/brands/", body)
    first = keyed(house.client, path, body)
    assert code_of(first) == (409, "slug_taken")
    house.client("DELETE", f"/brands/{brand['id']}")
    again = keyed(house.client, path, body)
    assert is_replay(again)
    assert again.json() == {**first.json(), "request_id": again.headers["x-request-id"]}
    assert again.headers["cache-control"] == first.headers["cache-control"]
    assert keyed(house.client, path, body, key="another").status == 201


def test_what_is_not_there_is_answered_again(house: House) -> None:
    path = f"/shootings/{uuid4()}/looks"
    shot_type, product = factories.make_shot_type(), factories.make_product()
    body = {"main_product_id": str(product.id), "shot_type_ids": [str(shot_type.id)]}
    assert [
        (reply.status, is_replay(reply)) for reply in (keyed(house.client, path, body) for _ in "12")
    ] == [
        (404, False),
        (404, True),
    ]


def test_a_refused_permission_frees_the_key(house: House, app: Application, client_of: Any) -> None:
    viewer = factories.make_user()
    membership = factories.make_membership(house.organization, viewer, role="viewer")
    client = client_of(viewer)
    assert keyed(client, f"/brands/{house.scope}", NORD).status == 403
    with app.database.transaction(write=True) as writing:
        writing.get_one(Membership, membership.id).role = "member"
    created = keyed(client, f"/brands/{house.scope}", NORD)
    assert (created.status, is_replay(created)) == (201, False)


def test_what_the_contract_refuses_leaves_the_key_alone(house: House, database: Database) -> None:
    path = f"/brands/{house.scope}"
    assert keyed(house.client, path, {**NORD, "surprise": 1}).status == 422
    assert keyed(house.client, path, body=b"{").status == 415
    assert kept_keys(database) == []
    assert keyed(house.client, path, NORD).status == 201


def test_bytes_that_are_no_picture_leave_the_key_free(house: House, database: Database) -> None:
    path = f"/products/{house.create('/products/', {'name': 'Wrap dress'})['id']}/images"
    assert code_of(keyed(house.client, path, **form("a-line", b"no picture"))) == (415, "not_an_image")
    assert kept_keys(database) == []
    assert keyed(house.client, path, **form("a-line", photograph())).status == 201


def test_a_defect_and_a_dead_database_are_never_kept(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    path = f"/brands/{house.scope}"
    with monkeypatch.context() as patch:
        patch.setattr(brands, "created", fail)
        assert keyed(house.client, path, NORD).status == 500
    assert kept_keys(database) == []
    created = keyed(house.client, path, NORD)
    assert (created.status, is_replay(created)) == (201, False)
    assert house.client("GET", f"/brands/{house.scope}").json()["count"] == 1


def test_s21_a_key_is_one_to_255_characters(house: House) -> None:
    path = f"/brands/{house.scope}"
    for key in ("", "k" * 256):
        refused = keyed(house.client, path, NORD, key=key)
        assert refused.types == {
            ("header", "Idempotency-Key"): "string_too_long" if key else "string_too_short"
        }
    assert keyed(house.client, path, NORD, key="k" * 255).status == 201


def test_s21_neither_key_nor_password_can_be_read_from_the_database(
    superuser: Client, database: Database
) -> None:
    reply = keyed(superuser, "/users/", {"email": "new@example.com", "password": "terracotta-1953"})
    assert reply.status == 201, reply.body
    (row,) = kept_keys(database)
    kept = " ".join(str(getattr(row, column.key)) for column in IdempotencyKey.__table__.columns)
    assert KEY not in kept
    assert "terracotta" not in kept
    # Nor the answer: some answers hold a secret that is shown once.
    assert "new@example.com" not in kept
    again = keyed(superuser, "/users/", {"email": "new@example.com", "password": "terracotta-1953"})
    assert again.body == reply.body


def test_s21_a_superuser_of_yesterday_gets_no_answer_of_yesterday(
    superuser: Client, house: House, app: Application, database: Database
) -> None:
    shooting = factories.make_shooting(owner=house.owner)
    path = f"/shootings/{shooting.id}/looks"
    scope = {"owner": house.owner}
    body = {
        "main_product_id": str(factories.make_product(**scope).id),
        "shot_type_ids": [str(factories.make_shot_type(**scope).id)],
    }
    assert keyed(superuser, path, body).status == 201
    (row,) = kept_keys(database)
    assert row.scope_id == house.owner.id
    with app.database.transaction(write=True) as writing:
        writing.get_one(User, row.user_id).is_superuser = False
    assert keyed(superuser, path, body).status == 404


def test_s20_a_generation_is_paid_once_and_told_as_it_was(
    client_of: Callable[..., Client], production: Production, app: Application
) -> None:
    client, path = client_of(production.owner), f"/shots/{production.shot.id}/generate"
    first = keyed(client, path, {"num_predictions": 2})
    assert first.status == 202, first.body
    with app.database.transaction(write=True) as writing:
        writing.scalars(select(Generation)).one().progress = 50
    again = keyed(client, path, {"num_predictions": 2})
    assert (again.status, again.body, is_replay(again)) == (202, first.body, True)
    with app.database.transaction(write=False) as reading:
        assert reading.get_one(Subscription, production.subscription.id).credits_used == 2


def test_who_died_at_work_is_succeeded_when_the_lease_is_over(house: House, app: Application) -> None:
    path = f"/products/{house.scope}"
    keyed(house.client, path, {"name": "Wrap dress"})
    back_to_work(app, KEY)
    assert code_of(keyed(house.client, path, {"name": "Wrap dress"})) == (409, "idempotency_key_in_progress")
    change_key(app, KEY, lease_expires_at=utc_now())
    assert code_of(keyed(house.client, path, {"name": "Mug"})) == (422, "idempotency_key_reused")
    taken_over = keyed(house.client, path, {"name": "Wrap dress"})
    assert (taken_over.status, is_replay(taken_over)) == (201, False)
    assert is_replay(keyed(house.client, path, {"name": "Wrap dress"}))


def test_who_is_slower_than_the_lease_keeps_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_too_late(turn: Turn, *answer: Any) -> bool:
        session().execute(update(IdempotencyKey).values(turn=uuid4()))
        return keep_answer(turn, *answer)

    path = f"/products/{house.create('/products/', {'name': 'Wrap dress'})['id']}/images"
    monkeypatch.setattr("handlers.idempotency.keep_answer", keep_too_late)
    # A picture is decoded before there is a transaction that could be the turn.
    refused = keyed(house.client, path, **form("a-line", photograph()))
    assert code_of(refused) == (409, "idempotency_key_in_progress")
    # Whoever took over adds the picture; here is nothing left of it.
    assert house.client("GET", path).json()["count"] == 0


def test_of_two_answers_at_once_one_is_kept_and_nothing_is_left_of_the_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_too_late(turn: Turn, *answer: Any) -> bool:
        """Keep what another send is answered, which ends just after this one looked for it."""
        assert keep_answer(replace(turn, token=uuid4()), *answer)
        return keep_answer(turn, *answer)

    monkeypatch.setattr("handlers.idempotency.keep_answer", keep_too_late)
    path = f"/brands/{house.scope}"
    assert code_of(keyed(house.client, path, NORD)) == (409, "idempotency_key_in_progress")
    assert house.client("GET", path).json()["count"] == 0


def test_who_sends_again_while_the_first_is_at_work_is_told_so_where_nobody_has_to_wait(
    committed: Committed, database_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Begun(monkeypatch, handlers.idempotency, "keep")
    send = partial(keyed, committed.client, "/brands/", NORD)
    answer, again = first.overtaken_by(send, send)
    assert (answer.status, is_replay(answer)) == (201, False)
    if database_kind == "postgresql":
        assert code_of(again) == (409, "idempotency_key_in_progress")
        assert again.headers["retry-after"] == "1"
        again = send()
    assert (again.body, is_replay(again)) == (answer.body, True)
    assert committed.client("GET", "/brands/").json()["count"] == 1


def test_what_is_refused_is_told_only_where_it_is_kept(
    committed: Committed, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, body = committed.client, {**NORD, "slug": "nord"}
    in_the_way = client("POST", "/brands/", body).json()["id"]

    def send_when_the_way_is_free() -> Reply:
        assert client("DELETE", f"/brands/{in_the_way}").status == 204
        return keyed(client, "/brands/", body)

    refused = Begun(monkeypatch, handlers.idempotency, "settle")
    answer, made = refused.overtaken_by(send_when_the_way_is_free, partial(keyed, client, "/brands/", body))
    assert (made.status, is_replay(made)) == (201, False)
    assert code_of(answer) == (409, "idempotency_key_in_progress")
    again = keyed(client, "/brands/", body)
    assert (again.body, is_replay(again)) == (made.body, True)


def test_a_key_that_is_over_takes_in_a_refusal_and_what_is_only_tried(
    client_of: Callable[..., Client], production: Production, app: Application
) -> None:
    """Both undo what the request did: the row that is over must not come back and be taken for work."""
    client, shot = client_of(production.owner), f"/shots/{production.shot.id}/generate?validate_only=true"
    absent = f"/shootings/{uuid4()}/looks"
    look = {"main_product_id": str(uuid4()), "shot_type_ids": [str(uuid4())]}
    for path, body, status in ((absent, look, 404), (shot, {}, 200)):
        assert keyed(client, path, body, key=path).status == status
        change_key(app, path, expires_at=utc_now())
        anew = keyed(client, path, body, key=path)
        assert (anew.status, is_replay(anew)) == (status, False), anew.body
        again = keyed(client, path, body, key=path)
        assert (again.status, is_replay(again)) == (status, True), again.body


def test_a_key_is_forgotten_after_a_day(
    house: House, app: Application, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/products/{house.scope}"
    for key in ("first", "second", "third", "young"):
        keyed(house.client, path, {"name": "Wrap dress"}, key=key)
    for row, key in zip(kept_keys(database), ("first", "second", "third", "young"), strict=True):
        assert row.expires_at - row.created_at == timedelta(hours=24), key
    for key in ("first", "second", "third"):
        change_key(app, key, expires_at=utc_now())
    # Before the upkeep comes round, the key is as good as new already.
    anew = keyed(house.client, path, {"name": "Mug"}, key="third")
    assert (anew.status, is_replay(anew)) == (201, False)
    monkeypatch.setattr(idempotency, "FORGET_BATCH", 1)
    assert forget_expired(database) == 2
    assert len(kept_keys(database)) == 2
    assert forget_expired(database) == 0
    assert is_replay(keyed(house.client, path, {"name": "Wrap dress"}, key="young"))
