"""Handing an organization over: to a member, by the owner alone, with exactly one owner at every moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select

from db.models import Membership, Organization, Role, Subscription, User
from db.session import Database
from handlers.app import Application
from studio.accounts.identity.passwords import hash_password
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import ClientResponse
from tests.support.concurrency import run_concurrently
from tests.support.mailbox import list_emails_to
from tests.support.scenarios import PhotographedProduct

PASSWORD = "sartiq-demo"
HASHED = hash_password(PASSWORD)


@pytest.fixture
def owner(database: Database) -> User:
    return factories.make_user(hashed_password=HASHED)


@pytest.fixture
def new_owner(database: Database) -> User:
    return factories.make_user(hashed_password=HASHED)


@pytest.fixture
def organization(owner: User, new_owner: User) -> Organization:
    organization = factories.make_organization(owner, name="Maison\nDemo")
    factories.make_membership(organization, new_owner, role="viewer")
    return organization


@pytest.fixture
def client(client_for: Callable[..., Client], owner: User) -> Client:
    return client_for(owner)


def transfer_ownership(
    client: Client, organization: Organization, user: User, password: str = PASSWORD
) -> ClientResponse:
    body = {"user_id": str(user.id), "password": password}
    return client("POST", f"/organizations/{organization.id}/transfer-ownership", body)


def list_roles(client: Client, organization: Organization) -> dict[str, str]:
    rows = client("GET", f"/organizations/{organization.id}/members").json()["data"]
    return {row["user_id"]: row["role"] for row in rows}


def assert_conflict(reply: ClientResponse, code: str) -> None:
    assert (reply.status, reply.json()["code"]) == (409, code), reply.body


def test_a_member_becomes_the_owner_and_the_owner_an_admin(
    app: Application, client: Client, organization: Organization, owner: User, new_owner: User
) -> None:
    before = client("GET", f"/organizations/{organization.id}").json()
    reply = transfer_ownership(client, organization, new_owner)
    assert (reply.status, reply.json()) == (200, {**before, "owner_id": str(new_owner.id)}), reply.body
    assert reply.headers["etag"] == client("GET", f"/organizations/{organization.id}").headers["etag"]
    assert list_roles(client, organization) == {str(owner.id): "admin", str(new_owner.id): "owner"}
    assert "owner of the organization Maison Demo at Sartiq" in list_emails_to(app, new_owner.email)[-1]
    (event,) = client("GET", f"/organizations/{organization.id}/audit-events").json()["data"]
    assert (event["action"], event["target_id"]) == ("transfer_ownership", str(organization.id))
    assert event["changes"] == [{"field": "owner_id", "before": str(owner.id), "after": str(new_owner.id)}]


def test_the_owner_until_now_cannot_take_the_organization_back(
    client: Client,
    client_for: Callable[..., Client],
    organization: Organization,
    owner: User,
    new_owner: User,
) -> None:
    assert transfer_ownership(client, organization, new_owner).status == 200
    assert transfer_ownership(client, organization, owner).status == 403
    assert client("DELETE", f"/organizations/{organization.id}").status == 403
    assert transfer_ownership(client_for(new_owner), organization, owner).json()["owner_id"] == str(owner.id)


@pytest.mark.parametrize("role", ["viewer", "member", "admin"])
def test_only_the_owner_hands_over(
    client_for: Callable[..., Client], organization: Organization, new_owner: User, role: str
) -> None:
    somebody = factories.make_user(hashed_password=HASHED)
    factories.make_membership(organization, somebody, role=role)
    assert transfer_ownership(client_for(somebody), organization, new_owner).status == 403
    assert transfer_ownership(client_for(somebody), organization, somebody).status == 403


def test_a_superuser_helps_an_organization_whose_owner_has_gone(
    superuser: Client,
    client_for: Callable[..., Client],
    organization: Organization,
    owner: User,
    new_owner: User,
) -> None:
    root = client_for(factories.make_user(is_superuser=True, hashed_password=HASHED))
    assert_conflict(transfer_ownership(superuser, organization, new_owner), "incorrect_password")
    assert transfer_ownership(root, organization, new_owner).json()["owner_id"] == str(new_owner.id)
    assert list_roles(root, organization)[str(owner.id)] == "admin"


def test_what_cannot_be_handed_over_stays(
    client: Client, organization: Organization, owner: User, new_owner: User, database: Database
) -> None:
    assert_conflict(
        transfer_ownership(client, organization, new_owner, "another password"), "incorrect_password"
    )
    assert_conflict(transfer_ownership(client, organization, owner), "already_owner")
    stranger = transfer_ownership(client, organization, factories.make_user())
    unknown = client(
        "POST",
        f"/organizations/{organization.id}/transfer-ownership",
        {"user_id": "01990000-5eed-7000-8000-0001000000ff", "password": PASSWORD},
    )
    assert (stranger.status, stranger.json()["detail"]) == (unknown.status, unknown.json()["detail"])
    assert stranger.status == 404
    new_owner.is_active = False
    factories.make(new_owner)
    assert_conflict(transfer_ownership(client, organization, new_owner), "account_locked")
    assert list_roles(client, organization) == {str(owner.id): "owner", str(new_owner.id): "viewer"}


def test_who_pays_follows_the_owner(client_for: Callable[..., Client], scenario: PhotographedProduct) -> None:
    scenario.owner.hashed_password = HASHED
    factories.make(scenario.owner)
    heir = factories.make_user()
    factories.make_membership(scenario.organization, heir, role="viewer")
    plan = factories.make_subscription(heir)
    client = client_for(scenario.owner)
    assert transfer_ownership(client, scenario.organization, heir).status == 200
    order = {"product_id": str(scenario.product.id), "batch_size": 3}
    path = f"/generations/?organization_id={scenario.organization.id}"
    assert client("POST", path, order).status == 202
    assert client_for(heir)("GET", f"/subscriptions/{plan.id}").json()["credits_used"] == 3
    assert client("GET", f"/subscriptions/{scenario.subscription.id}").json()["credits_used"] == 0


class OwnerCounter:
    """Counts owners again and again, each time in a transaction of its own, until it is told to end."""

    def __init__(self, database: Database, organization: Organization) -> None:
        self._database = database
        owners = Membership.organization_id == organization.id, Membership.role == Role.OWNER
        self._query = select(func.count()).select_from(Membership).where(*owners)
        self.seen: list[Any] = []
        self.stopped = threading.Event()

    def __call__(self) -> None:
        """Count until the end, and once after it."""
        while not self.stopped.is_set():
            self._count_owners()
        self._count_owners()

    def _count_owners(self) -> None:
        with self._database.transaction(write=False) as reading:
            self.seen.append(reading.scalar(self._query))


def test_of_many_transfers_at_once_one_wins_and_there_is_one_owner_at_every_moment(
    committing_server: CommittingServer,
) -> None:
    client, database, production = committing_server
    with database.transaction(write=True) as writing:
        writing.get_one(User, production.owner.id).hashed_password = HASHED
        heirs = [factories.make_user() for _ in range(4)]
        for heir in heirs:
            factories.make_membership(production.organization, heir)
    counting = OwnerCounter(database, production.organization)
    with ThreadPoolExecutor(1) as pool:
        counted = pool.submit(counting)
        replies = run_concurrently(
            *[partial(transfer_ownership, client, production.organization, heir) for heir in heirs]
        )
        counting.stopped.set()
        counted.result()
    assert sorted(reply.status for reply in replies) == [200, 403, 403, 403]
    assert set(counting.seen) == {1}
    (won,) = (reply for reply in replies if reply.status == 200)
    assert sorted(list_roles(client, production.organization).values()) == [
        "admin",
        "member",
        "member",
        "member",
        "owner",
    ]
    assert client("GET", f"/organizations/{production.organization.id}").json() == won.json()


def test_a_new_owner_deleted_during_the_transfer_leaves_the_organization_with_an_owner(
    committing_server: CommittingServer, application: Application
) -> None:
    client, database, production = committing_server
    with database.transaction(write=True) as writing:
        writing.get_one(User, production.owner.id).hashed_password = HASHED
        heir, root = factories.make_user(), factories.make_user(is_superuser=True)
        factories.make_membership(production.organization, heir)
        admin = Client(application, auth_headers(application, root))
    handed, deleted = run_concurrently(
        lambda: transfer_ownership(client, production.organization, heir),
        lambda: admin("DELETE", f"/users/{heir.id}"),
    )
    assert (handed.status, deleted.status) in [(200, 409), (404, 204)], (handed.body, deleted.body)
    assert list(list_roles(admin, production.organization).values()).count("owner") == 1
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(Subscription)) == 1
