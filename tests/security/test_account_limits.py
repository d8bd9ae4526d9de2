"""One account has a bounded number of organizations, uploads, sessions and events of denied requests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text, update

from db.base import utc_now
from db.models import AccountExport, AuditEvent, Organization, TokenFamily, User
from db.session import Database
from handlers.app import Application
from studio.accounts.identity.passwords import hash_password
from studio.accounts.identity.sessions import MAX_SESSIONS
from studio.accounts.organizations import MAX_OWNED
from studio.media.uploads import MAX_LIFETIME, MAX_PENDING
from tests.api.conftest import Client, CommittingServer
from tests.contract.tenant import make_image
from tests.security.rate_limits import exceeded_policy
from tests.support import factories
from tests.support.auth import sign_in
from tests.support.client import ClientResponse, status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer

PASSWORD = "a password for this test"
UPLOAD = {"filename": "dress.png", "content_type": "image/png"}
ClientFor = Callable[[User | None], Client]


def create_organization(client: Client) -> ClientResponse:
    return client("POST", "/organizations/", {"name": f"Maison {uuid4()}"})


def transfer_ownership(client: Client, organization_id: object, user: User) -> ClientResponse:
    body = {"user_id": str(user.id), "password": PASSWORD}
    return client("POST", f"/organizations/{organization_id}/transfer-ownership", body)


def test_s48_an_account_owns_at_most_20_organizations(customer: Customer) -> None:
    for _ in range(MAX_OWNED - 1):
        assert create_organization(customer.client).status == 201
    rejected = create_organization(customer.client)
    assert status_and_code(rejected) == (409, "too_many_organizations")
    # A membership without the ownership does not count.
    factories.make_membership(factories.make_organization(), customer.owner)
    path = f"/organizations/{customer.organization.id}"
    assert customer.client("DELETE", path).status == 204
    assert create_organization(customer.client).status == 201


def test_s48_an_ownership_is_not_transferred_to_an_account_with_20_organizations(
    client_for: ClientFor,
) -> None:
    owner, other = (factories.make_user(hashed_password=hash_password(PASSWORD)) for _ in range(2))
    for _ in range(MAX_OWNED):
        last = factories.make_organization(other)
    organization = factories.make_organization(owner)
    factories.make_membership(organization, other)
    response = transfer_ownership(client_for(owner), organization.id, other)
    assert status_and_code(response) == (409, "too_many_organizations")
    factories.make_membership(last, owner)
    assert transfer_ownership(client_for(other), last.id, owner).status == 200
    assert transfer_ownership(client_for(owner), organization.id, other).status == 200


def test_s48_concurrent_requests_do_not_exceed_the_number_of_organizations(
    committing_server: CommittingServer,
) -> None:
    with committing_server.database.transaction(write=True):
        for _ in range(MAX_OWNED - 2):
            factories.make_organization(committing_server.scenario.owner)
    responses = run_concurrently(*[lambda: create_organization(committing_server.client)] * 4)
    assert sorted(response.status for response in responses) == [201, 409, 409, 409]


def announce_upload(client: Client) -> ClientResponse:
    return client("POST", "/uploads/presigned-url", UPLOAD)


def test_s48_an_account_has_at_most_100_pending_uploads(
    app: Application, customer: Customer, client_for: ClientFor
) -> None:
    """Uploads of its API keys count. Those that have arrived, or can no more, do not."""
    owned = {"owner": customer.owner}
    for organization in (None, customer.organization, factories.make_organization(customer.owner)):
        factories.make_upload(**owned, organization=organization)
    for status in ("received", "ingested"):
        factories.make_upload(**owned, status=status)
    factories.make_upload(**owned, created_at=utc_now() - MAX_LIFETIME)
    for _ in range(MAX_PENDING - 4):
        factories.make_upload(**owned)
    key = Client(app, api_key_headers(app, customer.organization, ["uploads:write"]))
    assert announce_upload(customer.client).status == 200
    for client in (customer.client, key):
        assert status_and_code(announce_upload(client)) == (409, "too_many_uploads")
    assert announce_upload(client_for(factories.make_user())).status == 200


def test_s48_sent_bytes_make_room_for_another_upload(app: Application, customer: Customer) -> None:
    for _ in range(MAX_PENDING - 1):
        factories.make_upload(owner=customer.owner)
    url = announce_upload(customer.client).json()["upload_url"]
    assert announce_upload(customer.client).status == 409
    path = url.removeprefix(f"{app.settings.public_url}/api/v1")
    sent = customer.client("PUT", path, body=make_image(), headers={"content-type": "image/png"})
    assert sent.status == 204, sent.body
    assert announce_upload(customer.client).status == 200


def test_s48_a_copy_of_the_own_data_beyond_those_of_a_day_is_429(
    set_limits: Callable[..., Any], client_for: ClientFor, database: Database
) -> None:
    set_limits(limit_account_exports=1)
    client = client_for(factories.make_user())
    assert client("POST", "/users/me/exports").status == 202
    with database.transaction(write=True) as session:
        session.execute(update(AccountExport).values(status="completed"))
    assert exceeded_policy(client("POST", "/users/me/exports")) == "account-exports"


def test_s48_a_login_beyond_50_sessions_ends_the_oldest(client_for: ClientFor, app: Application) -> None:
    user = factories.make_user(hashed_password=hash_password(PASSWORD))
    now = utc_now()
    closed = {"user_id": user.id, "revoked_at": now}
    for age in range(1, MAX_SESSIONS):
        created_at = now - timedelta(hours=age)
        expires_at = now + timedelta(days=1)
        session = factories.make(TokenFamily(user_id=user.id, created_at=created_at, expires_at=expires_at))
        factories.make(TokenFamily(**closed, created_at=created_at, expires_at=expires_at))
    ids = {row["id"] for row in login(app, client_for, user)("GET", "/users/me/sessions").json()["data"]}
    assert len(ids) == MAX_SESSIONS
    assert str(session.id) in ids
    page = login(app, client_for, user)("GET", "/users/me/sessions").json()
    left = {row["id"] for row in page["data"]}
    assert (page["count"], ids - left) == (MAX_SESSIONS, {str(session.id)})


def login(app: Application, client_for: ClientFor, user: User) -> Client:
    """Return a client with a new session."""
    response = sign_in(client_for(None), user.email, PASSWORD)
    return Client(app, {"authorization": f"Bearer {response.json()['access_token']}"})


@pytest.fixture
def viewer(customer: Customer) -> User:
    """Return a viewer of the customer's organization."""
    user = factories.make_user()
    factories.make_membership(customer.organization, user, role="viewer")
    return user


