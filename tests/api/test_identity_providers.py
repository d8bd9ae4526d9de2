"""Identity providers through the API: administration, domains, sign-ins at a real provider, and sessions.

The operations: `list_identity_providers`, `get_identity_provider`, `update_identity_provider`,
`delete_identity_provider`, `list_identity_provider_domains`, `get_identity_provider_domain`,
`delete_identity_provider_domain`, `find_login_provider`, `start_oidc_login`, `finish_oidc_login`,
`get_identity`, `remove_identity`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from db.models import (
    AuditEvent,
    IdentityProvider,
    ProviderSignIn,
    TokenFamily,
    UserIdentity,
)
from db.session import Database
from handlers.app import Application
from studio.accounts.identity_providers import domains
from studio.accounts.identity_providers.changes import (
    MAX_DOMAINS,
    MAX_PROVIDERS,
    read_client,
)
from studio.accounts.identity_providers.protocol import OpenIdClient
from studio.accounts.identity_providers.sign_ins import delete_expired_sign_ins
from studio.infrastructure.http_client import SafeHttpClient
from studio.jobs.encryption import encrypt_again
from tests.api.conftest import Client
from tests.support import factories
from tests.support.app import auth_headers, replace_service
from tests.support.client import status_and_code, url_path
from tests.support.factories.api_keys import api_key_headers
from tests.support.factories.catalog import Customer
from tests.support.factories.identity_providers import (
    make_domain,
    make_identity,
    make_identity_provider,
    make_sign_in,
)
from tests.support.mailbox import list_emails_to
from tests.support.servers.dns import DnsServer, run_dns_server
from tests.support.servers.identity_provider import (
    CLIENT_ID,
    SECRET,
    Browser,
    HostileProvider,
    read_query,
    set_user,
)

DOMAIN = "atelier-nord.example"
ANNA = {"email": f"Anna.Berg@{DOMAIN}", "email_verified": True, "name": "Anna Berg"}


@pytest.fixture
def dns(app: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    """Yield the DNS server that the application asks."""
    with run_dns_server() as server:
        replace_service(monkeypatch, app, settings=replace(app.settings, dns_servers=(server.address,)))
        yield server


@pytest.fixture
def connect(
    app: Application,
    monkeypatch: pytest.MonkeyPatch,
    customer: Customer,
    openid_provider: HostileProvider,
    database: Database,
) -> Callable[..., str]:
    """Return a function that creates the provider of the customer's organization, and returns its id."""
    http = SafeHttpClient([openid_provider.host])
    replace_service(monkeypatch, app, http_client=http, openid_client=OpenIdClient(http))

    def make(**properties: Any) -> str:
        body = {
            "name": "Company accounts",
            "issuer": openid_provider.issuer,
            "client_id": CLIENT_ID,
            "client_secret": SECRET,
            "default_role": "member",
        }
        created = customer.client("POST", providers_path(customer), body | properties)
        assert created.status == 201, created.body
        with database.transaction(write=True) as session:
            provider = session.get_one(IdentityProvider, UUID(created.json()["id"]))
            make_domain(provider, domain=DOMAIN, verified_at=provider.created_at)
        return str(provider.id)

    return make


def providers_path(customer: Customer) -> str:
    return f"/organizations/{customer.organization.id}/identity-providers"


def update_provider(customer: Customer, provider_id: str, **body: Any) -> tuple[int, Any]:
    response = customer.client("PATCH", f"{providers_path(customer)}/{provider_id}", body)
    return response.status, response.json()


def test_the_owner_administers_providers_whose_secret_is_stored_encrypted_and_never_returned(
    app: Application, customer: Customer, database: Database, connect: Callable[..., str]
) -> None:
    provider_id = connect()
    path = f"{providers_path(customer)}/{provider_id}"
    row = customer.client("GET", path).json()
    callback = f"{app.settings.public_url}/api/v1/login/oidc/{provider_id}/callback"
    assert (row["has_client_secret"], row["redirect_uri"]) == (True, callback)
    assert (row["is_enabled"], row["is_required"], row["default_role"]) == (True, False, "member")
    with database.transaction(write=False) as session:
        stored = session.get_one(IdentityProvider, UUID(provider_id))
        assert SECRET.encode() not in (stored.client_secret or b"")
        assert read_client(stored, app.settings).client_secret == SECRET
        events = session.scalars(select(AuditEvent).where(AuditEvent.action == "create_identity_provider"))
        assert SECRET not in str([event.changes for event in events])
    status, changed = update_provider(
        customer, provider_id, client_secret=None, default_role=None, name="SSO"
    )
    assert (status, changed["has_client_secret"], changed["default_role"]) == (200, False, None)
    assert customer.client("GET", providers_path(customer)).json()["data"] == [changed]
    assert customer.client("DELETE", path).status == 204
    assert customer.client("GET", path).status == 404


