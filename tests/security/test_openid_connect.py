"""Hostile responses of identity providers: none of them signs anybody in (OWASP API2, OpenID Core 1.0).

The provider is a process of its own. A proxy before it changes what it sends; its ID tokens stay correctly
signed, unless the signature is what is wrong.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwk
from sqlalchemy import func, select

from db.base import utc_now
from db.models import IdentityProvider, Organization, User
from db.session import Database
from handlers.app import Application
from studio.accounts.identity_providers import protocol
from studio.accounts.identity_providers.protocol import OpenIdClient
from studio.accounts.identity_providers.sign_ins import CODE_LIFETIME
from studio.infrastructure.http_client import SafeHttpClient
from tests.api.conftest import Client
from tests.support import factories
from tests.support.app import replace_service
from tests.support.client import status_and_code
from tests.support.factories.catalog import Customer
from tests.support.factories.identity_providers import make_domain, make_identity, make_identity_provider
from tests.support.servers.identity_provider import (
    CLIENT_ID,
    SECRET,
    Browser,
    Claims,
    HostileProvider,
    authorize,
    read_query,
    run_hostile_provider,
    set_user,
)
from tools.servers.http_recorder import RecordedRequest, StubResponse

DOMAIN = "atelier-nord.example"
VICTIM = f"victim@{DOMAIN}"
REJECTED = "/oidc-error/sign_in_rejected"
UNAVAILABLE = "/oidc-error/provider_unavailable"
EXPIRED = "/oidc-error/sign_in_expired"


class Clock:
    """The clock of the client of providers, which a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Attack:
    """A provider of an organization that can turn hostile, and the application that it attacks.

    Attributes:
        provider: The provider.
        provider_id: Its id.
        client: An anonymous client of the application.
        clock: The clock of the client of providers.
        database: The database of the application.
        organization: The organization.
        trust: Lets the application send requests to one more host.
    """

    provider: HostileProvider
    provider_id: str
    client: Client
    clock: Clock
    database: Database
    organization: Organization
    trust: Callable[[str], None]

    def sign_in(self) -> str:
        """Sign in as the victim, and return where the board is opened."""
        return Browser.of(self.client).sign_in(self.provider_id, "victim")

    def count_accounts(self) -> int:
        """Return the number of accounts."""
        with self.database.transaction(write=False) as session:
            return session.scalar(select(func.count(User.id))) or 0

    @contextmanager
    def expect_no_account(self) -> Iterator[None]:
        """Check that the block creates no account."""
        before = self.count_accounts()
        yield
        assert self.count_accounts() == before


