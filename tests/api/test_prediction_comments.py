"""Comments on predictions: authors, positions, limits, and other tenants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from db.models import AuditEvent, Prediction, PredictionComment
from db.session import Database
from studio.review import comments
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import status_and_code
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer


@pytest.fixture
def prediction(customer: Customer) -> Prediction:
    look = factories.make_look(factories.make_shooting(organization=customer.organization))
    return factories.make_prediction(factories.make_generation(factories.make_shot(look), status="completed"))


@pytest.fixture
def path(prediction: Prediction) -> str:
    return f"/predictions/{prediction.id}/comments"


def test_a_comment_has_its_author_and_a_point_of_the_image(
    client: Client, customer: Customer, prediction: Prediction, path: str
) -> None:
    customer.owner.full_name = "Ada Nord"
    factories.make(customer.owner)
    body = {"text": "The hem is cut off here.", "position": {"x": 0.25, "y": 1}}
    response = client("POST", path, body)
    assert response.status == 201, response.body
    created = response.json()
    assert created == {
        "id": created["id"], "created_at": created["created_at"], "updated_at": created["updated_at"],
        "prediction_id": str(prediction.id), "author_id": str(customer.owner.id), "author_name": "Ada Nord",
        "review_link_id": None,
        "text": "The hem is cut off here.", "position": {"x": 0.25, "y": 1.0},
    }  # fmt: skip
    assert client("GET", response.headers["location"].removeprefix("/api/v1")).json() == created
    assert client("GET", path).json()["data"] == [created]


def test_an_author_changes_and_deletes_their_comment(client: Client, path: str) -> None:
    created = client("POST", path, {"text": "Sharper.", "position": {"x": 0, "y": 0.5}})
    item = f"{path}/{created.json()['id']}"
    changed = client(
        "PATCH", item, {"text": "Sharper, please."}, headers={"If-Match": created.headers["etag"]}
    )
    assert (changed.json()["text"], changed.json()["position"]) == ("Sharper, please.", {"x": 0.0, "y": 0.5})
    assert client("PATCH", item, {"position": None}).json()["position"] is None
    stale = client("PATCH", item, {"text": "Late."}, headers={"If-Match": created.headers["etag"]})
    assert status_and_code(stale) == (412, "precondition_failed")
    assert client("DELETE", item).status == 204
    assert client("GET", item).status == 404
    assert client("GET", path).json()["count"] == 0


def test_others_read_a_comment_but_do_not_change_it(
    client: Client, customer: Customer, path: str, client_for: Callable[..., Client], superuser: Client
) -> None:
    comment = client("POST", path, {"text": "Sharper."}).json()
    item = f"{path}/{comment['id']}"
    admin, viewer = factories.make_user(), factories.make_user()
    factories.make_membership(customer.organization, admin, role="admin")
    factories.make_membership(customer.organization, viewer, role="viewer")
    key = Client(client.app, api_key_headers(client.app, customer.organization, ["comments:write"], admin))
    for other in (client_for(admin), client_for(viewer), key):
        assert status_and_code(other("PATCH", item, {"text": "Mine."})) == (403, "not_enough_permissions")
        assert status_and_code(other("DELETE", item)) == (403, "not_enough_permissions")
    assert client_for(viewer)("GET", item).json() == comment
    assert status_and_code(client_for(viewer)("POST", path, {"text": "Mine."})) == (
        403,
        "not_enough_permissions",
    )
    stranger = client_for(factories.make_user())
    for method, body in (("GET", None), ("PATCH", {"text": "Mine."}), ("DELETE", None)):
        assert stranger(method, item, body).status == 404
    assert superuser("PATCH", item, {"text": "Checked."}).json()["author_id"] == str(customer.owner.id)


def test_the_author_of_a_comment_of_an_api_key_is_its_creator(
    client: Client, customer: Customer, path: str, database: Database
) -> None:
    headers = api_key_headers(
        client.app, customer.organization, ["comments:read", "comments:write"], customer.owner
    )
    key = Client(client.app, headers)
    comment = key("POST", path, {"text": "Too dark: 31 %."}).json()
    assert comment["author_id"] == str(customer.owner.id)
    assert client("PATCH", f"{path}/{comment['id']}", {"text": "Too dark."}).status == 200
    assert key("DELETE", f"{path}/{comment['id']}").status == 204
    with database.transaction(write=False) as reading:
        actions = select(AuditEvent.action, AuditEvent.actor_type, AuditEvent.organization_id)
        events = reading.execute(
            actions.where(AuditEvent.outcome == "succeeded").order_by(AuditEvent.id)
        ).all()
    assert [tuple(event) for event in events] == [
        ("create_prediction_comment", "api_key", customer.organization.id),
        ("update_prediction_comment", "user", customer.organization.id),
        ("delete_prediction_comment", "api_key", customer.organization.id),
    ]


def test_a_comment_belongs_to_the_prediction_in_its_path(
    client: Client, customer: Customer, path: str
) -> None:
    """`get_prediction_comment` compares both ids."""
    comment = client("POST", path, {"text": "Sharper."}).json()
    look = factories.make_look(factories.make_shooting(organization=customer.organization))
    other = factories.make_prediction(factories.make_generation(factories.make_shot(look)))
    assert client("GET", f"/predictions/{other.id}/comments/{comment['id']}").status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"text": ""},
        {"text": "a" * 2001},
        {"text": "Here.", "position": {"x": 1.01, "y": 0}},
        {"text": "Here.", "position": {"x": 0.5}},
        {"text": "Here.", "author_name": "The boss"},
        {"position": {"x": 0, "y": 0}},
    ],
)
def test_a_malformed_comment_is_rejected(client: Client, path: str, body: dict[str, Any]) -> None:
    assert client("POST", path, body).status == 422


def test_the_number_of_comments_is_limited(
    client: Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comments, "MAX_COMMENTS", 1)
    assert client("POST", path, {"text": "First."}).status == 201
    response = client("POST", path, {"text": "Second."})
    assert (status_and_code(response), response.json()["limit"]) == ((409, "too_many_comments"), 1)


def test_comments_outlive_the_account_of_their_author_but_not_the_prediction(
    client: Client, prediction: Prediction, path: str, superuser: Client, database: Database
) -> None:
    author = factories.make_user()
    comment = factories.make_prediction_comment(prediction, author, author_name="Ada Nord")
    assert superuser("DELETE", f"/users/{author.id}").status == 204
    shown = client("GET", f"{path}/{comment.id}").json()
    assert (shown["author_id"], shown["author_name"]) == (None, "Ada Nord")
    assert client("DELETE", f"/predictions/{prediction.id}").status == 204
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(PredictionComment)).all() == []