def test_an_issuer_must_be_public_and_an_organization_has_few_providers(customer: Customer) -> None:
    body = {"name": "Company accounts", "issuer": "https://169.254.169.254", "client_id": "a"}
    rejected = customer.client("POST", providers_path(customer), body)
    assert status_and_code(rejected) == (409, "target_not_allowed")
    for _ in range(MAX_PROVIDERS):
        make_identity_provider(customer.organization)
    rejected = customer.client("POST", providers_path(customer), body)
    assert status_and_code(rejected) == (409, "too_many_identity_providers")


def test_a_domain_is_verified_by_its_txt_record_for_one_provider(
    customer: Customer, dns: DnsServer, client_for: Callable[..., Client]
) -> None:
    provider = make_identity_provider(customer.organization)
    path = f"{providers_path(customer)}/{provider.id}/domains"
    created = customer.client("POST", path, {"domain": "Atelier-Nord.example"})
    domain = created.json()
    assert (created.status, domain["domain"], domain["verified_at"]) == (201, DOMAIN, None)
    assert url_path(created.headers["location"]) == f"{path}/{domain['id']}"
    assert status_and_code(customer.client("POST", path, {"domain": DOMAIN})) == (409, "domain_taken")
    verify = f"{path}/{domain['id']}/verify"
    assert status_and_code(customer.client("POST", verify)) == (409, "domain_not_verified")
    dns.records[domain["record_name"]] = "sartiq-domain-verification=of-another-organization"
    wrong = customer.client("POST", verify)
    assert status_and_code(wrong) == (409, "domain_not_verified")
    assert domain["record_value"] in wrong.json()["detail"]
    dns.records[domain["record_name"]] = domain["record_value"]
    verified = customer.client("POST", verify)
    assert (verified.status, verified.json()["verified_at"] is not None) == (200, True)
    dns.records.clear()
    assert customer.client("POST", verify).json() == verified.json()

    other = make_identity_provider(factories.make_organization(customer.owner))
    second = make_domain(other, domain=DOMAIN)
    dns.records[domains.record_name(DOMAIN)] = domains.record_value(second.challenge)
    other_path = f"/organizations/{other.organization_id}/identity-providers/{other.id}/domains/{second.id}"
    taken = customer.client("POST", f"{other_path}/verify")
    assert status_and_code(taken) == (409, "domain_taken")
    assert customer.client("DELETE", f"{path}/{domain['id']}").status == 204
    assert customer.client("POST", f"{other_path}/verify").status == 200


def test_a_superuser_verifies_a_domain_without_a_record(customer: Customer, superuser: Client) -> None:
    provider = make_identity_provider(customer.organization)
    domain = make_domain(provider)
    path = f"{providers_path(customer)}/{provider.id}/domains/{domain.id}/verify"
    assert superuser("POST", path).json()["verified_at"] is not None


def test_a_dns_server_that_does_not_answer_is_waited_for_briefly(
    customer: Customer, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "DNS_TIMEOUT_SECONDS", 0.2)
    dns.is_silent = True
    provider = make_identity_provider(customer.organization)
    path = f"{providers_path(customer)}/{provider.id}/domains/{make_domain(provider).id}/verify"
    assert status_and_code(customer.client("POST", path)) == (409, "domain_not_verified")


def test_a_provider_has_few_domains(customer: Customer) -> None:
    provider = make_identity_provider(customer.organization)
    for _ in range(MAX_DOMAINS):
        make_domain(provider)
    path = f"{providers_path(customer)}/{provider.id}/domains"
    rejected = customer.client("POST", path, {"domain": DOMAIN})
    assert status_and_code(rejected) == (409, "too_many_domains")


def test_the_board_finds_the_provider_of_a_verified_domain_only(
    customer: Customer, anonymous: Client
) -> None:
    provider = make_identity_provider(customer.organization)
    domain = make_domain(provider, domain=DOMAIN)

    def find() -> Any:
        return anonymous("GET", f"/login/oidc/provider?domain={DOMAIN.upper()}").json()["provider_id"]

    assert find() is None
    domain.verified_at = domain.created_at
    factories.make(domain)
    assert find() == str(provider.id)
    assert update_provider(customer, str(provider.id), is_enabled=False)[0] == 200
    assert find() is None
    assert (
        anonymous("GET", f"/login/oidc/{provider.id}/start?code_challenge={'a' * 43}&state={'b' * 22}").status
        == 404
    )


