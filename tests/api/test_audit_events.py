"""The audit log: what an event contains, who can read it, and which requests create an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
import uvicorn
from sqlalchemy import select

from db.base import utc_now
from db.models import AuditEvent
from db.session import Database
from handlers.app import Application
from handlers.server.cli import uvicorn_options
from studio.accounts.identity.passwords import hash_password
from tests.api.conftest import Client
from tests.support import factories
from tests.support.app import REACHABLE_HOST, auth_headers
from tests.support.client import ClientResponse, send_request
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer
from tests.support.scenarios import PhotographedProduct

PASSWORD = "a password for this test"
IGNORED_FIELDS = ("id", "created_at", "updated_at", "request_id")


@pytest.fixture
def log(customer: Customer) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that lists the events of the customer's organization, newest first."""

    def read(client: Client | None = None, **filters: Any) -> list[dict[str, Any]]:
        path = f"/organizations/{customer.organization.id}/audit-events"
        response = (client or customer.client)("GET", f"{path}?{urlencode(filters)}")
        assert response.status == 200, response.body
        return list(response.json()["data"])

    return read


def list_own_events(client: Client, **filters: Any) -> list[dict[str, Any]]:
    return list(client("GET", f"/users/me/audit-events?{urlencode(filters)}").json()["data"])


def list_events(database: Database) -> list[AuditEvent]:
    with database.transaction(write=False) as reading:
        return list(reading.scalars(select(AuditEvent).order_by(AuditEvent.id)))