@pytest.fixture
def attack(
    app: Application,
    anonymous: Client,
    customer: Customer,
    database: Database,
    provider_process: str,
    openid_provider: HostileProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> Attack:
    """Return a provider with a verified domain, and a user at it who has no account here."""
    clock, hosts = Clock(), [openid_provider.host]

    def trust(host: str) -> None:
        hosts.append(host)
        http = SafeHttpClient(hosts)
        replace_service(monkeypatch, app, http_client=http, openid_client=OpenIdClient(http, clock))

    trust(openid_provider.host)
    values = {"issuer": openid_provider.issuer, "client_id": CLIENT_ID}
    provider = make_identity_provider(customer.organization, app.settings, SECRET, **values)
    make_domain(provider, domain=DOMAIN, verified_at=utc_now())
    set_user(provider_process, "victim", email=VICTIM, email_verified=True)
    return Attack(openid_provider, str(provider.id), anonymous, clock, database, customer.organization, trust)


def _set(**changes: Any) -> Callable[[Claims], None]:
    return lambda claims: claims.update(changes)


def _drop(*names: str) -> Callable[[Claims], None]:
    def change(claims: Claims) -> None:
        for name in names:
            claims.pop(name, None)

    return change


NOW = time.time()
WRONG_CLAIMS: dict[str, Callable[[Claims], None]] = {
    "1 another issuer": _set(iss="https://login.example.com"),
    "2 the issuer with a slash": lambda claims: claims.update(iss=f"{claims['iss']}/"),
    "3 another audience": _set(aud="another-client"),
    "4 several audiences without azp": _set(aud=[CLIENT_ID, "another-client"]),
    "5 azp of another client": _set(aud=[CLIENT_ID, "another-client"], azp="another-client"),
    "6 another nonce": _set(nonce="of-another-sign-in"),
    "7 no nonce": _drop("nonce"),
    "8 expired": _set(exp=int(NOW) - 3600),
    "9 no expiry": _drop("exp"),
    "10 issued in the future": _set(iat=int(NOW) + 86_400),
    "11 not valid yet": _set(nbf=int(NOW) + 86_400),
    "12 no subject": _drop("sub"),
    "13 a subject that is no text": _set(sub=["victim"]),
    "14 an expiry beyond all numbers": _set(exp=10**400),
}


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_s57_an_id_token_with_a_wrong_claim_is_rejected(
    name: str, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    attack.provider.change_claims = WRONG_CLAIMS[name]
    with attack.expect_no_account():
        assert attack.sign_in() == REJECTED
    assert "sign_in_rejected, ID token: " in caplog.text


def _join(*parts: bytes) -> str:
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts).decode()


def _unsigned(_: HostileProvider, claims: Claims) -> str:
    return _join(json.dumps({"alg": "none"}).encode(), json.dumps(claims).encode(), b"")


def _hmac_with_public_key(provider: HostileProvider, claims: Claims) -> str:
    public = provider.key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    # By hand: the library does not accept the key.
    content = (json.dumps({"alg": "HS256", "kid": "of the provider"}).encode(), json.dumps(claims).encode())
    return _join(*content, hmac.digest(public, _join(*content).encode(), "sha256"))


@cache
def _own_key() -> jwk.Key:
    return jwk.RSAKey.generate_key(2048, {"kid": "of the provider"})


def _another_key(provider: HostileProvider, claims: Claims) -> str:
    return provider.sign_with(_own_key(), claims)


def _key_in_header(provider: HostileProvider, claims: Claims) -> str:
    return provider.sign_with(_own_key(), claims, jwk=_own_key().as_dict(private=False))


def _changed_payload(provider: HostileProvider, claims: Claims) -> str:
    head, _, signature = provider.sign_with(provider.key, claims).split(".")
    return f"{head}.{_join(json.dumps({**claims, 'sub': 'admin'}).encode())}.{signature}"


WRONG_SIGNATURES: dict[str, Callable[[HostileProvider, Claims], str]] = {
    "15 algorithm none": _unsigned,
    "16 HS256 with the public key": _hmac_with_public_key,
    "17 a key of the attacker": _another_key,
    "18 a key of the attacker in the header": _key_in_header,
    "19 a payload that was changed": _changed_payload,
    "20 no token at all": lambda _, __: "not.a.token",
}


@pytest.mark.parametrize("name", WRONG_SIGNATURES)
def test_s57_an_id_token_with_a_wrong_signature_is_rejected(
    name: str, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    attack.provider.sign = lambda claims: WRONG_SIGNATURES[name](attack.provider, claims)
    with attack.expect_no_account():
        assert attack.sign_in() == REJECTED
    reason = "the ID token cannot be parsed" if name.startswith("20") else "no key of the provider verifies"
    assert f"sign_in_rejected, {reason}" in caplog.text


def test_s57_symmetric_and_short_keys_of_a_provider_are_not_used(attack: Attack) -> None:
    secret = jwk.OctKey.generate_key(256, {"kid": "of the provider"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weak = jwk.RSAKey.generate_key(1024, {"kid": "of the provider"})
    for key, algorithm in ((secret, "HS256"), (weak, "RS256")):
        attack.provider.published_keys = [key.as_dict(private=algorithm == "HS256")]
        attack.provider.sign = lambda claims, key=key, algorithm=algorithm: attack.provider.sign_with(
            key, claims, algorithm
        )
        attack.clock.now += protocol.CACHE_SECONDS
        assert attack.sign_in() == REJECTED


def test_s57_a_code_works_once_and_only_in_the_browser_that_started(attack: Attack) -> None:
    browser, thief = Browser.of(attack.client), Browser.of(attack.client)
    code = browser.get_code(attack.provider_id, "victim")
    with attack.expect_no_account():
        assert status_and_code(thief.exchange(code)) == (401, "incorrect_credentials")
        assert browser.exchange(code, code_verifier=browser.verifier[:-1]).status == 401
    assert browser.exchange(code).status == 200
    assert status_and_code(browser.exchange(code)) == (401, "incorrect_credentials")


def test_s57_a_code_ends_after_a_minute(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser.of(attack.client)
    code = browser.get_code(attack.provider_id, "victim")
    later = utc_now() + CODE_LIFETIME
    monkeypatch.setattr("studio.accounts.identity_providers.sign_ins.utc_now", lambda: later)
    assert browser.exchange(code).status == 401


def test_s57_the_response_of_a_provider_is_accepted_once(attack: Attack) -> None:
    browser = Browser.of(attack.client)
    callback = authorize(browser.start(attack.provider_id).headers["location"], "victim")
    assert browser.return_from(callback).startswith("/oidc/")
    assert browser.return_from(callback) == EXPIRED
    forged = callback.partition("?")[0] + "?code=a&state=never-started"
    assert browser.return_from(forged) == EXPIRED
    assert browser.return_from(callback.partition("?")[0]) == EXPIRED


def test_s57_a_code_of_the_provider_that_was_used_is_rejected(attack: Attack) -> None:
    browser = Browser.of(attack.client)
    first = authorize(browser.start(attack.provider_id).headers["location"], "victim")
    assert browser.return_from(first).startswith("/oidc/")
    second = authorize(browser.start(attack.provider_id).headers["location"], "victim")
    replayed = read_query(first)["code"]
    state = read_query(second)["state"]
    query = urlencode({"code": replayed, "state": state})
    assert browser.return_from(f"{first.partition('?')[0]}?{query}") == REJECTED
    # The state was used up by the attempt.
    assert browser.return_from(second) == EXPIRED


def test_s57_a_response_of_one_provider_is_not_accepted_by_another_one(
    attack: Attack, provider_process: str
) -> None:
    with run_hostile_provider(provider_process) as own:
        attack.trust(own.host)
        values = {"issuer": own.issuer, "client_id": CLIENT_ID}
        settings = attack.client.app.settings
        attacker = make_identity_provider(factories.make_organization(), settings, SECRET, **values)
        browser = Browser.of(attack.client)
        started = browser.start(attack.provider_id).headers["location"]
        callback = authorize(started, "victim")
        elsewhere = callback.replace(attack.provider_id, str(attacker.id))
        assert browser.return_from(elsewhere) == EXPIRED
        # Nothing was sent to the attacker, who would have got the code of the victim.
        assert own.requests("/oauth2/token") == []
        assert browser.return_from(callback).startswith("/oidc/")


@pytest.mark.parametrize("issuer", ["https://login.attacker.example", ""])
def test_s57_the_issuer_of_a_response_is_compared(issuer: str, attack: Attack) -> None:
    browser = Browser.of(attack.client)
    callback = authorize(browser.start(attack.provider_id).headers["location"], "victim")
    assert browser.return_from(f"{callback}&iss={quote(issuer)}") == REJECTED
    assert attack.provider.requests("/oauth2/token") == []


def test_s57_a_provider_that_announces_the_issuer_must_send_it(attack: Attack) -> None:
    name = "authorization_response_iss_parameter_supported"
    attack.provider.change_configuration = lambda configuration: configuration.update({name: True})
    assert attack.sign_in() == REJECTED
    browser = Browser.of(attack.client)
    callback = authorize(browser.start(attack.provider_id).headers["location"], "victim")
    with_issuer = f"{callback}&iss={quote(attack.provider.issuer, safe='')}"
    assert browser.return_from(with_issuer).startswith("/oidc/")


def test_s57_a_provider_of_another_tenant_names_only_its_own_users(
    app: Application, attack: Attack, provider_process: str
) -> None:
    victim = factories.make_user(email=VICTIM)
    factories.make_membership(attack.organization, victim, role="admin")
    with attack.database.transaction(write=False) as session:
        good = session.get_one(IdentityProvider, attack.provider_id)
    make_identity(good, victim, subject="victim")
    with run_hostile_provider(provider_process) as own:
        attack.trust(own.host)
        tenant = factories.make_organization()
        values = {"issuer": own.issuer, "client_id": CLIENT_ID, "default_role": "admin"}
        attacker = make_identity_provider(tenant, app.settings, SECRET, **values)
        domain = make_domain(attacker, verified_at=utc_now()).domain
        browser = Browser.of(attack.client)
        # The same subject, and the address of the other tenant.
        with attack.expect_no_account():
            rejected = browser.exchange(browser.get_code(attacker.id, "victim"))
            assert status_and_code(rejected) == (409, "email_not_accepted")
        # A user of the attacker's own domain acts at the attacker's only.
        own.change_claims = lambda claims: claims.update(sub="victim", email=f"evil@{domain}")
        session = browser.open_session(attacker.id, "victim")
        assert session("GET", "/users/me").json()["id"] != str(victim.id)
        assert session("GET", f"/brands/?organization_id={attack.organization.id}").status == 404
        assert session("GET", f"/brands/?organization_id={tenant.id}").status == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
        {"email": "victim@another.example"},
        {"email": f"victim@sub.{DOMAIN}"},
        {"email": f"victim@{DOMAIN}.attacker.example"},
        {"email": f"victim@attacker.example\r\nBcc: all@{DOMAIN}"},
        {"email": None},
    ],
    ids=str,
)
def test_s57_only_a_verified_address_of_a_verified_domain_gets_an_account(
    claims: Claims, attack: Attack
) -> None:
    attack.provider.change_claims = _set(**claims)
    browser = Browser.of(attack.client)
    code = browser.get_code(attack.provider_id, "victim")
    with attack.expect_no_account():
        assert status_and_code(browser.exchange(code)) == (409, "email_not_accepted")


def test_s57_a_domain_that_is_not_verified_gets_no_accounts(app: Application, attack: Attack) -> None:
    values = {"issuer": attack.provider.issuer, "client_id": CLIENT_ID}
    provider = make_identity_provider(attack.organization, app.settings, SECRET, **values)
    make_domain(provider, domain=DOMAIN)
    browser = Browser.of(attack.client)
    code = browser.get_code(provider.id, "victim")
    assert status_and_code(browser.exchange(code)) == (409, "email_not_accepted")


HOSTILE_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "https://login.example.com"},
    "keys at the metadata service": {"jwks_uri": "http://169.254.169.254/latest/meta-data"},
    "tokens at the metadata service": {"token_endpoint": "http://169.254.169.254/latest/meta-data"},
    "tokens at localhost": {"token_endpoint": "https://localhost/token"},
    "tokens in a file": {"token_endpoint": "file:///etc/passwd"},
    "sign-in by a script": {"authorization_endpoint": "javascript:alert(1)//"},
    "sign-in with a line break": {"authorization_endpoint": "https://a.example/\r\nSet-Cookie: a=b"},
    "sign-in with a password": {"authorization_endpoint": "https://login@a.example/"},
    "no tokens": {"token_endpoint": None},
}


@pytest.mark.parametrize("name", HOSTILE_CONFIGURATIONS)
def test_s57_a_configuration_does_not_lead_the_server_elsewhere(name: str, attack: Attack) -> None:
    attack.provider.change_configuration = lambda configuration: configuration.update(
        HOSTILE_CONFIGURATIONS[name]
    )
    browser = Browser.of(attack.client)
    started = browser.start(attack.provider_id).headers["location"]
    if started.startswith(attack.provider.issuer):
        assert browser.return_from(authorize(started, "victim")) == UNAVAILABLE
    else:
        assert started == f"{browser.client.app.settings.public_url}/review#{UNAVAILABLE}"


def test_s57_a_configuration_at_an_address_of_the_network_is_not_read(attack: Attack) -> None:
    for issuer in ("http://169.254.169.254", "https://127.0.0.1", "https://localhost"):
        provider = make_identity_provider(attack.organization, issuer=issuer)
        started = Browser.of(attack.client).start(provider.id).headers["location"]
        assert started.endswith(f"/review#{UNAVAILABLE}")


def test_s57_redirects_and_documents_without_end_are_not_followed(attack: Attack) -> None:
    responses = {
        "a redirect": StubResponse(302, b"", {"Location": "http://169.254.169.254/"}),
        "too long": StubResponse(200, b"[" + b" " * protocol.MAX_DOCUMENT_BYTES),
        "nested": StubResponse(200, b"[" * 100_000),
        "no JSON": StubResponse(200, b"<html>"),
        "a list": StubResponse(200, b"[]"),
        "a number without end": StubResponse(200, b'{"issuer": ' + b"9" * 100_000 + b"}"),
    }
    for response in responses.values():
        attack.provider.respond = lambda _, response=response: response
        attack.clock.now += protocol.CACHE_SECONDS
        started = Browser.of(attack.client).start(attack.provider_id).headers["location"]
        assert started.endswith(f"/review#{UNAVAILABLE}")


def test_s57_a_slow_provider_is_waited_for_briefly(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "TIMEOUT_SECONDS", 0.3)

    def respond(_: RecordedRequest) -> StubResponse:
        time.sleep(1)
        return StubResponse(200)

    attack.provider.respond = respond
    started_at = time.monotonic()
    for _ in range(3):
        # The second and the third one send nothing: the failure is known for a while.
        started = Browser.of(attack.client).start(attack.provider_id).headers["location"]
        assert started.endswith(f"/review#{UNAVAILABLE}")
    assert time.monotonic() - started_at < 0.9
    assert len(attack.provider.requests("/.well-known/openid-configuration")) == 1


def test_s57_new_keys_of_a_provider_are_fetched_but_not_for_each_token(attack: Attack) -> None:
    assert attack.sign_in().startswith("/oidc/")
    assert attack.sign_in().startswith("/oidc/")
    assert len(attack.provider.requests("/jwks")) == 1
    new = jwk.RSAKey.generate_key(2048, {"kid": "new"})
    attack.provider.key = new
    attack.provider.sign = lambda claims: attack.provider.sign_with(new, claims, kid="new")
    for _ in range(3):
        assert attack.sign_in() == REJECTED
    assert len(attack.provider.requests("/jwks")) == 1
    attack.clock.now += protocol.REFETCH_SECONDS
    assert attack.sign_in().startswith("/oidc/")
    assert len(attack.provider.requests("/jwks")) == 2
    attack.provider.sign = lambda claims: attack.provider.sign_with(new, claims, kid="invented")
    for _ in range(3):
        assert attack.sign_in() == REJECTED
    assert len(attack.provider.requests("/jwks")) == 2


@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "Ed25519"])
def test_s57_tokens_of_other_asymmetric_algorithms_are_accepted(algorithm: str, attack: Attack) -> None:
    kinds: dict[str, tuple[type[Any], Any]] = {
        "ES256": (jwk.ECKey, "P-256"),
        "PS256": (jwk.RSAKey, 2048),
        "Ed25519": (jwk.OKPKey, "Ed25519"),
    }
    key_class, size = kinds[algorithm]
    key = key_class.generate_key(size, {"kid": "of the provider"})
    attack.provider.key = key
    attack.provider.sign = lambda claims: attack.provider.sign_with(key, claims, algorithm)
    assert attack.sign_in().startswith("/oidc/")