def test_the_first_sign_in_creates_an_account_that_acts_in_the_organization_only(
    app: Application,
    anonymous: Client,
    customer: Customer,
    database: Database,
    provider_process: str,
    openid_provider: HostileProvider,
    connect: Callable[..., str],
) -> None:
    provider_id = connect()
    set_user(provider_process, "anna", **ANNA)
    browser = Browser.of(anonymous)
    started = browser.start(provider_id)
    sent = read_query(started.headers["location"])
    assert sent["redirect_uri"] == f"{app.settings.public_url}/api/v1/login/oidc/{provider_id}/callback"
    assert sent["code_challenge_method"] == "S256"
    # Our own values, not those of the board.
    assert browser.state not in started.headers["location"]
    anna = browser.open_session(provider_id, "anna")
    (token_request,) = openid_provider.requests("/oauth2/token")
    assert b"code_verifier=" in token_request.body
    assert token_request.headers["authorization"].startswith("Basic ")

    me = anna("GET", "/users/me").json()
    assert (me["email"], me["full_name"], me["role"]) == (ANNA["email"].lower(), "Anna Berg", "member")
    assert [row["id"] for row in anna("GET", "/organizations/").json()["data"]] == [
        str(customer.organization.id)
    ]
    assert anna("POST", f"/brands/{customer.organization_query}", {"name": "Maison"}).status == 201
    assert anna("GET", f"/brands/{customer.organization_query}").json()["count"] == 1
    image = {"filename": "dress.jpg", "content_type": "image/jpeg"}
    assert anna("POST", "/uploads/presigned-url", image).status == 200
    denied = anna("GET", "/brands/")
    assert status_and_code(denied) == (403, "not_enough_permissions")
    assert "session of an identity provider" in denied.json()["detail"]
    assert anna("POST", "/brands/", {"name": "Mine"}).status == 403
    for method, path in (
        ("GET", "/users/me/sessions"),
        ("GET", "/users/me/identities"),
        ("POST", "/users/me/exports"),
        ("GET", "/users/me/audit-events"),
        ("GET", "/subscriptions/"),
    ):
        assert status_and_code(anna(method, path)) == (403, "provider_session_not_allowed"), path
    with database.transaction(write=False) as session:
        family = session.scalars(select(TokenFamily).where(TokenFamily.user_id == UUID(me["id"]))).one()
        assert family.organization_id == customer.organization.id
        assert (family.expires_at - family.created_at).total_seconds() <= 12 * 3600 + 1
        # Only the sign-in that was started and not finished.
        (left,) = session.scalars(select(ProviderSignIn.code_hash)).all()
        assert left is None
    events = customer.client("GET", f"/organizations/{customer.organization.id}/audit-events?action=login")
    assert [event["actor_id"] for event in events.json()["data"]] == [me["id"]]
    assert anna("POST", "/logout").status == 204
    assert anna("GET", "/users/me").status == 401


def test_the_subject_names_the_account_whatever_the_address_becomes(
    anonymous: Client, provider_process: str, connect: Callable[..., str]
) -> None:
    provider_id = connect()
    set_user(provider_process, "anna", **ANNA)
    first = Browser.of(anonymous).open_session(provider_id, "anna")("GET", "/users/me").json()
    set_user(provider_process, "anna", email=f"anna.lund@{DOMAIN}", email_verified=True)
    second = Browser.of(anonymous).open_session(provider_id, "anna")("GET", "/users/me").json()
    assert first == second
    # The old address is that of another person now: they get no access to the account.
    set_user(provider_process, "another", **ANNA)
    browser = Browser.of(anonymous)
    rejected = browser.exchange(browser.get_code(provider_id, "another"))
    assert status_and_code(rejected) == (409, "account_exists")


