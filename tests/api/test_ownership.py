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
from studio.identity.passwords import hash_password
from tests import factories
from tests.api.conftest import Client, Committed
from tests.api.mailbox import letters_to
from tests.contract.mini.asking import Reply
from tests.production import Production
from tests.racing import at_once
from tests.serving import bearer

PASSWORD = "sartiq-demo"
HASHED = hash_password(PASSWORD)


@pytest.fixture
def owner(database: Database) -> User:
    return factories.make_user(hashed_password=HASHED)


@pytest.fixture
def heir(database: Database) -> User:
    return factories.make_user(hashed_password=HASHED)


@pytest.fixture
def organization(owner: User, heir: User) -> Organization:
    organization = factories.make_organization(owner, name="Maison\nDemo")
    factories.make_membership(organization, heir, role="viewer")
    return organization


@pytest.fixture
def client(client_of: Callable[..., Client], owner: User) -> Client:
    return client_of(owner)


def transfer(client: Client, organization: Organization, user: User, password: str = PASSWORD) -> Reply:
    body = {"user_id": str(user.id), "password": password}
    return client("POST", f"/organizations/{organization.id}/transfer-ownership", body)


def roles(client: Client, organization: Organization) -> dict[str, str]:
    rows = client("GET", f"/organizations/{organization.id}/members").json()["data"]
    return {row["user_id"]: row["role"] for row in rows}


def assert_conflict(reply: Reply, code: str) -> None:
    assert (reply.status, reply.json()["code"]) == (409, code), reply.body


def test_a_member_becomes_the_owner_and_the_owner_an_admin(
    app: Application, client: Client, organization: Organization, owner: User, heir: User
) -> None:
    before = client("GET", f"/organizations/{organization.id}").json()
    reply = transfer(client, organization, heir)
    assert (reply.status, reply.json()) == (200, {**before, "owner_id": str(heir.id)}), reply.body
    assert reply.headers["etag"] == client("GET", f"/organizations/{organization.id}").headers["etag"]
    assert roles(client, organization) == {str(owner.id): "admin", str(heir.id): "owner"}
    assert "owner of the organization Maison Demo at Sartiq" in letters_to(app, heir.email)[-1]
    (event,) = client("GET", f"/organizations/{organization.id}/audit-events").json()["data"]
    assert (event["action"], event["target_id"]) == ("transfer_ownership", str(organization.id))
    assert event["changes"] == [{"field": "owner_id", "before": str(owner.id), "after": str(heir.id)}]


def test_the_owner_until_now_cannot_take_the_organization_back(
    client: Client, client_of: Callable[..., Client], organization: Organization, owner: User, heir: User
) -> None:
    assert transfer(client, organization, heir).status == 200
    assert transfer(client, organization, owner).status == 403
    assert client("DELETE", f"/organizations/{organization.id}").status == 403
    assert transfer(client_of(heir), organization, owner).json()["owner_id"] == str(owner.id)


@pytest.mark.parametrize("role", ["viewer", "member", "admin"])
def test_only_the_owner_hands_over(
    client_of: Callable[..., Client], organization: Organization, heir: User, role: str
) -> None:
    somebody = factories.make_user(hashed_password=HASHED)
    factories.make_membership(organization, somebody, role=role)
    assert transfer(client_of(somebody), organization, heir).status == 403
    assert transfer(client_of(somebody), organization, somebody).status == 403


def test_a_superuser_helps_an_organization_whose_owner_has_gone(
    superuser: Client, client_of: Callable[..., Client], organization: Organization, owner: User, heir: User
) -> None:
    root = client_of(factories.make_user(is_superuser=True, hashed_password=HASHED))
    assert_conflict(transfer(superuser, organization, heir), "incorrect_password")
    assert transfer(root, organization, heir).json()["owner_id"] == str(heir.id)
    assert roles(root, organization)[str(owner.id)] == "admin"


