"""A removed member or a lower role takes effect at the next request, also for existing tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

import pytest

from db.models import Organization, User
from db.queries import organizations
from db.session import Database
from handlers.app import Application
from studio.accounts.identity.passwords import hash_password
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.concurrency import PausedCall


@pytest.fixture
def owner(database: Database) -> User:
    return factories.make_user(hashed_password=hash_password("sartiq-demo"))


@pytest.fixture
def organization(owner: User) -> Organization:
    return factories.make_organization(owner)


@pytest.fixture
def member(organization: Organization) -> User:
    user = factories.make_user()
    factories.make_membership(organization, user, role="admin")
    return user


def test_s16_a_new_role_takes_effect_at_the_next_request(
    client_for: Callable[..., Client], organization: Organization, owner: User, member: User
) -> None:
    client, other_client = client_for(owner), client_for(member)
    path = f"/organizations/{organization.id}"
    brand = factories.make_brand(organization=organization)
    for role, rename_status, brand_status in (
        ("admin", 200, 200),
        ("member", 403, 200),
        ("viewer", 403, 403),
        ("admin", 200, 200),
    ):
        assert client("PATCH", f"{path}/members/{member.id}", {"role": role}).json()["role"] == role
        assert other_client("PATCH", path, {"name": role}).status == rename_status
        assert other_client("PATCH", f"/brands/{brand.id}", {"name": role}).status == brand_status
        assert other_client("GET", f"/brands/{brand.id}").status == 200


def test_s16_a_removed_member_loses_access_at_the_next_request(
    client_for: Callable[..., Client], organization: Organization, owner: User, member: User
) -> None:
    client, other_client = client_for(owner), client_for(member)
    path, brand = f"/organizations/{organization.id}", factories.make_brand(organization=organization)
    assert other_client("GET", f"/brands/{brand.id}").status == 200
    assert client("DELETE", f"{path}/members/{member.id}").status == 204
    assert client("GET", f"{path}/members/{member.id}").status == 404
    for method, target in (
        ("GET", path),
        ("PATCH", path),
        ("GET", f"{path}/members"),
        ("GET", f"/brands/?organization_id={organization.id}"),
        ("GET", f"/brands/{brand.id}"),
        ("DELETE", f"/brands/{brand.id}"),
    ):
        assert other_client(method, target, {"name": "A"} if method == "PATCH" else None).status == 404, (
            target
        )
    assert other_client("GET", "/users/me").json()["role"] is None


def test_s16_the_previous_owner_loses_the_role_at_the_next_request_after_a_transfer(
    client_for: Callable[..., Client], organization: Organization, owner: User, member: User
) -> None:
    client, other_client = client_for(owner), client_for(member)
    path = f"/organizations/{organization.id}"
    assert other_client("DELETE", path).status == 403
    body = {"user_id": str(member.id), "password": "sartiq-demo"}
    assert client("POST", f"{path}/transfer-ownership", body).status == 200
    assert client("DELETE", path).status == 403
    assert client("POST", f"{path}/transfer-ownership", body).status == 403
    assert other_client("DELETE", path).status == 204


class Team(NamedTuple):
    """An organization with its owner, an admin and a member, on a server whose requests commit."""

    path: str
    owner: Client
    admin: Client
    admin_id: UUID
    member_id: UUID

    def role(self, user_id: UUID) -> str | None:
        """Return the current role of a user; None if the user is no member."""
        response = self.owner("GET", f"{self.path}/members/{user_id}")
        return str(response.json()["role"]) if response.status == 200 else None


@pytest.fixture
def team(committing_server: CommittingServer, application: Application) -> Team:
    owner, database, production = committing_server
    with database.transaction(write=True) as writing:
        writing.get_one(User, production.owner.id).hashed_password = hash_password("sartiq-demo")
        admin, member = factories.make_user(), factories.make_user()
        factories.make_membership(production.organization, admin, role="admin")
        factories.make_membership(production.organization, member, role="member")
        client = Client(application, auth_headers(application, admin))
    return Team(f"/organizations/{production.organization.id}", owner, client, admin.id, member.id)


@pytest.mark.parametrize(
    ("lost", "attempt"),
    [
        *(("demoted", attempt) for attempt in ("own role", "removal", "invitation", "withdrawal")),
        ("removed", "another role"),
    ],
)
@pytest.mark.slow("each case waits for a lock")
def test_s16_a_request_of_an_admin_fails_when_the_role_changes_while_it_runs(
    team: Team, monkeypatch: pytest.MonkeyPatch, lost: str, attempt: str
) -> None:
    own_path, other_path = f"{team.path}/members/{team.admin_id}", f"{team.path}/members/{team.member_id}"
    body = {"email": "friend@example.com", "role": "admin"}
    invitation_id = team.owner(
        "POST", f"{team.path}/invitations", {**body, "email": "ines@example.com"}
    ).json()["id"]
    send = {
        "own role": lambda: team.admin("PATCH", own_path, {"role": "admin"}),
        "another role": lambda: team.admin("PATCH", other_path, {"role": "admin"}),
        "removal": lambda: team.admin("DELETE", other_path),
        "invitation": lambda: team.admin("POST", f"{team.path}/invitations", body),
        "withdrawal": lambda: team.admin("DELETE", f"{team.path}/invitations/{invitation_id}"),
    }[attempt]
    change = {
        "demoted": lambda: team.owner("PATCH", own_path, {"role": "viewer"}),
        "removed": lambda: team.owner("DELETE", own_path),
    }[lost]
    attempted, changed = PausedCall(monkeypatch, organizations, "require_permission_in").run_during_pause(
        change, send
    )
    assert changed.status in (200, 204), changed.body
    assert team.role(team.admin_id) == ("viewer" if lost == "demoted" else None)
    assert attempted.status == (403 if lost == "demoted" else 404), attempted.body
    assert team.role(team.member_id) == "member"
    listed = team.owner("GET", f"{team.path}/invitations").json()["data"]
    assert [invitation["id"] for invitation in listed] == [invitation_id]


def test_s16_two_admins_who_remove_each_other_at_the_same_time_leave_one_admin(
    team: Team, application: Application, monkeypatch: pytest.MonkeyPatch, committing_server: CommittingServer
) -> None:
    assert team.owner("PATCH", f"{team.path}/members/{team.member_id}", {"role": "admin"}).status == 200
    with committing_server.database.transaction(write=True) as writing:
        other = Client(application, auth_headers(application, writing.get_one(User, team.member_id)))
    first, second = PausedCall(monkeypatch, organizations, "require_permission_in").run_during_pause(
        lambda: other("DELETE", f"{team.path}/members/{team.admin_id}"),
        lambda: team.admin("DELETE", f"{team.path}/members/{team.member_id}"),
    )
    assert sorted((first.status, second.status)) == [204, 404]
    assert sorted(str(team.role(user_id)) for user_id in (team.admin_id, team.member_id)) == ["None", "admin"]


@pytest.mark.parametrize("attempt", ["deletion", "transfer"])
def test_s16_a_request_of_the_owner_fails_when_ownership_is_transferred_while_it_runs(
    committing_server: CommittingServer,
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    attempt: str,
) -> None:
    owner, database, production = committing_server
    with database.transaction(write=True) as writing:
        writing.get_one(User, production.owner.id).hashed_password = hash_password("sartiq-demo")
        new_owner, organization = factories.make_user(), factories.make_organization(production.owner)
        factories.make_membership(organization, new_owner, role="viewer")
        other_client = Client(application, auth_headers(application, new_owner))
    path = f"/organizations/{organization.id}"
    body = {"user_id": str(new_owner.id), "password": "sartiq-demo"}
    attempted, transferred = PausedCall(monkeypatch, organizations, "require_permission_in").run_during_pause(
        lambda: owner("POST", f"{path}/transfer-ownership", body),
        {
            "deletion": lambda: owner("DELETE", path),
            "transfer": lambda: owner("POST", f"{path}/transfer-ownership", body),
        }[attempt],
    )
    assert (attempted.status, transferred.status) == (403, 200)
    assert other_client("GET", path).json()["owner_id"] == str(new_owner.id)