def test_an_existing_account_is_linked_by_its_signed_in_owner_only(
    app: Application,
    anonymous: Client,
    customer: Customer,
    provider_process: str,
    client_for: Callable[..., Client],
    connect: Callable[..., str],
) -> None:
    provider_id = connect()
    account = factories.make_user(email=ANNA["email"].lower())
    set_user(provider_process, "anna", **ANNA)
    browser = Browser.of(anonymous)
    rejected = browser.exchange(browser.get_code(provider_id, "anna"))
    assert status_and_code(rejected) == (409, "account_exists")

    owner = client_for(account)
    other = Browser.of(anonymous)
    body = {"code": browser.get_code(provider_id, "anna"), "code_verifier": other.verifier}
    assert status_and_code(owner("POST", "/users/me/identities", body)) == (409, "invalid_code")
    body["code_verifier"] = browser.verifier
    linked = owner("POST", "/users/me/identities", body)
    assert (linked.status, linked.json()["subject"]) == (201, "anna")
    assert status_and_code(owner("POST", "/users/me/identities", body)) == (409, "invalid_code")
    assert owner("GET", "/users/me/identities").json()["data"] == [linked.json()]
    (mail,) = list_emails_to(app, account.email)
    assert customer.organization.name in mail
    assert "linked to your Sartiq account" in list_emails_to(app, account.email)[0] or mail

    session = Browser.of(anonymous).open_session(provider_id, "anna")
    assert session("GET", "/users/me").json()["id"] == str(account.id)
    body = {"code": browser.get_code(provider_id, "anna"), "code_verifier": browser.verifier}
    stranger = client_for(factories.make_user())
    assert status_and_code(stranger("POST", "/users/me/identities", body)) == (409, "identity_taken")
    identity = url_path(linked.headers["location"])
    assert stranger("DELETE", identity).status == 404
    assert owner("DELETE", identity).status == 204
    assert session("GET", "/users/me").status == 401
    assert owner("GET", "/users/me").status == 200


def test_without_a_default_role_only_members_sign_in(
    anonymous: Client, customer: Customer, provider_process: str, connect: Callable[..., str]
) -> None:
    provider_id = connect(default_role=None)
    set_user(provider_process, "anna", **ANNA)
    browser = Browser.of(anonymous)
    rejected = browser.exchange(browser.get_code(provider_id, "anna"))
    assert status_and_code(rejected) == (409, "membership_required")


def test_a_member_who_was_removed_does_not_return_by_a_sign_in(
    anonymous: Client, customer: Customer, provider_process: str, connect: Callable[..., str]
) -> None:
    provider_id = connect()
    set_user(provider_process, "anna", **ANNA)
    anna = Browser.of(anonymous).open_session(provider_id, "anna")
    user_id = anna("GET", "/users/me").json()["id"]
    members = f"/organizations/{customer.organization.id}/members"
    assert customer.client("DELETE", f"{members}/{user_id}").status == 204
    assert anna("GET", f"/brands/{customer.organization_query}").status == 404
    browser = Browser.of(anonymous)
    rejected = browser.exchange(browser.get_code(provider_id, "anna"))
    assert status_and_code(rejected) == (409, "membership_required")


def test_an_inactive_account_and_one_that_is_being_deleted_cannot_sign_in(
    anonymous: Client, customer: Customer, database: Database
) -> None:
    provider = make_identity_provider(customer.organization)
    account = factories.make_user(is_active=False)
    factories.make_membership(customer.organization, account)
    identity = make_identity(provider, account)
    browser = Browser.of(anonymous)
    code = make_sign_in(provider, browser.verifier, subject=identity.subject)
    assert status_and_code(browser.exchange(code)) == (401, "incorrect_credentials")


def test_a_provider_gives_nobody_the_rights_of_a_superuser(
    app: Application, anonymous: Client, customer: Customer
) -> None:
    provider = make_identity_provider(customer.organization)
    superuser = factories.make_user(is_superuser=True)
    factories.make_membership(customer.organization, superuser, role="viewer")
    browser = Browser.of(anonymous)
    identity = make_identity(provider, superuser)
    code = make_sign_in(provider, browser.verifier, subject=identity.subject)
    token = browser.exchange(code).json()["access_token"]
    session = Client(app, {"authorization": f"Bearer {token}"})
    other = factories.make_organization()
    assert session("GET", "/users/").status == 403
    assert session("GET", f"/organizations/{other.id}").status == 404
    assert session("GET", f"/brands/?organization_id={customer.organization.id}").status == 200
    assert Client(app, auth_headers(app, superuser))("GET", f"/organizations/{other.id}").status == 200