def list_events(customer: Customer, query: str = "") -> list[dict[str, Any]]:
    path = f"/organizations/{customer.organization.id}/audit-events?outcome=refused{query}"
    return list(customer.client("GET", path).json()["data"])


def create_brand(client: Client, organization: Organization, name: str = "Nord") -> ClientResponse:
    return client("POST", f"/brands/?organization_id={organization.id}", {"name": name})


def test_s48_equal_denied_requests_within_a_minute_are_one_event_with_a_count(
    client_for: ClientFor, customer: Customer, viewer: User
) -> None:
    client, organization = client_for(viewer), customer.organization
    first = create_brand(client, organization)
    (event,) = list_events(customer)
    assert (first.status, event["count"], event["updated_at"]) == (403, 1, event["created_at"])
    for _ in range(4):
        assert create_brand(client, organization).status == 403
    (counted,) = list_events(customer)
    assert counted == event | {"count": 5, "updated_at": counted["updated_at"]}
    assert counted["updated_at"] > event["updated_at"]
    assert counted["request_id"] == first.headers["x-request-id"]
    # A client that synchronizes gets the event again.
    assert list_events(customer, f"&updated_after={event['updated_at']}") == [counted]
    assert list_events(customer, f"&updated_after={counted['updated_at']}") == []


def test_s48_denied_requests_of_others_or_other_operations_are_events_of_their_own(
    app: Application, client_for: ClientFor, customer: Customer, viewer: User
) -> None:
    second_viewer, other = factories.make_user(), factories.make_organization(customer.owner)
    for organization, user in ((customer.organization, second_viewer), (other, viewer)):
        factories.make_membership(organization, user, role="viewer")
    key = Client(app, api_key_headers(app, customer.organization, ["brands:read"]))
    client, organization = client_for(viewer), customer.organization
    for _ in range(2):
        for response in (
            create_brand(client, organization),
            create_brand(client_for(second_viewer), organization),
            create_brand(key, organization),
            create_brand(client, other),
            client("POST", f"/products/?organization_id={organization.id}", {"name": "Dress"}),
        ):
            assert response.status == 403
    assert [event["count"] for event in list_events(customer)] == [2, 2, 2, 2]
    actors = [event["actor_id"] for event in list_events(customer, "&action=create_brand")]
    assert len(set(actors)) == 3


def test_s48_failed_logins_are_counted_by_account(client_for: ClientFor, database: Database) -> None:
    users = [factories.make_user(hashed_password=hash_password(PASSWORD)) for _ in range(2)]
    for email in [user.email for user in users] * 2 + ["unknown@example.com"] * 3:
        assert sign_in(client_for(None), email, "wrong").status == 401
    with database.transaction(write=False) as reading:
        counts = {event.account_id: event.count for event in reading.query(AuditEvent)}
    assert counts == {users[0].id: 2, users[1].id: 2, None: 3}


def test_s48_a_denied_request_after_a_minute_is_another_event(
    client_for: ClientFor, customer: Customer, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, start = client_for(viewer), utc_now()

    def create_after(seconds: float) -> None:
        moment: datetime = start + timedelta(seconds=seconds)
        monkeypatch.setattr("db.audit.utc_now", lambda: moment)
        assert create_brand(client, customer.organization).status == 403

    for seconds in (0, 59.9, 60, 61):
        create_after(seconds)
    assert [event["count"] for event in list_events(customer)] == [2, 2]


def test_s48_concurrent_denied_requests_are_one_event(committing_server: CommittingServer) -> None:
    server = committing_server
    with server.database.transaction(write=True) as session:
        session.execute(text("UPDATE memberships SET role = 'viewer'"))
    run_concurrently(*[lambda: create_brand(server.client, server.scenario.organization)] * 6)
    with server.database.transaction(write=False) as reading:
        assert [event.count for event in reading.query(AuditEvent)] == [6]
