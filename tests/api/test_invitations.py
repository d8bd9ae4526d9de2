"""Invitations through the API: sent by e-mail, bound to one address, accepted at most once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from db.base import utc_now
from db.models import Invitation, Organization, User
from db.session import Database
from handlers.app import Application
from studio.accounts.identity.passwords import hash_password, verify_password
from studio.accounts.invitations import MAX_OPEN_INVITATIONS
from tests.api.conftest import Client
from tests.support import factories
from tests.support.auth import assert_invalid_token
from tests.support.client import assert_conflict
from tests.support.factories.invitations import (
    PASSWORD,
    accept,
    get_invitation_token,
    invitations_path,
    invite,
    make_invitation,
)
from tests.support.mailbox import list_emails_to


@pytest.fixture
def owner(database: Database) -> User:
    return factories.make_user(email="dana@example.com")


@pytest.fixture
def organization(owner: User) -> Organization:
    return factories.make_organization(owner, name="Maison\r\n\r\nhttps://elsewhere.example.com Demo")


@pytest.fixture
def admin(organization: Organization) -> User:
    admin = factories.make_user()
    factories.make_membership(organization, admin, role="admin")
    return admin


def test_an_invitation_is_mailed_and_shown_without_its_token(
    app: Application, client: Client, organization: Organization, owner: User, database: Database
) -> None:
    response = invite(client, organization)
    shown = response.json()
    assert response.status == 201, response.body
    assert shown == {
        "id": shown["id"],
        "created_at": shown["created_at"],
        "updated_at": shown["updated_at"],
        "organization_id": str(organization.id),
        "email": "ines@example.com",
        "role": "member",
        "invited_by_id": str(owner.id),
        "expires_at": shown["expires_at"],
    }
    assert response.headers["location"] == f"/api/v1{invitations_path(organization)}/{shown['id']}"
    assert client("GET", f"{invitations_path(organization)}/{shown['id']}").json() == shown
    assert client("GET", invitations_path(organization)).json()["data"] == [shown]
    message, token = list_emails_to(app, "ines@example.com")[-1], get_invitation_token(app)
    # A user chooses the name of an organization: it must not add lines or links to the message.
    expected_name = 'the organization "Maison https :// elsewhere . example . com Demo" at Sartiq'
    assert f"dana@example.com invites you to {expected_name}, as member." in message
    with database.transaction(write=False) as reading:
        row = reading.connection().exec_driver_sql("SELECT * FROM invitations").one()
        stored = reading.scalars(select(Invitation)).one()
    assert token not in str(row)
    assert timedelta(days=6, hours=23) < stored.expires_at - utc_now() <= timedelta(days=7)


def test_accepting_creates_an_account_for_a_new_address(
    app: Application, client: Client, anonymous: Client, organization: Organization, database: Database
) -> None:
    invite(client, organization, role="admin")
    assert_conflict(accept(anonymous, get_invitation_token(app)), "password_required")
    assert accept(anonymous, get_invitation_token(app), password="short").status == 422
    response = accept(anonymous, get_invitation_token(app), password=PASSWORD, full_name="Inès Martin")
    shown = response.json()
    assert response.status == 201, response.body
    assert shown == {
        "id": shown["id"],
        "created_at": shown["created_at"],
        "updated_at": shown["updated_at"],
        "organization_id": str(organization.id),
        "user_id": shown["user_id"],
        "email": "ines@example.com",
        "full_name": "Inès Martin",
        "role": "admin",
        "has_second_factor": False,
    }
    member_path = f"/organizations/{organization.id}/members/{shown['user_id']}"
    assert response.headers["location"] == f"/api/v1{member_path}"
    assert client("GET", member_path).json() == shown
    assert client("GET", invitations_path(organization)).json()["count"] == 0
    with database.transaction(write=False) as reading:
        user = reading.scalars(select(User).where(User.email == "ines@example.com")).one()
    assert verify_password(user.hashed_password, PASSWORD)
    assert (user.is_active, user.is_superuser) == (True, False)
    assert_invalid_token(accept(anonymous, get_invitation_token(app), password=PASSWORD))


def test_accepting_makes_an_existing_account_a_member_without_changing_it(
    app: Application,
    client: Client,
    anonymous: Client,
    organization: Organization,
    database: Database,
    client_for: Callable[..., Client],
) -> None:
    user = factories.make_user(
        email="ines@example.com", full_name="Inès", hashed_password=hash_password("sartiq-demo")
    )
    user_client = client_for(user)
    invite(client, organization, role="viewer")
    response = accept(anonymous, get_invitation_token(app), password=PASSWORD, full_name="Another Name")
    assert (response.status, response.json()["user_id"], response.json()["full_name"]) == (
        201,
        str(user.id),
        "Inès",
    )
    assert user_client("GET", f"/organizations/{organization.id}").status == 200
    with database.transaction(write=False) as reading:
        stored = reading.get_one(User, user.id)
    assert verify_password(stored.hashed_password, "sartiq-demo")


def test_a_second_invitation_to_an_address_replaces_the_first(
    app: Application, client: Client, anonymous: Client, organization: Organization
) -> None:
    first = invite(client, organization, "ines@example.com", "admin").json()
    old = get_invitation_token(app)
    second = invite(client, organization, "INES@example.com", "viewer").json()
    assert first["id"] != second["id"]
    assert client("GET", invitations_path(organization)).json()["data"] == [second]
    assert_invalid_token(accept(anonymous, old, password=PASSWORD))
    assert accept(anonymous, get_invitation_token(app), password=PASSWORD).json()["role"] == "viewer"


def test_an_expired_or_deleted_invitation_cannot_be_accepted(
    app: Application, client: Client, anonymous: Client, organization: Organization, database: Database
) -> None:
    path = f"{invitations_path(organization)}/{invite(client, organization).json()['id']}"
    with database.transaction(write=True) as writing:
        writing.execute(update(Invitation).values(expires_at=utc_now()))
    assert_invalid_token(accept(anonymous, get_invitation_token(app), password=PASSWORD))
    assert client("GET", path).status == 200
    invite(client, organization, "another@example.com")
    assert client("GET", path).status == 404
    path = f"{invitations_path(organization)}/{invite(client, organization).json()['id']}"
    assert client("DELETE", path, headers={"if-match": '"another"'}).status == 412
    assert client("DELETE", path).status == 204
    assert client("GET", path).status == 404
    assert_invalid_token(accept(anonymous, get_invitation_token(app), password=PASSWORD))


def test_the_role_of_owner_cannot_be_granted_by_invitation(
    client: Client, organization: Organization
) -> None:
    assert invite(client, organization, role="owner").status == 422


def test_members_cannot_be_invited_but_members_of_other_organizations_can(
    client: Client, organization: Organization, admin: User
) -> None:
    assert_conflict(invite(client, organization, admin.email.upper()), "already_member")
    colleague = factories.make_user()
    factories.make_membership(factories.make_organization(), colleague)
    assert invite(client, organization, colleague.email).status == 201


def test_an_organization_has_at_most_fifty_open_invitations(
    client: Client, organization: Organization
) -> None:
    for _ in range(MAX_OPEN_INVITATIONS):
        last = make_invitation(organization)
    assert_conflict(invite(client, organization), "too_many_invitations")
    assert invite(client, organization, last.email).status == 201


def test_open_invitations_of_other_organizations_do_not_count_toward_the_limit(
    client: Client, owner: User, organization: Organization
) -> None:
    other = factories.make_organization(owner)
    for _ in range(MAX_OPEN_INVITATIONS):
        make_invitation(other)
    assert invite(client, organization).status == 201


def test_an_address_can_accept_the_invitations_of_two_organizations(
    app: Application, client: Client, anonymous: Client, owner: User, organization: Organization
) -> None:
    other = factories.make_organization(owner)
    invite(client, other)
    first = get_invitation_token(app)
    invite(client, organization)
    assert accept(anonymous, get_invitation_token(app), password=PASSWORD).status == 201
    assert accept(anonymous, first).json()["organization_id"] == str(other.id)


def test_an_invitation_that_is_rolled_back_is_not_sent(
    app: Application, client: Client, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_emails_to(app, "ines@example.com")
    broken = {"email": "an invalid response"}
    monkeypatch.setattr("handlers.common.responses.serialize", lambda *_: broken)
    assert invite(client, organization).status == 500
    assert list_emails_to(app, "ines@example.com") == before


@pytest.mark.parametrize("role", ["viewer", "admin"])
@pytest.mark.parametrize("reason", ["removed", "demoted", "locked", "deleted"])
def test_s16_an_invitation_is_void_when_the_inviter_can_no_longer_invite(
    app: Application,
    client: Client,
    superuser: Client,
    anonymous: Client,
    client_for: Callable[..., Client],
    organization: Organization,
    admin: User,
    reason: str,
    role: str,
) -> None:
    assert invite(client_for(admin), organization, role=role).status == 201
    member_path = f"/organizations/{organization.id}/members/{admin.id}"
    change = {
        "removed": lambda: client("DELETE", member_path),
        "demoted": lambda: client("PATCH", member_path, {"role": "member"}),
        "locked": lambda: superuser("PATCH", f"/users/{admin.id}", {"is_active": False}),
        "deleted": lambda: superuser("DELETE", f"/users/{admin.id}"),
    }[reason]()
    assert change.status in (200, 204), change.body
    response = accept(anonymous, get_invitation_token(app), password=PASSWORD)
    if reason == "deleted":
        assert_invalid_token(response)
    else:
        assert_conflict(response, "invitation_void")
    assert client("GET", f"/organizations/{organization.id}/members").json()["count"] <= 2
    invite(client, organization, role="admin")
    assert accept(anonymous, get_invitation_token(app), password=PASSWORD).status == 201


def test_an_invitation_of_a_previous_owner_who_is_an_admin_is_valid(
    app: Application, client: Client, anonymous: Client, organization: Organization, owner: User, admin: User
) -> None:
    owner.hashed_password = hash_password("sartiq-demo")
    factories.make(owner)
    invite(client, organization, role="admin")
    body = {"user_id": str(admin.id), "password": "sartiq-demo"}
    assert client("POST", f"/organizations/{organization.id}/transfer-ownership", body).status == 200
    assert accept(anonymous, get_invitation_token(app), password=PASSWORD).status == 201


def test_superusers_can_invite_to_any_organization(
    app: Application, superuser: Client, anonymous: Client, organization: Organization
) -> None:
    assert invite(superuser, organization, role="admin").status == 201
    assert accept(anonymous, get_invitation_token(app), password=PASSWORD).status == 201


def test_s16_a_removed_member_cannot_return_with_an_old_invitation(
    app: Application, client: Client, anonymous: Client, organization: Organization, owner: User
) -> None:
    user = factories.make_user(email="ines@example.com")
    invite(client, organization)
    factories.make_membership(factories.make_organization(owner), user)
    new_member = {"email": "ines@example.com", "role": "viewer"}
    assert client("POST", f"/organizations/{organization.id}/members", new_member).status == 201
    assert_invalid_token(accept(anonymous, get_invitation_token(app)))
    assert client("DELETE", f"/organizations/{organization.id}/members/{user.id}").status == 204
    assert_invalid_token(accept(anonymous, get_invitation_token(app)))


def test_s16_a_removed_member_cannot_return_with_an_invitation_to_their_new_address(
    app: Application, client: Client, anonymous: Client, organization: Organization, superuser: Client
) -> None:
    user = factories.make_user(email="ines@example.org")
    factories.make_membership(organization, user)
    invite(client, organization)
    update = superuser("PATCH", f"/users/{user.id}", {"email": "ines@example.com"})
    assert update.status == 200
    assert_conflict(accept(anonymous, get_invitation_token(app)), "already_member")
    assert client("DELETE", f"/organizations/{organization.id}/members/{user.id}").status == 204
    assert_invalid_token(accept(anonymous, get_invitation_token(app)))


def test_a_locked_account_cannot_accept_an_invitation(
    app: Application, client: Client, anonymous: Client, organization: Organization
) -> None:
    factories.make_user(email="ines@example.com", is_active=False)
    invite(client, organization)
    assert_invalid_token(accept(anonymous, get_invitation_token(app), password=PASSWORD))


def test_deleting_an_organization_deletes_its_invitations(
    app: Application, client: Client, anonymous: Client, organization: Organization
) -> None:
    invite(client, organization)
    assert client("DELETE", f"/organizations/{organization.id}").status == 204
    assert_invalid_token(accept(anonymous, get_invitation_token(app), password=PASSWORD))


@pytest.mark.parametrize("address", [".@a.b", "a..b@c.d", "a|b@-.-", "x" * 64 + "@a.b", "'&/?=@a.b"])
def test_unusual_addresses_cause_no_server_error(
    client: Client, organization: Organization, address: str
) -> None:
    assert invite(client, organization, address).status in (201, 422)