def test_a_required_provider_ends_the_access_of_other_sessions_except_that_of_the_owner(
    app: Application,
    anonymous: Client,
    customer: Customer,
    provider_process: str,
    client_for: Callable[..., Client],
    connect: Callable[..., str],
) -> None:
    provider_id = connect(default_role="admin")
    path = f"{providers_path(customer)}/{provider_id}"
    set_user(provider_process, "anna", **ANNA)
    anna = Browser.of(anonymous).open_session(provider_id, "anna")
    member = factories.make_user()
    factories.make_membership(customer.organization, member, role="admin")
    password_session = client_for(member)
    key = Client(app, api_key_headers(app, customer.organization, {"brands:read"}, member))
    brands = f"/brands/{customer.organization_query}"
    status, problem = update_provider(customer, provider_id, is_required=True)
    assert (status, problem["code"]) == (409, "provider_session_required")
    assert password_session("GET", brands).status == 200
    assert anna("PATCH", path, {"is_required": True}).json()["is_required"] is True

    def states() -> list[int]:
        return [each("GET", brands).status for each in (password_session, customer.client, anna, key)]

    assert states() == [403, 200, 200, 200]
    assert status_and_code(password_session("GET", brands)) == (403, "provider_sign_in_required")
    assert password_session("POST", brands, {"name": "Maison"}).status == 403
    assert password_session("GET", "/brands/").json()["data"] == []
    assert password_session("GET", "/organizations/").json()["count"] == 1
    assert password_session("GET", "/users/me").status == 200
    # The same applies to members who join or get another role later.
    later = factories.make_user()
    factories.make_membership(customer.organization, later)
    assert client_for(later)("GET", brands).status == 403
    transfer = f"/organizations/{customer.organization.id}/members/{member.id}"
    assert customer.client("PATCH", transfer, {"role": "viewer"}).status == 200
    assert states() == [403, 200, 200, 200]
    assert update_provider(customer, provider_id, is_enabled=False)[0] == 200
    assert states() == [200, 200, 401, 200]
    assert update_provider(customer, provider_id, is_enabled=True)[0] == 200
    assert states()[0] == 403
    assert customer.client("DELETE", path).status == 204
    assert states()[0] == 200


@pytest.mark.parametrize("way", ["disabled", "deleted", "identity removed", "organization deleted"])
def test_sessions_end_with_their_provider(
    way: str, app: Application, anonymous: Client, customer: Customer, database: Database
) -> None:
    provider = make_identity_provider(customer.organization)
    account = factories.make_user()
    factories.make_membership(customer.organization, account)
    identity = make_identity(provider, account)
    browser = Browser.of(anonymous)
    code = make_sign_in(provider, browser.verifier, subject=identity.subject)
    tokens = browser.exchange(code).json()
    session = Client(app, {"authorization": f"Bearer {tokens['access_token']}"})
    assert session("GET", "/users/me").status == 200
    path = f"{providers_path(customer)}/{provider.id}"
    if way == "disabled":
        assert customer.client("PATCH", path, {"is_enabled": False}).status == 200
    elif way == "deleted":
        assert customer.client("DELETE", path).status == 204
    elif way == "identity removed":
        own = Client(app, auth_headers(app, account))
        assert own("DELETE", f"/users/me/identities/{identity.id}").status == 204
    else:
        assert customer.client("DELETE", f"/organizations/{customer.organization.id}").status == 204
    assert session("GET", "/users/me").status == 401
    refreshed = anonymous("POST", "/login/refresh-token", {"refresh_token": tokens["refresh_token"]})
    assert refreshed.status == 401


def test_client_secrets_are_encrypted_again_after_a_rotation_of_the_key(
    app: Application, database: Database, connect: Callable[..., str]
) -> None:
    provider_id = connect()
    old = app.settings
    rotated = replace(old, secret_key="n" * 40, secret_key_previous=old.secret_key)
    assert encrypt_again(database, rotated) == 1
    assert encrypt_again(database, rotated) == 0
    with database.transaction(write=False) as session:
        row = session.get_one(IdentityProvider, UUID(provider_id))
        assert read_client(row, replace(rotated, secret_key_previous=None)).client_secret == SECRET


def test_expired_sign_ins_are_deleted(customer: Customer, database: Database) -> None:
    provider = make_identity_provider(customer.organization)
    make_sign_in(provider, "v" * 43)
    with database.transaction(write=True) as session:
        expired = session.scalars(select(ProviderSignIn)).one()
        past = expired.created_at
        session.execute(update(ProviderSignIn).values(expires_at=past))
    assert delete_expired_sign_ins(database, past) == 1


def test_a_copy_of_personal_data_has_the_linked_identities(customer: Customer) -> None:
    from studio.account_exports.sections import list_sections

    assert UserIdentity.__tablename__ in {section.name for section in list_sections(customer.owner.id)}
