"""Accounts through the API: the caller's own account, and all accounts for superusers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from db.models import Brand, User
from db.session import Database
from handlers import users
from handlers.app import Application
from studio.accounts.identity.passwords import hash_password, verify_password
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import assert_conflict
from tests.support.concurrency import PausedCall


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email="dana@example.com", full_name="Dana Demo")


@pytest.fixture
def superuser(database: Database) -> User:
    return factories.make_user(email="root@example.com", is_superuser=True)


@pytest.fixture
def admin(client_for: Callable[..., Client], superuser: User) -> Client:
    return client_for(superuser)


def test_the_own_account_is_returned_with_all_its_fields(client: Client, user: User) -> None:
    response = client("GET", "/users/me")
    shown = response.json()
    assert shown == {
        "id": str(user.id),
        "created_at": shown["created_at"],
        "updated_at": shown["updated_at"],
        "email": "dana@example.com",
        "full_name": "Dana Demo",
        "is_active": True,
        "is_superuser": False,
        "rework_available": 0,
        "role": None,
        "has_second_factor": False,
    }
    known = client("GET", "/users/me", headers={"if-none-match": response.headers["etag"]})
    assert (known.status, known.body) == (304, b"")


@pytest.mark.parametrize(
    ("roles", "highest"),
    [(["viewer"], "viewer"), (["viewer", "member"], "member"), (["member", "owner", "admin"], "owner")],
)
def test_the_role_of_an_account_is_its_highest_role_in_any_organization(
    client: Client, user: User, roles: list[str], highest: str
) -> None:
    for role in roles:
        if role == "owner":
            factories.make_organization(user)
        else:
            factories.make_membership(factories.make_organization(), user, role=role)
    assert client("GET", "/users/me").json()["role"] == highest


def test_the_own_name_can_be_changed_and_cleared(client: Client) -> None:
    assert client("PATCH", "/users/me", {"full_name": "Inès"}).json()["full_name"] == "Inès"
    assert client("PATCH", "/users/me", {}).json()["full_name"] == "Inès"
    assert client("PATCH", "/users/me", {"full_name": None}).json()["full_name"] is None


def test_an_update_of_an_older_version_is_rejected(client: Client) -> None:
    tag = client("GET", "/users/me").headers["etag"]
    assert client("PATCH", "/users/me", {"full_name": "A"}, headers={"if-match": tag}).status == 200
    assert client("PATCH", "/users/me", {"full_name": "B"}, headers={"if-match": tag}).status == 412


def test_a_new_password_ends_the_other_sessions(client_for: Callable[..., Client], user: User) -> None:
    user.hashed_password = hash_password("sartiq-demo")
    factories.make(user)
    mine, other = client_for(user), client_for(user)
    change = {"current_password": "sartiq-demo", "new_password": "a-linen-dress-in-may"}
    response = mine("PATCH", "/users/me/password", change)
    assert (response.status, response.json()) == (200, {"message": "Password changed"})
    assert mine("GET", "/users/me").status == 200
    assert other("GET", "/users/me").status == 401
    assert_conflict(mine("PATCH", "/users/me/password", change), "incorrect_password")


def test_superusers_can_list_and_search_accounts(admin: Client, user: User) -> None:
    accounts = admin("GET", "/users/").json()
    assert accounts["count"] == len(accounts["data"]) >= 2
    for words in ("DANA@", "dana demo"):
        found = admin("GET", f"/users/?search={words.replace(' ', '%20')}").json()
        assert [row["id"] for row in found["data"]] == [str(user.id)]
    assert admin("GET", "/users/?search=%25").json()["count"] == 0


def test_a_new_account_can_sign_in(admin: Client, database: Database) -> None:
    response = admin("POST", "/users/", {"email": "Ines@Example.com", "password": "a-linen-dress"})
    assert response.status == 201
    shown = response.json()
    assert response.headers["location"] == f"/api/v1/users/{shown['id']}"
    assert (shown["email"], shown["full_name"], shown["is_active"], shown["role"]) == (
        "ines@example.com",
        None,
        True,
        None,
    )
    assert admin("GET", f"/users/{shown['id']}").json() == shown
    with database.transaction(write=False) as opened:
        stored = opened.scalars(select(User).where(User.email == "ines@example.com")).one()
    assert verify_password(stored.hashed_password, "a-linen-dress")


def test_email_addresses_are_unique_case_insensitively(admin: Client, user: User) -> None:
    taken = {"email": "DANA@example.com", "password": "a-linen-dress"}
    assert_conflict(admin("POST", "/users/", taken), "email_taken")
    other = factories.make_user()
    assert_conflict(admin("PATCH", f"/users/{other.id}", {"email": "Dana@Example.com"}), "email_taken")
    assert admin("PATCH", f"/users/{user.id}", {"email": "Dana@Example.com"}).status == 200


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": "a-linen-dress-in-may"}])
def test_locking_an_account_or_setting_its_password_ends_its_sessions(
    admin: Client, client: Client, user: User, change: dict[str, Any]
) -> None:
    assert client("GET", "/users/me").status == 200
    assert admin("PATCH", f"/users/{user.id}", change).status == 200
    assert client("GET", "/users/me").status == 401


def test_superusers_can_change_every_field(admin: Client, user: User) -> None:
    change = {"full_name": None, "is_superuser": True, "rework_available": 3, "email": "d@example.com"}
    shown = admin("PATCH", f"/users/{user.id}", change).json()
    assert {name: shown[name] for name in change} == change


def test_superusers_cannot_lock_demote_or_delete_their_own_account(admin: Client, superuser: User) -> None:
    for change in ({"is_active": False}, {"is_superuser": False}):
        assert_conflict(admin("PATCH", f"/users/{superuser.id}", change), "own_account")
    assert_conflict(admin("DELETE", f"/users/{superuser.id}"), "own_account")


@pytest.mark.parametrize(
    ("method", "body"),
    [("PATCH", {"is_superuser": False}), ("PATCH", {"is_active": False}), ("DELETE", None)],
)
@pytest.mark.slow("each case waits for a lock")
def test_s16_one_of_two_superusers_that_deactivate_each_other_concurrently_stays_active(
    committing_server: CommittingServer,
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    body: dict[str, bool] | None,
) -> None:
    with committing_server.database.transaction(write=True):
        one, two = (factories.make_user(is_superuser=True) for _ in range(2))
        first, second = (Client(application, auth_headers(application, user)) for user in (one, two))
    responses = PausedCall(monkeypatch, users, "lock_users").run_during_pause(
        lambda: second(method, f"/users/{one.id}", body), lambda: first(method, f"/users/{two.id}", body)
    )
    statuses = sorted(response.status for response in responses)
    assert statuses[0] in (200, 204)
    assert statuses[1] in (401, 403, 404)
    with committing_server.database.transaction(write=False) as reading:
        active = select(User.id).where(User.is_superuser.is_(True), User.is_active.is_(True))
        assert len(reading.scalars(active).all()) == 1


def test_s16_a_superuser_cannot_undo_a_concurrent_demotion(
    committing_server: CommittingServer, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    with committing_server.database.transaction(write=True):
        demoting, demoted = (factories.make_user(is_superuser=True) for _ in range(2))
        first, second = (Client(application, auth_headers(application, user)) for user in (demoting, demoted))
    _, demotion = PausedCall(monkeypatch, users, "lock_users").run_during_pause(
        lambda: first("PATCH", f"/users/{demoted.id}", {"is_superuser": False}),
        lambda: second("PATCH", f"/users/{demoted.id}", {"is_superuser": True}),
    )
    assert demotion.status == 200
    assert first("GET", f"/users/{demoted.id}").json()["is_superuser"] is False


def test_an_owner_of_an_organization_cannot_be_deleted(admin: Client, user: User) -> None:
    factories.make_organization(user)
    assert_conflict(admin("DELETE", f"/users/{user.id}"), "owns_organization")


def test_deleting_an_account_deletes_its_personal_rows_and_keeps_those_of_organizations(
    admin: Client, client: Client, user: User, database: Database
) -> None:
    organization = factories.make_organization()
    factories.make_membership(organization, user)
    look = factories.make_look(factories.make_shooting(owner=user))
    shot = factories.make_shot(look, status="approved")
    personal = factories.make_prediction(factories.make_generation(shot), status="approved")
    shot.approved_prediction_id = personal.id
    factories.make(shot)
    factories.make_product_image(factories.make_product(owner=user))
    factories.make_base_image(factories.make_subject(owner=user))
    factories.make_upload(owner=user, media_resource_id=personal.media_id)
    factories.make_brand(owner=user)
    factories.make_subscription(user)
    shared = factories.make_brand(owner=user, organization=organization)
    assert client("GET", "/users/me").status == 200
    assert admin("DELETE", f"/users/{user.id}").status == 204
    assert client("GET", "/users/me").status == 401
    assert admin("GET", f"/users/{user.id}").status == 404
    assert admin("GET", f"/predictions/{personal.id}").status == 404
    with database.transaction(write=False) as opened:
        remaining = opened.scalars(select(Brand)).one()
        assert (remaining.id, remaining.owner_id) == (shared.id, organization.owner_id)
        assert opened.scalar(select(func.count()).select_from(User).where(User.id == user.id)) == 0
