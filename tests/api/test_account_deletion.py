"""The deletion of one's own account: requested, canceled, and done by the periodic task."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from db.base import utc_now
from db.models import AccountDeletion, AuditEvent, Brand, Membership, Product, TokenFamily, User
from db.queries import users as queries
from db.session import Database
from handlers.app import Application
from studio.accounts.identity import deletions
from studio.accounts.identity.deletions import delete_due_accounts
from studio.accounts.identity.passwords import hash_password
from studio.infrastructure.storage import LocalDisk
from studio.jobs.maintenance import MAINTENANCE_TASKS
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.client import ClientResponse, status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.mailbox import get_mailed_token, list_emails_to

PASSWORD = "a password for this test"
HASHED = hash_password(PASSWORD)
PATH = "/users/me/deletion"


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(hashed_password=HASHED)


@pytest.fixture(autouse=True)
def _empty_outbox(application: Application) -> None:
    for path in application.settings.outbox_dir.glob("*.eml"):
        path.unlink()


def request_deletion(client: Client, password: str = PASSWORD) -> ClientResponse:
    return client("POST", PATH, {"password": password})


def cancel(anonymous: Client, token: str) -> ClientResponse:
    return anonymous("POST", "/account-deletion/cancel", {"token": token})


def sign_in(anonymous: Client, user: User, password: str = PASSWORD) -> ClientResponse:
    form = f"username={user.email}&password={password}".replace(" ", "+").encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return anonymous("POST", "/login/access-token", body=form, headers=headers)


def make_due(database: Database, user: User) -> None:
    with database.transaction(write=True) as session:
        due = update(AccountDeletion).where(AccountDeletion.user_id == user.id)
        session.execute(due.values(deletes_at=utc_now()))


def exists(database: Database, user: User) -> bool:
    with database.transaction(write=False) as session:
        return session.scalar(select(User.id).where(User.id == user.id)) is not None


def test_a_request_ends_all_sessions_and_blocks_the_sign_in(
    app: Application, client_for: Callable[..., Client], anonymous: Client, user: User
) -> None:
    client, other_session = client_for(user), client_for(user)
    response = request_deletion(client)
    assert (response.status, response.headers["location"]) == (202, "/api/v1/users/me")
    body = response.json()
    assert body.keys() == {"id", "created_at", "updated_at", "deletes_at"}
    for session in (client, other_session):
        assert session("GET", "/users/me").status == 401
    rejected = sign_in(anonymous, user)
    assert status_and_code(rejected) == (409, "deletion_scheduled")
    assert "/account-deletion/cancel" in rejected.json()["detail"]
    # A wrong password reveals nothing.
    assert status_and_code(sign_in(anonymous, user, "wrong")) == (401, "incorrect_credentials")
    (mail,) = list_emails_to(app, user.email)
    assert "API keys that you created" in mail


def test_a_mailed_token_cancels_the_deletion_once(
    app: Application,
    client_for: Callable[..., Client],
    anonymous: Client,
    user: User,
    database: Database,
    storage: LocalDisk,
) -> None:
    request_deletion(client_for(user))
    token = get_mailed_token(app, user.email, "ad")
    with database.transaction(write=False) as session:
        assert token not in str(session.connection().exec_driver_sql("SELECT * FROM account_deletions").all())
    assert cancel(anonymous, token).json() == {"message": "Deletion canceled"}
    assert sign_in(anonymous, user).status == 200
    assert status_and_code(cancel(anonymous, token)) == (401, "invalid_token")
    assert delete_due_accounts(database, storage) == 0
    assert len(list_emails_to(app, user.email)) == 2


def test_a_password_recovery_cancels_the_deletion(
    app: Application, client_for: Callable[..., Client], anonymous: Client, user: User
) -> None:
    assert anonymous("POST", f"/password-recovery/{user.email}").status == 200
    earlier = get_mailed_token(app, user.email, "pr")
    request_deletion(client_for(user))
    # A token from before the request is canceled with the sessions.
    body = {"token": earlier, "new_password": "another password"}
    assert anonymous("POST", "/reset-password/", body).status == 401
    anonymous("POST", f"/password-recovery/{user.email}")
    body["token"] = get_mailed_token(app, user.email, "pr")
    assert anonymous("POST", "/reset-password/", body).status == 200
    assert sign_in(anonymous, user, "another password").status == 200


def test_a_request_needs_the_password(client_for: Callable[..., Client], user: User) -> None:
    client = client_for(user)
    assert status_and_code(request_deletion(client, "wrong")) == (409, "incorrect_password")
    assert client("GET", "/users/me").status == 200


def test_the_owner_of_an_organization_cannot_request_it(
    client_for: Callable[..., Client], user: User, database: Database
) -> None:
    organizations = [factories.make_organization(user) for _ in range(2)]
    factories.make_membership(factories.make_organization(), user, role="admin")
    client = client_for(user)
    response = request_deletion(client)
    assert status_and_code(response) == (409, "owns_organization")
    ids = sorted(str(organization.id) for organization in organizations)
    (conflict,) = response.json()["conflicts_with"]
    assert (conflict["resource_type"], conflict["count"], sorted(conflict["ids"])) == ("organization", 2, ids)
    assert client("GET", "/users/me").status == 200
    with database.transaction(write=False) as session:
        assert session.scalars(select(AccountDeletion)).all() == []


def test_an_account_that_is_being_deleted_gets_no_organization(
    client_for: Callable[..., Client], user: User
) -> None:
    owner = factories.make_user(hashed_password=HASHED)
    organization = factories.make_organization(owner)
    factories.make_membership(organization, user)
    request_deletion(client_for(user))
    path, body = f"/organizations/{organization.id}/transfer-ownership", {"user_id": str(user.id)}
    response = client_for(owner)("POST", path, {**body, "password": PASSWORD})
    assert status_and_code(response) == (409, "account_locked")


def test_the_task_deletes_the_account_and_what_is_personal_only(
    client_for: Callable[..., Client],
    user: User,
    database: Database,
    storage: LocalDisk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queries, "PERSONAL_BATCH_SIZE", 2)
    organization = factories.make_organization()
    factories.make_membership(organization, user)
    shared = factories.make_product(owner=user, organization=organization)
    for _ in range(5):
        factories.make_product_image(factories.make_product(owner=user))
    factories.make_prediction(factories.make_generation(factories.make_shot(
        factories.make_look(factories.make_shooting(owner=user)))))  # fmt: skip
    client = client_for(user)
    assert client("POST", "/brands/", {"name": "Atelier"}).status == 201
    request_deletion(client)
    assert delete_due_accounts(database, storage) == 0
    assert exists(database, user)
    make_due(database, user)
    assert delete_due_accounts(database, storage) == 1
    with database.transaction(write=False) as session:
        assert session.scalars(select(User.id).where(User.id == user.id)).all() == []
        for model in (Product, Brand):
            assert session.scalar(select(func.count()).where(model.owner_id == user.id)) == 0
        assert session.get_one(Product, shared.id).owner_id == organization.owner_id
        for model in (Membership, TokenFamily, AccountDeletion):
            assert session.scalars(select(model.id).where(model.user_id == user.id)).all() == []
        events = session.scalars(select(AuditEvent).where(AuditEvent.actor_id == user.id)).all()
        assert {event.action for event in events} >= {"create_brand", "request_account_deletion"}
    assert delete_due_accounts(database, storage) == 0


def test_a_killed_task_continues_and_cannot_be_canceled_meanwhile(
    app: Application,
    client_for: Callable[..., Client],
    anonymous: Client,
    user: User,
    database: Database,
    storage: LocalDisk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queries, "PERSONAL_BATCH_SIZE", 2)
    for _ in range(5):
        factories.make_brand(owner=user)
    request_deletion(client_for(user))
    make_due(database, user)

    def die(_user: User, storage: LocalDisk) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deletions, "delete_account", die)
        with pytest.raises(KeyboardInterrupt):
            delete_due_accounts(database, storage)
    assert exists(database, user)
    assert cancel(anonymous, get_mailed_token(app, user.email, "ad")).status == 401
    assert sign_in(anonymous, user).status == 409
    assert delete_due_accounts(database, storage) == 1
    assert not exists(database, user)


def test_an_account_that_cannot_be_deleted_does_not_block_the_others(
    client_for: Callable[..., Client], user: User, database: Database, storage: LocalDisk
) -> None:
    other = factories.make_user(hashed_password=HASHED)
    for account in (user, other):
        request_deletion(client_for(account))
        make_due(database, account)
    factories.make_organization(user)
    assert delete_due_accounts(database, storage) == 1
    assert exists(database, user)
    assert not exists(database, other)
    with database.transaction(write=False) as session:
        deletion = session.scalars(select(AccountDeletion)).one()
        assert deletion.deletes_at > utc_now() + timedelta(hours=23)


def test_a_deactivated_account_does_not_cancel(
    app: Application, client_for: Callable[..., Client], anonymous: Client, user: User, database: Database
) -> None:
    request_deletion(client_for(user))
    with database.transaction(write=True) as session:
        session.get_one(User, user.id).is_active = False
    assert cancel(anonymous, get_mailed_token(app, user.email, "ad")).status == 401


def test_two_requests_at_the_same_moment_schedule_one_deletion(committing_server: CommittingServer) -> None:
    app, database = committing_server.client.app, committing_server.database
    with database.transaction(write=True):
        user = factories.make_user(hashed_password=HASHED)
    form = f"username={user.email}&password={PASSWORD}".replace(" ", "+").encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    token = Client(app)("POST", "/login/access-token", body=form, headers=headers).json()["access_token"]
    client = Client(app, {"authorization": f"Bearer {token}"})
    responses: list[Any] = run_concurrently(*[lambda: request_deletion(client)] * 2)
    statuses = sorted(response.status for response in responses)
    # The slower one finds its session ended, unless it had begun.
    assert statuses in ([202, 202], [202, 401])
    bodies = {json.dumps(response.json()) for response in responses if response.status == 202}
    assert len(bodies) == 1
    assert len(list_emails_to(app, user.email)) == 1


def test_the_maintenance_tasks_delete_accounts() -> None:
    assert "deletion of accounts" in {task.name for task in MAINTENANCE_TASKS}