def test_s57_the_browser_is_sent_to_the_board_of_this_server_only(attack: Attack) -> None:
    browser = Browser.of(attack.client)
    for name in ("redirect_uri", "next", "return_to"):
        assert browser.start(attack.provider_id, **{name: "https://attacker.example"}).status == 422
    assert browser.start(attack.provider_id, state="//attacker.example/" + "a" * 22).status == 422
    callback = authorize(browser.start(attack.provider_id).headers["location"], "victim")
    target = callback.partition("/api/v1")[2]
    evil = {"host": "attacker.example", "x-forwarded-host": "attacker.example"}
    more = "&redirect_uri=https://attacker.example&error_uri=https://attacker.example"
    response = attack.client("GET", target + more, headers=evil)
    board = urlsplit(response.headers["location"])
    assert f"{board.scheme}://{board.netloc}" == attack.client.app.settings.public_url
    assert response.headers["cache-control"] == "no-store"


def test_s57_an_error_of_the_provider_is_not_shown(attack: Attack) -> None:
    browser = Browser.of(attack.client)
    for error, reason in (("access_denied", "sign_in_canceled"), ("<script>", "sign_in_rejected")):
        location = browser.start(attack.provider_id).headers["location"]
        path = f"/login/oidc/{attack.provider_id}/callback?error={quote(error)}"
        path += (
            f"&error_description={quote('<script>alert(1)</script>')}&state={read_query(location)['state']}"
        )
        response = attack.client("GET", path)
        assert response.headers["location"].endswith(f"/review#/oidc-error/{reason}")


def test_s57_the_verifier_of_the_server_reaches_the_provider(attack: Attack) -> None:
    browser = Browser.of(attack.client)
    location = browser.start(attack.provider_id).headers["location"]
    assert browser.return_from(authorize(location, "victim")).startswith("/oidc/")
    (request,) = attack.provider.requests("/oauth2/token")
    verifier = str(httpx.QueryParams(request.body.decode())["code_verifier"])
    assert protocol.challenge_of(verifier) == read_query(location)["code_challenge"]
    assert verifier != browser.verifier


def test_s57_guessed_codes_are_limited_per_address(attack: Attack, set_limits: Callable[..., None]) -> None:
    set_limits(limit_sign_in_address=2)
    browser = Browser.of(attack.client)
    guesses = [browser.exchange("oc_" + "a" * 43).status for _ in range(3)]
    assert guesses == [401, 401, 429]


def test_s57_what_went_wrong_is_in_the_log_without_the_token(
    attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    attack.provider.change_claims = _set(aud="another-client")
    attack.sign_in()
    (message,) = [each.getMessage() for each in caplog.records if "identity provider" in each.getMessage()]
    assert "aud does not name this client" in message
    assert "victim" not in message