def test_what_cannot_be_handed_over_stays(
    client: Client, organization: Organization, owner: User, heir: User, database: Database
) -> None:
    assert_conflict(transfer(client, organization, heir, "another password"), "incorrect_password")
    assert_conflict(transfer(client, organization, owner), "already_owner")
    stranger = transfer(client, organization, factories.make_user())
    unknown = client(
        "POST",
        f"/organizations/{organization.id}/transfer-ownership",
        {"user_id": "01990000-5eed-7000-8000-0001000000ff", "password": PASSWORD},
    )
    assert (stranger.status, stranger.json()["detail"]) == (unknown.status, unknown.json()["detail"])
    assert stranger.status == 404
    heir.is_active = False
    factories.make(heir)
    assert_conflict(transfer(client, organization, heir), "account_locked")
    assert roles(client, organization) == {str(owner.id): "owner", str(heir.id): "viewer"}


def test_who_pays_follows_the_owner(client_of: Callable[..., Client], production: Production) -> None:
    production.owner.hashed_password = HASHED
    factories.make(production.owner)
    heir = factories.make_user()
    factories.make_membership(production.organization, heir, role="viewer")
    plan = factories.make_subscription(heir)
    client = client_of(production.owner)
    assert transfer(client, production.organization, heir).status == 200
    order = {"product_id": str(production.product.id), "batch_size": 3}
    path = f"/generations/?organization_id={production.organization.id}"
    assert client("POST", path, order).status == 202
    assert client_of(heir)("GET", f"/subscriptions/{plan.id}").json()["credits_used"] == 3
    assert client("GET", f"/subscriptions/{production.subscription.id}").json()["credits_used"] == 0


class Counting:
    """Counts owners again and again, each time in a transaction of its own, until it is told to end."""

    def __init__(self, database: Database, organization: Organization) -> None:
        self._database = database
        owners = Membership.organization_id == organization.id, Membership.role == Role.OWNER
        self._query = select(func.count()).select_from(Membership).where(*owners)
        self.seen: list[Any] = []
        self.over = threading.Event()

    def __call__(self) -> None:
        """Count until the end, and once after it."""
        while not self.over.is_set():
            self._count()
        self._count()

    def _count(self) -> None:
        with self._database.transaction(write=False) as reading:
            self.seen.append(reading.scalar(self._query))


def test_of_many_transfers_at_once_one_wins_and_there_is_one_owner_at_every_moment(
    committed: Committed,
) -> None:
    client, database, production = committed
    with database.transaction(write=True) as writing:
        writing.get_one(User, production.owner.id).hashed_password = HASHED
        heirs = [factories.make_user() for _ in range(4)]
        for heir in heirs:
            factories.make_membership(production.organization, heir)
    counting = Counting(database, production.organization)
    with ThreadPoolExecutor(1) as pool:
        counted = pool.submit(counting)
        replies = at_once(*[partial(transfer, client, production.organization, heir) for heir in heirs])
        counting.over.set()
        counted.result()
    assert sorted(reply.status for reply in replies) == [200, 403, 403, 403]
    assert set(counting.seen) == {1}
    (won,) = (reply for reply in replies if reply.status == 200)
    assert sorted(roles(client, production.organization).values()) == [
        "admin",
        "member",
        "member",
        "member",
        "owner",
    ]
    assert client("GET", f"/organizations/{production.organization.id}").json() == won.json()


def test_an_heir_who_is_deleted_or_removed_meanwhile_leaves_an_organization_with_an_owner(
    committed: Committed, application: Application
) -> None:
    client, database, production = committed
    with database.transaction(write=True) as writing:
        writing.get_one(User, production.owner.id).hashed_password = HASHED
        heir, root = factories.make_user(), factories.make_user(is_superuser=True)
        factories.make_membership(production.organization, heir)
        admin = Client(application, bearer(application, root))
    handed, deleted = at_once(
        lambda: transfer(client, production.organization, heir),
        lambda: admin("DELETE", f"/users/{heir.id}"),
    )
    assert (handed.status, deleted.status) in [(200, 409), (404, 204)], (handed.body, deleted.body)
    assert list(roles(admin, production.organization).values()).count("owner") == 1
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(Subscription)) == 1
