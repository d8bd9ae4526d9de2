"""Review links: their life, the exchange, and what guests do.

`tests/contract/test_guest_access.py` has the limits of guests.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from sqlalchemy import delete, select, update

from db.base import utc_now
from db.models import AuditEvent, Membership, Prediction, ReviewLink, Shooting, Shot, User, WebhookDelivery
from db.session import Database
from studio.accounts.identity.tokens import hash_token
from studio.review.review_links import delete_expired_links
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer
from tests.support.guests import create_link, enter, exchange

INVALID = (401, "invalid_token")


@pytest.fixture
def prediction(customer: Customer) -> Prediction:
    look = factories.make_look(factories.make_shooting(organization=customer.organization))
    shot = factories.make_shot(look, status="pending_review")
    return factories.make_prediction(factories.make_generation(shot, status="completed"))


@pytest.fixture
def shooting(prediction: Prediction, database: Database) -> Shooting:
    with database.transaction(write=False) as session:
        shot = session.get_one(Shot, prediction.shot_id)
        return session.get_one(Shooting, shot.shooting_id)


@pytest.fixture
def path(shooting: Shooting) -> str:
    return f"/shootings/{shooting.id}/review-links"


def test_a_link_is_shown_once_and_stored_as_a_hash(
    client: Client, customer: Customer, shooting: Shooting, path: str, database: Database
) -> None:
    response = client("POST", path, {"expires_in_days": 7})
    created = response.json()
    token = urlsplit(created["url"]).fragment
    assert created["url"] == f"{client.app.settings.public_url}/review#{token}"
    assert response.headers["cache-control"] == "no-store"
    item = response.headers["location"].removeprefix("/api/v1")
    assert item == f"{path}/{created['id']}"
    shown = client("GET", item)
    assert shown.headers["etag"] == response.headers["etag"]
    assert shown.json() == {name: value for name, value in created.items() if name != "url"}
    assert client("GET", path).json()["data"] == [shown.json()]
    assert (created["shooting_id"], created["created_by_id"]) == (str(shooting.id), str(customer.owner.id))
    with database.transaction(write=False) as session:
        assert session.scalars(select(ReviewLink.token_hash)).all() == [hash_token(token)]


def test_a_link_is_found_below_its_shooting_only(client: Client, customer: Customer, path: str) -> None:
    """This is about get_review_link and delete_review_link."""
    link, _ = create_link(client, path)
    other = factories.make_shooting(organization=customer.organization)
    assert client("GET", f"{path}/{link['id']}").status == 200
    foreign = f"/shootings/{other.id}/review-links/{link['id']}"
    assert [client(method, foreign).status for method in ("GET", "DELETE")] == [404, 404]


def test_admins_create_links_and_members_do_not(
    client: Client, customer: Customer, path: str, client_for: Callable[..., Client]
) -> None:
    link, _ = create_link(client, path)
    for role, expected in (("admin", 201), ("member", 403), ("viewer", 403)):
        user = factories.make_user()
        factories.make_membership(customer.organization, user, role=role)
        other = client_for(user)
        assert other("POST", path, {"expires_in_days": 30}).status == expected, role
        assert other("GET", path).status == (200 if expected == 201 else 403), role
        assert other("DELETE", f"{path}/{link['id']}").status == (204 if expected == 201 else 403), role
        key = Client(
            client.app, api_key_headers(client.app, customer.organization, ["review_links:manage"], user)
        )
        assert key("POST", path, {"expires_in_days": 1}).status == expected, role
    stranger = client_for(factories.make_user())
    assert status_and_code(stranger("POST", path, {"expires_in_days": 1})) == (404, "not_found")


@pytest.mark.parametrize("days", [0, 31, 1.5, None, "7"])
def test_a_link_lives_for_1_to_30_days(client: Client, path: str, days: Any) -> None:
    assert client("POST", path, {"expires_in_days": days}).status == 422


def test_an_exchange_returns_the_token_of_a_guest_for_an_hour(
    client: Client, shooting: Shooting, path: str
) -> None:
    link, token = create_link(client, path)
    response = exchange(client.app, token, name="Maria Rossi")
    body = response.json()
    assert body == {
        "access_token": body["access_token"], "token_type": "bearer", "expires_in": 3600,
        "shooting_id": str(shooting.id), "review_link_id": link["id"], "name": "Maria Rossi",
    }  # fmt: skip
    assert response.headers["cache-control"] == "no-store"
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["guest"]) == (link["id"], {"name": "Maria Rossi"})
    assert claims["exp"] - claims["iat"] == 3600
    assert exchange(client.app, token).json()["name"] == "Guest"
    for name in ("", "x" * 101):
        assert exchange(client.app, token, name=name).status == 422


def test_a_token_does_not_outlive_its_link(client: Client, path: str, database: Database) -> None:
    _, token = create_link(client, path)
    with database.transaction(write=True) as session:
        session.execute(update(ReviewLink).values(expires_at=utc_now() + timedelta(seconds=90)))
    assert 80 < exchange(client.app, token).json()["expires_in"] <= 90


def test_unknown_expired_and_revoked_links_look_the_same(
    client: Client, path: str, database: Database
) -> None:
    (revoked, revoked_token), (expired, expired_token) = create_link(client, path), create_link(client, path)
    guests = [enter(client.app, revoked_token), enter(client.app, expired_token)]
    assert [guest("GET", "/shots/").status for guest in guests] == [200, 200]
    assert client("DELETE", f"{path}/{revoked['id']}").status == 204
    with database.transaction(write=True) as session:
        session.execute(update(ReviewLink).values(expires_at=utc_now()))
    responses = [exchange(client.app, token) for token in ("rl_unknown", revoked_token, expired_token)]
    problems = [{**response.json(), "request_id": None} for response in responses]
    assert problems[0] == problems[1] == problems[2]
    assert [status_and_code(response) for response in responses] == [INVALID] * 3
    # Their guests are out from the next request on.
    assert [status_and_code(guest("GET", "/shots/")) for guest in guests] == [INVALID] * 2
    for item in (revoked, expired):
        for method in ("GET", "DELETE"):
            assert client(method, f"{path}/{item['id']}").status == 404
    assert client("GET", path).json()["count"] == 0
    assert delete_expired_links(database, utc_now()) == 1


def test_a_link_ends_with_its_creator_and_its_shooting(
    client: Client, customer: Customer, path: str, database: Database, client_for: Callable[..., Client]
) -> None:
    admin = factories.make_user()
    factories.make_membership(customer.organization, admin, role="admin")
    _, token = create_link(client_for(admin), path)
    guest = enter(client.app, token)
    with database.transaction(write=True) as session:
        session.execute(update(User).where(User.id == admin.id).values(is_active=False))
    assert status_and_code(guest("GET", "/shots/")) == INVALID
    with database.transaction(write=True) as session:
        session.execute(update(User).where(User.id == admin.id).values(is_active=True))
    assert guest("GET", "/shots/").status == 200
    with database.transaction(write=True) as session:
        session.execute(delete(Membership).where(Membership.user_id == admin.id))
    assert status_and_code(guest("GET", "/shots/")) == INVALID
    _, token = create_link(client, path)
    guest = enter(client.app, token)
    assert client("DELETE", path.removesuffix("/review-links")).status == 204
    assert status_and_code(guest("GET", "/shots/")) == INVALID
    with database.transaction(write=False) as session:
        assert session.scalars(select(ReviewLink)).all() == []


def test_a_guest_changes_own_comments_only(
    client: Client, customer: Customer, prediction: Prediction, path: str
) -> None:
    comments = f"/predictions/{prediction.id}/comments"
    ours = client("POST", comments, {"text": "Please check the hem."}).json()
    (link, token), (_, other_token) = create_link(client, path), create_link(client, path)
    guest, other = enter(client.app, token, name="Maria Rossi"), enter(client.app, other_token)
    created = guest("POST", comments, {"text": "Too dark.", "position": {"x": 0.5, "y": 0.25}})
    assert created.status == 201, created.body
    theirs = created.json()
    assert theirs == {
        "id": theirs["id"], "created_at": theirs["created_at"], "updated_at": theirs["updated_at"],
        "prediction_id": str(prediction.id), "author_id": None, "review_link_id": link["id"],
        "author_name": "Maria Rossi", "text": "Too dark.", "position": {"x": 0.5, "y": 0.25},
    }  # fmt: skip
    assert client("GET", comments).json()["data"] == [theirs, ours] == guest("GET", comments).json()["data"]
    # The owner did not write it either.
    for sender, row in ((guest, ours), (other, theirs), (client, theirs)):
        item = f"{comments}/{row['id']}"
        for response in (sender("PATCH", item, {"text": "Mine."}), sender("DELETE", item)):
            assert status_and_code(response) == (403, "not_enough_permissions")
    item = f"{comments}/{theirs['id']}"
    assert guest("PATCH", item, {"text": "Too bright."}).json()["text"] == "Too bright."
    # Another token of the same link.
    assert enter(client.app, token)("DELETE", item).status == 204
    assert client("GET", comments).json()["data"] == [ours]


def test_a_decision_of_a_guest_has_the_effects_of_any_decision(
    client: Client, customer: Customer, prediction: Prediction, path: str, database: Database
) -> None:
    factories.make_webhook_endpoint(
        organization=customer.organization, event_types=["prediction.approved", "shot.approved"]
    )
    link, token = create_link(client, path)
    guest = enter(client.app, token, name="Maria Rossi")
    approved = guest("POST", f"/predictions/{prediction.id}/approve", {"note": "Lovely."})
    assert approved.status == 200, approved.body
    review = approved.json()["review"]
    assert review == {"by": None, "by_name": "Maria Rossi", "at": review["at"], "note": "Lovely."}
    assert client("GET", f"/shots/{prediction.shot_id}").json()["status"] == "approved"
    with database.transaction(write=False) as session:
        sent = session.scalars(select(WebhookDelivery.event_type)).all()
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "approve_prediction")).one()
        exchanged = session.scalars(
            select(AuditEvent).where(AuditEvent.action == "exchange_review_link")
        ).one()
    assert sorted(sent) == ["prediction.approved", "shot.approved"]
    assert (event.actor_type, str(event.actor_id), event.actor_email) == ("guest", link["id"], None)
    assert (event.organization_id, event.target_id) == (customer.organization.id, prediction.id)
    assert (exchanged.actor_type, str(exchanged.target_id)) == ("guest", link["id"])
    assert exchanged.organization_id == customer.organization.id
    shown = client("GET", f"/organizations/{customer.organization.id}/audit-events").json()["data"]
    assert [(row["action"], row["actor_type"]) for row in shown[:2]] == [
        ("approve_prediction", "guest"), ("exchange_review_link", "guest"),
    ]  # fmt: skip
    reopened = guest("POST", f"/predictions/{prediction.id}/reopen")
    assert reopened.json()["status"] == "pending_review"
    rejected = guest("POST", f"/predictions/{prediction.id}/reject", {"reason": "Too dark."})
    assert rejected.json()["status"] == "rejected"


def test_a_batch_of_a_guest_is_idempotent_apart_from_its_creator(
    client: Client, customer: Customer, prediction: Prediction, path: str, database: Database
) -> None:
    (_, token), (_, other_token) = create_link(client, path), create_link(client, path)
    body, key = {"items": [{"action": "approve", "id": str(prediction.id)}]}, {"Idempotency-Key": "k-1"}
    target = f"/predictions/batch?organization_id={customer.organization.id}"
    guest = enter(client.app, token)
    first, second = (guest("POST", target, body, headers=key) for _ in range(2))
    assert (first.status, first.json()["accepted_count"]) == (200, 1), first.body
    assert (second.json(), second.headers["idempotency-replayed"]) == (first.json(), "true")
    for sender in (enter(client.app, other_token), client):
        assert "idempotency-replayed" not in sender("POST", target, body, headers=key).headers
    with database.transaction(write=False) as session:
        actors = session.scalars(
            select(AuditEvent.actor_type).where(AuditEvent.action == "approve_prediction")
        ).all()
    assert sorted(actors) == ["guest", "guest", "user"]


def test_a_denied_guest_is_in_the_audit_log_of_the_organization(
    client: Client, customer: Customer, shooting: Shooting, path: str, database: Database
) -> None:
    link, token = create_link(client, path)
    denied = enter(client.app, token)("POST", path, {"expires_in_days": 1})
    assert status_and_code(denied) == (403, "guest_not_allowed")
    with database.transaction(write=False) as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.reason == "guest_not_allowed")).one()
    assert (event.actor_type, str(event.actor_id)) == ("guest", link["id"])
    assert (event.organization_id, event.target_id) == (customer.organization.id, shooting.id)


def test_guests_review_a_personal_shooting(
    client: Client, customer: Customer, client_for: Callable[..., Client]
) -> None:
    owner = factories.make_user()
    look = factories.make_look(factories.make_shooting(owner=owner))
    shot = factories.make_shot(look, status="pending_review")
    prediction = factories.make_prediction(factories.make_generation(shot, status="completed"))
    own = factories.make_shooting(owner=owner)
    _, token = create_link(client_for(owner), f"/shootings/{look.shooting_id}/review-links")
    guest = enter(client.app, token)
    assert [row["id"] for row in guest("GET", "/predictions/").json()["data"]] == [str(prediction.id)]
    body = {"items": [{"action": "approve", "id": str(prediction.id)}]}
    assert guest("POST", "/predictions/batch", body).json()["accepted_count"] == 1
    assert guest("GET", f"/shootings/{own.id}").status == 404


def test_a_guest_token_is_no_credential_of_an_account(client: Client, path: str) -> None:
    _, token = create_link(client, path)
    guest = enter(client.app, token)
    access = guest.headers["authorization"].removeprefix("Bearer ")
    assert Client(client.app)("POST", "/login/refresh-token", {"refresh_token": token}).status == 401
    for name in ("/users/me", "/users/me/sessions"):
        assert status_and_code(guest("GET", name)) == (403, "guest_not_allowed")
    # A sign-out of the guest revokes nothing of the link.
    form = f"token={access}".encode()
    revoked = Client(client.app)(
        "POST", "/oauth/revoke", body=form, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert revoked.status == 200
    assert guest("GET", "/shots/").status == 200
