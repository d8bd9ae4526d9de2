"""An OpenID provider as a process of its own, and a proxy in front of it that can make it hostile.

The proxy signs the ID tokens with a key of the test, so that a test can change a claim and the signature
stays valid.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
from joserfc import jwk, jws

from studio.accounts.identity_providers.protocol import challenge_of
from tests.api.conftest import Client
from tests.support.client import ClientResponse
from tools.servers.http_recorder import HttpRecorder, RecordedRequest, StubResponse, run_http_recorder
from tools.servers.processes import wait_until
from tools.servers.server import free_port, stop

CLIENT_ID = "sartiq-studio"
SECRET = "a client secret + with/special:characters"
Claims = dict[str, Any]


@contextmanager
def run_provider_process() -> Iterator[str]:
    """Run a provider within the block and yield its URL, which is its issuer."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    environment = {**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--require-nonce", "true"], env=environment, **quiet)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _is_running(url), "the identity provider runs", seconds=60)
        yield url
    finally:
        stop(process)


def _is_running(url: str) -> bool:
    try:
        return httpx.get(f"{url}/.well-known/openid-configuration").status_code == 200
    except httpx.TransportError:
        return False


def set_user(url: str, subject: str, **claims: Any) -> None:
    """Create a user of a provider, or replace the claims of one."""
    httpx.put(f"{url}/users/{subject}", json=claims).raise_for_status()


def authorize(authorization_url: str, subject: str) -> str:
    """Sign in at the provider in the place of a user's browser, and return the URL it redirects to."""
    response = httpx.post(authorization_url, data={"sub": subject})
    assert response.status_code == 302, response.text
    return response.headers["location"]


@cache
def make_key() -> jwk.Key:
    """Return the key of all providers of this process: a new one takes a quarter of a second."""
    return jwk.RSAKey.generate_key(2048, {"kid": "of the provider"})


@dataclass
class HostileProvider:
    """A provider behind a proxy. Each function changes what it sends; without them it is a good provider.

    Attributes:
        issuer: Its URL.
        change_claims: Changes the claims of ID tokens.
        change_configuration: Changes the configuration.
        sign: Signs the claims of an ID token.
        respond: Returns another response than that of the provider, or None.
    """

    issuer: str = ""
    recorder: HttpRecorder | None = None
    key: jwk.Key = field(default_factory=make_key)
    change_claims: Callable[[Claims], None] = lambda _: None
    change_configuration: Callable[[dict[str, Any]], None] = lambda _: None
    sign: Callable[[Claims], str] | None = None
    published_keys: list[Any] | None = None
    respond: Callable[[RecordedRequest], StubResponse | None] = lambda _: None

    @property
    def host(self) -> str:
        """The host and port."""
        return urlsplit(self.issuer).netloc

    def requests(self, path: str) -> list[RecordedRequest]:
        """Return the requests for a path."""
        assert self.recorder is not None
        return [each for each in self.recorder.requests if each.path.partition("?")[0] == path]

    def sign_with(self, key: jwk.Key, claims: Claims, algorithm: str = "RS256", **header: Any) -> str:
        """Return an ID token that is signed with a key."""
        protected = {"alg": algorithm, "kid": "of the provider", **header}
        return jws.serialize_compact(protected, json.dumps(claims).encode(), key, algorithms=[algorithm])


@contextmanager
def run_hostile_provider(process_url: str) -> Iterator[HostileProvider]:
    """Run a proxy of a provider within the block."""
    provider = HostileProvider()

    def respond(request: RecordedRequest) -> StubResponse:
        own = provider.respond(request)
        if own is not None:
            return own
        headers = {name: value for name, value in request.headers.items() if name != "accept-encoding"}
        answer = httpx.request(
            request.method, process_url + request.path, headers=headers, content=request.body
        )
        body = _change(provider, request.path.partition("?")[0], answer)
        sent = {name: answer.headers[name] for name in ("content-type", "location") if name in answer.headers}
        return StubResponse(answer.status_code, body, sent)

    with run_http_recorder(respond) as recorder:
        provider.issuer, provider.recorder = recorder.url, recorder
        yield provider


def _change(provider: HostileProvider, path: str, answer: httpx.Response) -> bytes:
    if path == "/.well-known/openid-configuration":
        configuration = answer.json()
        provider.change_configuration(configuration)
        return json.dumps(configuration).encode()
    if path == "/jwks":
        keys = provider.published_keys
        return json.dumps({"keys": [provider.key.as_dict(private=False)] if keys is None else keys}).encode()
    if path == "/oauth2/token" and answer.status_code == 200:
        tokens = answer.json()
        payload = tokens["id_token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        provider.change_claims(claims)
        sign = provider.sign or (lambda claims: provider.sign_with(provider.key, claims))
        return json.dumps({**tokens, "id_token": sign(claims)}).encode()
    return answer.content


class Browser(NamedTuple):
    """The review board in one browser: what it keeps of a sign-in that it has started."""

    client: Client
    verifier: str
    state: str

    @classmethod
    def of(cls, client: Client) -> Browser:
        """Return a browser with a new verifier and state."""
        return cls(client, secrets.token_urlsafe(48), secrets.token_urlsafe(32))

    def start(self, provider_id: object, **parameters: str) -> ClientResponse:
        """Start the sign-in, and return the redirect to the provider."""
        query = {"code_challenge": challenge_of(self.verifier), "state": self.state, **parameters}
        return self.client("GET", f"/login/oidc/{provider_id}/start?{httpx.QueryParams(query)}")

    def sign_in(self, provider_id: object, subject: str) -> str:
        """Sign in at the provider, and return the fragment of the board's URL."""
        started = self.start(provider_id)
        assert started.status == 303, started.body
        return self.return_from(authorize(started.headers["location"], subject))

    def return_from(self, callback: str) -> str:
        """Open the URL that the provider redirects to, and return the fragment of the board's URL."""
        response = self.client("GET", callback.partition("/api/v1")[2])
        assert response.status == 303, response.body
        board, _, fragment = response.headers["location"].partition("#")
        assert board == f"{self.client.app.settings.public_url}/review"
        return fragment

    def get_code(self, provider_id: object, subject: str) -> str:
        """Sign in at the provider, and return the code that the board gets."""
        fragment = self.sign_in(provider_id, subject)
        name, code, state = fragment.removeprefix("/").split("/")
        assert (name, state) == ("oidc", self.state), fragment
        return code

    def exchange(self, code: str, **form: str) -> ClientResponse:
        """Send a code to the token endpoint."""
        body = str(httpx.QueryParams({"code": code, "code_verifier": self.verifier, **form}))
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return self.client("POST", "/login/access-token", body=body.encode(), headers=headers)

    def open_session(self, provider_id: object, subject: str) -> Client:
        """Sign in, and return the client of the new session."""
        response = self.exchange(self.get_code(provider_id, subject))
        assert response.status == 200, response.body
        return Client(self.client.app, {"authorization": f"Bearer {response.json()['access_token']}"})


def read_query(url: str) -> Mapping[str, str]:
    """Return the query of a URL."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
