"""Transfer of ownership: to a member, by the owner only, with exactly one owner at any time."""

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
from tests.support.client import ClientResponse, assert_conflict
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


def transfer_ownership(
    client: Client, organization: Organization, user: User, password: str = PASSWORD
) -> ClientResponse:
    body = {"user_id": str(user.id), "password": password}
    return client("POST", f"/organizations/{organization.id}/transfer-ownership", body)


def list_roles(client: Client, organization: Organization) -> dict[str, str]:
    rows = client("GET", f"/organizations/{organization.id}/members").json()["data"]
    return {row["user_id"]: row["role"] for row in rows}


def test_a_member_becomes_the_owner_and_the_owner_an_admin(
    app: Application, client: Client, organization: Organization, owner: User, new_owner: User
) -> None:
    before = client("GET", f"/organizations/{organization.id}").json()
    response = transfer_ownership(client, organization, new_owner)
    after = {"owner_id": str(new_owner.id), "updated_at": response.json()["updated_at"]}
    assert (response.status, response.json()) == (200, {**before, **after}), response.body
    assert after["updated_at"] > before["updated_at"]
    assert response.headers["etag"] == client("GET", f"/organizations/{organization.id}").headers["etag"]
    assert list_roles(client, organization) == {str(owner.id): "admin", str(new_owner.id): "owner"}
    assert 'owner of the organization "Maison Demo" at Sartiq' in list_emails_to(app, new_owner.email)[-1]
    (event,) = client("GET", f"/organizations/{organization.id}/audit-events").json()["data"]
    assert (event["action"], event["target_id"]) == ("transfer_ownership", str(organization.id))
    assert event["changes"] == [{"field": "owner_id", "before": str(owner.id), "after": str(new_owner.id)}]


def test_the_previous_owner_cannot_take_the_organization_back(
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
def test_only_the_owner_can_transfer_ownership(
    client_for: Callable[..., Client], organization: Organization, new_owner: User, role: str
) -> None:
    member = factories.make_user(hashed_password=HASHED)
    factories.make_membership(organization, member, role=role)
    assert transfer_ownership(client_for(member), organization, new_owner).status == 403
    assert transfer_ownership(client_for(member), organization, member).status == 403


def test_a_superuser_can_transfer_ownership_with_their_own_password(
    superuser: Client,
    client_for: Callable[..., Client],
    organization: Organization,
    owner: User,
    new_owner: User,
) -> None:
    superuser_with_password = client_for(factories.make_user(is_superuser=True, hashed_password=HASHED))
    assert_conflict(transfer_ownership(superuser, organization, new_owner), "incorrect_password")
    assert transfer_ownership(superuser_with_password, organization, new_owner).json()["owner_id"] == str(
        new_owner.id
    )
    assert list_roles(superuser_with_password, organization)[str(owner.id)] == "admin"


def test_a_rejected_transfer_changes_no_role(
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


def test_generations_are_charged_to_the_new_owner_after_a_transfer(
    client_for: Callable[..., Client], scenario: PhotographedProduct
) -> None:
    scenario.owner.hashed_password = HASHED
    factories.make(scenario.owner)
    new_owner = factories.make_user()
    factories.make_membership(scenario.organization, new_owner, role="viewer")
    subscription = factories.make_subscription(new_owner)
    client = client_for(scenario.owner)
    assert transfer_ownership(client, scenario.organization, new_owner).status == 200
    body = {"product_id": str(scenario.product.id), "batch_size": 3}
    path = f"/generations/?organization_id={scenario.organization.id}"
    assert client("POST", path, body).status == 202
    assert client_for(new_owner)("GET", f"/subscriptions/{subscription.id}").json()["credits_used"] == 3
    assert client("GET", f"/subscriptions/{scenario.subscription.id}").json()["credits_used"] == 0


class OwnerCounter:
    """Counts owners repeatedly, each time in a new transaction, until `stopped` is set."""

    def __init__(self, database: Database, organization: Organization) -> None:
        self._database = database
        owners = Membership.organization_id == organization.id, Membership.role == Role.OWNER
        self._query = select(func.count()).select_from(Membership).where(*owners)
        self.seen: list[Any] = []
        self.stopped = threading.Event()

    def __call__(self) -> None:
        """Count until `stopped` is set. The last count starts after that."""
        while not self.stopped.is_set():
            self._count_owners()
        self._count_owners()

    def _count_owners(self) -> None:
        with self._database.transaction(write=False) as reading:
            self.seen.append(reading.scalar(self._query))


def test_one_of_many_concurrent_transfers_succeeds_and_there_is_always_one_owner(
    committing_server: CommittingServer,
) -> None:
    client, database, scenario = committing_server
    with database.transaction(write=True) as writing:
        writing.get_one(User, scenario.owner.id).hashed_password = HASHED
        members = [factories.make_user() for _ in range(4)]
        for member in members:
            factories.make_membership(scenario.organization, member)
    counter = OwnerCounter(database, scenario.organization)
    with ThreadPoolExecutor(1) as pool:
        count_task = pool.submit(counter)
        responses = run_concurrently(
            *[partial(transfer_ownership, client, scenario.organization, member) for member in members]
        )
        counter.stopped.set()
        count_task.result()
    assert sorted(response.status for response in responses) == [200, 403, 403, 403]
    assert set(counter.seen) == {1}
    (accepted,) = (response for response in responses if response.status == 200)
    assert sorted(list_roles(client, scenario.organization).values()) == [
        "admin",
        "member",
        "member",
        "member",
        "owner",
    ]
    assert client("GET", f"/organizations/{scenario.organization.id}").json() == accepted.json()


def test_a_new_owner_deleted_during_the_transfer_leaves_the_organization_with_an_owner(
    committing_server: CommittingServer, application: Application
) -> None:
    client, database, scenario = committing_server
    with database.transaction(write=True) as writing:
        writing.get_one(User, scenario.owner.id).hashed_password = HASHED
        new_owner, superuser = factories.make_user(), factories.make_user(is_superuser=True)
        factories.make_membership(scenario.organization, new_owner)
        superuser_client = Client(application, auth_headers(application, superuser))
    transferred, deleted = run_concurrently(
        lambda: transfer_ownership(client, scenario.organization, new_owner),
        lambda: superuser_client("DELETE", f"/users/{new_owner.id}"),
    )
    assert (transferred.status, deleted.status) in [(200, 409), (404, 204)], (transferred.body, deleted.body)
    assert list(list_roles(superuser_client, scenario.organization).values()).count("owner") == 1
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(Subscription)) == 1