def changed_fields(event: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {change["field"]: (change["before"], change["after"]) for change in event["changes"]}


def sign_in(client: Client, username: str, password: str) -> ClientResponse:
    body = urlencode({"username": username, "password": password}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return client("POST", "/login/access-token", body=body, headers=headers)


def test_creates_updates_and_deletes_are_logged_with_the_values_before_and_after(
    customer: Customer, log: Callable[..., list[dict[str, Any]]]
) -> None:
    style = factories.make_style(organization=customer.organization)
    brand = customer.client(
        "POST", f"/brands/?organization_id={customer.organization.id}", {"name": "Nord", "website": None}
    ).json()
    path = f"/brands/{brand['id']}"
    customer.client("PATCH", path, {"name": "Sud", "slug": "nord", "default_style_id": str(style.id)})
    customer.client("DELETE", path)
    deletion, update, creation = log()
    assert {key: value for key, value in update.items() if key not in IGNORED_FIELDS} == {
        "organization_id": str(customer.organization.id),
        "actor_type": "user",
        "actor_id": str(customer.owner.id),
        "actor_email": customer.owner.email,
        "action": "update_brand",
        "target_type": "brand",
        "target_id": brand["id"],
        "outcome": "succeeded",
        "reason": None,
        "changes": [
            {"field": "name", "before": "Nord", "after": "Sud"},
            {"field": "default_style_id", "before": None, "after": str(style.id)},
        ],
        "address": "127.0.0.1",
        "count": 1,
    }
    assert changed_fields(creation) == {
        "owner_id": (None, str(customer.owner.id)), "name": (None, "Nord"), "slug": (None, "nord")
    }  # fmt: skip
    assert changed_fields(deletion) == {
        "owner_id": (str(customer.owner.id), None),
        "name": ("Sud", None),
        "slug": ("nord", None),
        "default_style_id": (str(style.id), None),
    }
    assert {event["target_id"] for event in (deletion, update, creation)} == {brand["id"]}


def test_a_changed_list_of_ids_is_logged_in_full(
    customer: Customer, log: Callable[..., list[dict[str, Any]]]
) -> None:
    one, two = (str(factories.make_shot_type(organization=customer.organization).id) for _ in range(2))
    path = f"/guidelines/?organization_id={customer.organization.id}"
    guidelines = customer.client("POST", path, {"name": "Web", "shot_type_ids": [one]}).json()
    customer.client("PATCH", f"/guidelines/{guidelines['id']}", {"shot_type_ids": [two, one]})
    customer.client("PATCH", f"/guidelines/{guidelines['id']}", {"shot_type_ids": [two, one]})
    same, change, creation = log()
    assert changed_fields(creation)["shot_type_ids"] == (None, [one])
    assert changed_fields(change) == {"shot_type_ids": ([one], [two, one])}
    assert changed_fields(same) == {}


def test_s24_secrets_and_the_paths_of_webhook_urls_are_masked(
    customer: Customer, superuser: Client, log: Callable[..., list[dict[str, Any]]], database: Database
) -> None:
    body = {"url": f"http://{REACHABLE_HOST}/T0KEN?key=S3CRET", "event_types": ["generation.completed"]}
    path = f"/webhook-endpoints/?organization_id={customer.organization.id}"
    secret = customer.client("POST", path, body).json()["secret"]
    (creation,) = log()
    assert changed_fields(creation)["url"] == (None, f"http://{REACHABLE_HOST}/***")
    assert changed_fields(creation)["secret_salt"] == (None, "***")
    user = factories.make_user()
    superuser("PATCH", f"/users/{user.id}", {"password": PASSWORD, "full_name": "Ada"})
    event = list_events(database)[-1]
    assert {change["field"]: change["after"] for change in event.changes} == {
        "hashed_password": "***",
        "full_name": "Ada",
    }
    all_changes = str([row.changes for row in list_events(database)])
    assert not [text for text in ("T0KEN", "S3CRET", secret, PASSWORD, "$argon2") if text in all_changes]


def test_long_values_are_truncated(customer: Customer, log: Callable[..., list[dict[str, Any]]]) -> None:
    brand = factories.make_brand(organization=customer.organization)
    customer.client("PATCH", f"/brands/{brand.id}", {"description": "é" * 2000})
    (event,) = log()
    assert changed_fields(event) == {"description": (None, "é" * 499 + "…")}


def test_the_log_can_be_filtered(customer: Customer, log: Callable[..., list[dict[str, Any]]]) -> None:
    actor, target = uuid4(), uuid4()
    tenant = {"organization": customer.organization}
    events = [
        factories.make_audit_event(**tenant, **columns)
        for columns in (
            {"actor_id": actor},
            {"action": "create_shooting"},
            {"target_type": "shot"},
            {"target_id": target},
            {"outcome": "refused"},
        )
    ]
    ids = [str(event.id) for event in events]
    found = [
        [event["id"] for event in log(**{name: value})]
        for name, value in (
            ("actor_id", actor),
            ("action", "create_shooting"),
            ("target_type", "shot"),
            ("target_id", target),
            ("outcome", "refused"),
        )
    ]
    assert found == [[event_id] for event_id in ids]
    moment = events[2].created_at.isoformat().replace("+00:00", "Z")
    assert [event["id"] for event in log(created_before=moment, sort="created_at")] == ids[:2]
    for name in ("created_after", "updated_after"):
        assert [event["id"] for event in log(**{name: moment}, sort="created_at")] == ids[3:]


def test_superusers_can_read_the_log_of_a_deleted_organization_but_not_of_an_unknown_one(
    customer: Customer, superuser: Client
) -> None:
    path = f"/organizations/{customer.organization.id}"
    assert customer.client("DELETE", path).status == 204
    assert customer.client("GET", f"{path}/audit-events").status == 404
    (event,) = superuser("GET", f"{path}/audit-events").json()["data"]
    assert (event["action"], event["target_type"]) == ("delete_organization", "organization")
    assert changed_fields(event)["name"] == (customer.organization.name, None)
    assert superuser("GET", f"/organizations/{uuid4()}/audit-events").status == 404


def test_s24_events_of_an_api_key_are_distinct_from_events_of_its_creator(
    app: Application, customer: Customer, log: Callable[..., list[dict[str, Any]]]
) -> None:
    body = {"name": "Shop import", "scopes": ["brands:read", "brands:write"]}
    key = customer.client("POST", f"/organizations/{customer.organization.id}/api-keys", body).json()
    key_client = Client(app, {"authorization": f"Bearer {key['secret']}"})
    assert key_client("POST", f"/brands/{customer.organization_query}", {"name": "Nord"}).status == 201
    assert key_client("POST", f"/products/{customer.organization_query}", {"name": "Dress"}).status == 403
    denied, created = log(actor_id=key["id"])
    assert (created["action"], created["outcome"]) == ("create_brand", "succeeded")
    assert (denied["action"], denied["outcome"]) == ("create_product", "refused")
    for event in (denied, created):
        assert (event["actor_type"], event["actor_email"]) == ("api_key", customer.owner.email)
    (by_user,) = log(actor_id=customer.owner.id)
    assert (by_user["action"], by_user["actor_type"]) == ("create_api_key", "user")


def test_s24_calls_of_an_api_key_without_organization_id_are_logged_in_its_organization(
    app: Application, customer: Customer, log: Callable[..., list[dict[str, Any]]]
) -> None:
    key_client = Client(app, api_key_headers(app, customer.organization, ["brands:write"]))
    assert key_client("POST", "/brands/", {"name": "Nord"}).status == 403
    (event,) = log()
    assert (event["action"], event["reason"]) == ("create_brand", "not_enough_permissions")
    assert event["actor_type"] == "api_key"


def test_s24_use_of_an_invalid_key_is_logged_for_its_organization_until_the_key_is_deleted(
    app: Application, customer: Customer, log: Callable[..., list[dict[str, Any]]]
) -> None:
    key_id = uuid4()
    expired = {"id": key_id, "expires_at": utc_now()}
    key_client = Client(app, api_key_headers(app, customer.organization, ["brands:write"], **expired))
    assert key_client("POST", f"/brands/{customer.organization_query}", {"name": "Nord"}).status == 401
    (event,) = log(actor_id=key_id)
    assert (event["action"], event["outcome"], event["reason"]) == (
        "create_brand", "refused", "invalid_token"
    )  # fmt: skip
    assert (event["actor_type"], event["actor_email"]) == ("api_key", customer.owner.email)
    path = f"/organizations/{customer.organization.id}/api-keys/{key_id}"
    assert customer.client("DELETE", path).status == 204
    assert key_client("POST", f"/brands/{customer.organization_query}", {"name": "Nord"}).status == 401
    assert [event["action"] for event in log()] == ["delete_api_key", "create_brand"]


def test_s24_sign_ins_are_in_the_log_of_their_account(
    client_for: Callable[..., Client], database: Database
) -> None:
    user = factories.make_user(hashed_password=hash_password(PASSWORD))
    anonymous, client = client_for(None), client_for(user)
    assert sign_in(anonymous, user.email, PASSWORD).status == 200
    assert sign_in(anonymous, user.email, "wrong").status == 401
    assert sign_in(anonymous, "unknown@example.com", "wrong").status == 401
    failure, success = list_own_events(client, action="login")
    fields = ("outcome", "reason", "actor_type", "actor_id", "target_type", "target_id", "address")
    assert [success[name] for name in fields] == [
        "succeeded", None, "user", str(user.id), "user", str(user.id), "127.0.0.1"
    ]  # fmt: skip
    assert [failure[name] for name in fields] == [
        "refused", "incorrect_credentials", "anonymous", None, "user", str(user.id), "127.0.0.1"
    ]  # fmt: skip
    unknown = list_events(database)[-1]
    assert (unknown.target_id, unknown.account_id, unknown.actor_id) == (None, None, None)
    assert (unknown.action, unknown.reason) == ("login", "incorrect_credentials")


def test_s24_reuse_of_a_refresh_token_is_in_the_log_of_its_account(
    client_for: Callable[..., Client],
) -> None:
    user = factories.make_user(hashed_password=hash_password(PASSWORD))
    anonymous = client_for(None)
    token = sign_in(anonymous, user.email, PASSWORD).json()["refresh_token"]
    pair = anonymous("POST", "/login/refresh-token", {"refresh_token": token}).json()
    anonymous("POST", "/login/refresh-token", {"refresh_token": pair["refresh_token"]})
    assert anonymous("POST", "/login/refresh-token", {"refresh_token": token}).status == 401
    outcomes = [
        (event["outcome"], event["reason"])
        for event in list_own_events(client_for(user), action="refresh_token")
    ]
    assert outcomes == [("refused", "invalid_token"), ("succeeded", None), ("succeeded", None)]


def test_s24_use_of_a_revoked_token_is_in_the_log_of_its_account(
    client_for: Callable[..., Client], database: Database
) -> None:
    user = factories.make_user()
    client = client_for(user)
    assert client("POST", "/logout").status == 204
    assert client("GET", "/brands/").status == 401
    rejected, logout = list_own_events(client_for(user))
    assert (logout["action"], logout["outcome"]) == ("logout", "succeeded")
    assert (rejected["action"], rejected["outcome"], rejected["reason"]) == (
        "list_brands", "refused", "invalid_token"
    )  # fmt: skip
    assert (rejected["actor_id"], rejected["actor_email"]) == (str(user.id), user.email)


def test_s24_a_password_change_with_a_wrong_password_is_logged(client_for: Callable[..., Client]) -> None:
    client = client_for(factories.make_user(hashed_password=hash_password(PASSWORD)))
    body = {"current_password": "wrong", "new_password": "another one of mine"}
    assert client("PATCH", "/users/me/password", body).status == 409
    (event,) = list_own_events(client)
    assert (event["action"], event["outcome"], event["reason"]) == (
        "change_password", "refused", "incorrect_password"
    )  # fmt: skip


def test_s24_unauthenticated_requests_create_no_events(
    client_for: Callable[..., Client], database: Database
) -> None:
    anonymous = client_for(None)
    garbage = {"authorization": "Bearer garbage"}
    assert anonymous("POST", "/brands/", {"name": "A"}).status == 401
    assert anonymous("POST", "/brands/", {"name": "A"}, headers=garbage).status == 401
    assert anonymous("POST", "/login/refresh-token", {"refresh_token": "garbage"}).status == 401
    assert anonymous("POST", "/password-recovery/unknown@example.com").status == 200
    assert anonymous("PUT", f"/uploads/{uuid4()}?expires=1&signature=garbage", body=b"x").status in (403, 415)
    assert list_events(database) == []


def test_invalid_conflicting_and_outdated_requests_create_no_event(
    customer: Customer, database: Database
) -> None:
    brand = factories.make_brand(organization=customer.organization)
    path = f"/brands/{brand.id}"
    assert customer.client("POST", f"/brands/?organization_id={brand.organization_id}", {}).status == 422
    taken = {"name": "A", "slug": brand.slug}
    assert customer.client("POST", f"/brands/?organization_id={brand.organization_id}", taken).status == 409
    assert customer.client("PATCH", path, {"name": "A"}, headers={"if-match": '"old"'}).status == 412
    assert list_events(database) == []


def test_a_dry_run_creates_no_event(
    scenario: PhotographedProduct, client_for: Callable[..., Client], database: Database
) -> None:
    client, body = client_for(scenario.owner), {"product_id": str(scenario.product.id)}
    path = f"/generations/?organization_id={scenario.organization.id}"
    assert client("POST", f"{path}&validate_only=true", body).status == 200
    assert list_events(database) == []
    assert client("POST", path, body).status == 202
    assert [event.action for event in list_events(database)] == ["create_generation"]


def test_a_change_that_is_rolled_back_creates_no_event(
    customer: Customer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"name": "an invalid response"}
    monkeypatch.setattr("handlers.common.responses.serialize", lambda *_: broken)
    response = customer.client(
        "POST", f"/brands/?organization_id={customer.organization.id}", {"name": "Nord"}
    )
    assert response.status == 500
    assert list_events(database) == []


def test_an_idempotent_replay_creates_no_second_event(customer: Customer, database: Database) -> None:
    path, key = f"/brands/?organization_id={customer.organization.id}", {"idempotency-key": "k"}
    first, again = (customer.client("POST", path, {"name": "Nord"}, headers=key) for _ in range(2))
    assert (first.status, again.headers["idempotency-replayed"]) == (201, "true")
    assert [event.action for event in list_events(database)] == ["create_brand"]


def test_changes_of_personal_rows_by_superusers_are_in_the_log_of_the_owner(
    client_for: Callable[..., Client], superuser: Client
) -> None:
    user = factories.make_user()
    brand = factories.make_brand(owner=user)
    assert superuser("PATCH", f"/brands/{brand.id}", {"name": "Sud"}).status == 200
    (event,) = list_own_events(client_for(user))
    assert (event["organization_id"], event["target_id"]) == (None, str(brand.id))
    assert event["actor_id"] != str(user.id)
    assert list_own_events(superuser) == []


def test_s53_users_see_that_staff_acted_and_only_superusers_see_who(
    customer: Customer,
    client_for: Callable[..., Client],
    log: Callable[..., list[dict[str, Any]]],
) -> None:
    member = factories.make_user()
    factories.make_membership(customer.organization, member, role="admin")
    staff = factories.make_user(is_superuser=True)
    client = client_for(staff)
    of_organization = factories.make_brand(organization=customer.organization)
    personal = factories.make_brand(owner=member)
    for brand in (of_organization, personal):
        assert client("PATCH", f"/brands/{brand.id}", {"name": "Sud"}).status == 200
    hidden = {"actor_type": "operator", "actor_id": None, "actor_email": None, "address": None}
    for events in (log(), log(client_for(member)), list_own_events(client_for(member))):
        (event,) = events
        assert {name: event[name] for name in hidden} == hidden
        assert staff.email not in str(event)
        assert str(staff.id) not in str(event)
    (shown,) = log(client)
    assert (shown["actor_type"], shown["actor_id"]) == ("operator", str(staff.id))
    assert (shown["actor_email"], shown["address"]) == (staff.email, "127.0.0.1")
    # A filter by the id does not confirm a guess.
    assert log(actor_id=staff.id) == []


def test_requests_of_other_users_create_no_events_in_the_log_of_an_organization(
    customer: Customer, client_for: Callable[..., Client], log: Callable[..., list[dict[str, Any]]]
) -> None:
    stranger = client_for(factories.make_user())
    path = f"/organizations/{customer.organization.id}"
    assert stranger("PATCH", path, {"name": "A"}).status == 404
    assert stranger("POST", f"/subscriptions/{customer.owner.id}", {}).status in (403, 422)
    assert log() == []


@pytest.mark.parametrize(("proxies", "expected"), [((), "127.0.0.1"), (("127.0.0.0/8",), "2001:db8::7")])
def test_the_address_of_an_event_is_read_from_x_forwarded_for_only_behind_a_trusted_proxy(
    proxies: tuple[str, ...], expected: str, customer: Customer, app: Application, database: Database
) -> None:
    served = uvicorn.Config(app, **uvicorn_options(replace(app.settings, trusted_proxies=proxies)))
    served.load()
    headers = {**auth_headers(app, customer.owner), "x-forwarded-for": "2001:db8::7"}
    assert (
        send_request(served.loaded_app, "POST", "/api/v1/brands/", headers, as_json={"name": "A"}).status
        == 201
    )
    assert [event.address for event in list_events(database)] == [expected]
