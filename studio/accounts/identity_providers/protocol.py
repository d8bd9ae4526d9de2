"""The client of OpenID providers (OpenID Connect Core 1.0): discovery, authorization requests and ID tokens.

Everything that a provider sends is untrusted: documents are limited in size and time, and each claim of an
ID token is checked. Knows no rows. All requests go through the client that is guarded against SSRF.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from db.errors import TargetNotAllowed
from studio.infrastructure.http_client import (
    MAX_URL_LENGTH,
    HttpClientError,
    HttpResponse,
    SafeHttpClient,
)

if TYPE_CHECKING:
    from joserfc.jwk import Key

SCOPE = "openid email profile"
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
"""Asymmetric ones only: with HS256, the public key of the provider would be a valid key."""
TIMEOUT_SECONDS = 5.0
"""The limit of one request. A thread of the server waits for it."""
MAX_DOCUMENT_BYTES = 131_072
MAX_TOKEN_CHARACTERS = 16_384
MAX_KEYS = 50
MAX_AUDIENCES = 20
MIN_RSA_CHARACTERS = 342
"""The modulus of 2,048 bits in base64url."""
LEEWAY_SECONDS = 60
CACHE_SECONDS = 600.0
REFETCH_SECONDS = 30.0
"""How often the keys are fetched at most because a token names an unknown one."""
FAILURE_SECONDS = 5.0
"""How long a document that could not be fetched is not requested again."""
MAX_CACHED_DOCUMENTS = 500
MAX_SUBJECT_CHARACTERS = 255
MAX_TIME = 1e12
"""In seconds since 1970; no token is valid that long."""
# What the contract accepts as the address of an account, which no line break of a mail header can be in.
_EMAIL = re.compile(
    r"(?=.{3,254}$)[A-Za-z0-9!#$%*+=^_`{|}~.-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,3}"
)

# Printable ASCII without a fragment: it becomes a header of a response.
_ENDPOINT = re.compile(r"https?://[\x21\x22\x24-\x7e]+")

Reason = Literal["provider_unavailable", "sign_in_rejected", "sign_in_canceled", "sign_in_expired"]
"""Why a sign-in failed, for the client. The log has the details."""


class SignInFailed(Exception):
    """The provider did not confirm who the user is. `reason` is for the client, the message for the log."""

    def __init__(self, reason: Reason, message: str) -> None:
        # All arguments, because a request that is served again copies its arguments.
        super().__init__(reason, message)
        self.reason, self.message = reason, message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Client:
    """This server as a client of a provider."""

    issuer: str
    client_id: str
    client_secret: str | None
    redirect_uri: str


class Flow(NamedTuple):
    """The values of one sign-in that the provider must return or verify."""

    state: str
    nonce: str
    code_verifier: str

    @classmethod
    def of(cls, state: str, secret_key: str) -> Flow:
        """Return the values that belong to a state. They are derived, so that no row has to store them."""
        nonce, verifier = (_derive(secret_key, purpose, state) for purpose in ("nonce", "code verifier"))
        return cls(state, nonce, verifier)


@dataclass(frozen=True)
class ProviderUser:
    """The user whom a provider has confirmed."""

    subject: str
    email: str | None
    """The address; None if the provider does not say that it has verified it."""
    full_name: str | None


@dataclass(frozen=True)
class Metadata:
    """The parts of a provider's configuration that are used (OpenID Connect Discovery 1.0, section 3)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    sends_issuer: bool
    """Whether authorization responses name the issuer (RFC 9207)."""
    accepts_basic: bool
    """Whether the token endpoint accepts the client secret in the header `Authorization`."""


class _Document(NamedTuple):
    fetched_at: float
    value: Any
    """None if it could not be fetched."""


class OpenIdClient:
    """Talks to providers. It is thread-safe and caches what they publish.

    Args:
        http: The client for requests to other servers.
        clock: Replaces the monotonic clock, for tests.
    """

    def __init__(self, http: SafeHttpClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._http, self._clock = http, clock
        self._documents: dict[str, _Document] = {}
        self._lock = threading.Lock()

    def build_authorization_url(self, client: Client, flow: Flow) -> str:
        """Return the URL at which the provider asks the user to sign in.

        Raises:
            SignInFailed: The configuration of the provider cannot be fetched or is invalid.
        """
        endpoint = self._find_metadata(client.issuer).authorization_endpoint
        parameters = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": client.redirect_uri,
            "scope": SCOPE,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": challenge_of(flow.code_verifier),
            "code_challenge_method": "S256",
        }
        # The endpoint can have a query of its own (RFC 6749, section 3.1).
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"

    def identify_user(self, client: Client, flow: Flow, code: str, issuer: str | None) -> ProviderUser:
        """Exchange the code of an authorization response, and return the user of the ID token.

        Args:
            client: This server at the provider.
            flow: The sign-in that the response belongs to.
            code: The parameter `code` of the response.
            issuer: Its parameter `iss`, if it has one.

        Raises:
            SignInFailed: The provider cannot be reached, rejects the code, or its ID token is not valid.
        """
        metadata = self._find_metadata(client.issuer)
        # RFC 9207, section 2.4: the response of another provider must not be accepted (mix-up attack).
        if issuer != client.issuer and (issuer is not None or metadata.sends_issuer):
            raise _rejected("the response names another issuer, or none")
        token = self._exchange_code(client, metadata, flow, code)
        return _read_user(self._verify_token(metadata, token), client, flow)

    def _find_metadata(self, issuer: str) -> Metadata:
        document = self._get_document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        # The issuer must be the same text (OpenID Connect Discovery 1.0, section 4.3).
        if document.get("issuer") != issuer:
            raise SignInFailed("provider_unavailable", "the configuration names another issuer")
        methods = document.get("token_endpoint_auth_methods_supported")
        return Metadata(
            authorization_endpoint=_read_endpoint(document, "authorization_endpoint", issuer),
            token_endpoint=_read_endpoint(document, "token_endpoint", issuer),
            jwks_uri=_read_endpoint(document, "jwks_uri", issuer),
            sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
            accepts_basic=not isinstance(methods, list) or "client_secret_basic" in methods,
        )

    def _get_document(self, url: str, max_age: float = CACHE_SECONDS) -> dict[str, Any]:
        """Return a document of a provider that is at most `max_age` seconds old.

        Raises:
            SignInFailed: It cannot be fetched, or could not be a few seconds ago.
        """
        with self._lock:
            cached = self._documents.get(url)
        if cached is not None:
            age = self._clock() - cached.fetched_at
            if age < (max_age if cached.value is not None else FAILURE_SECONDS):
                return _require_document(cached.value)
        value = None
        try:
            response = self._send("GET", url)
            value = _parse_object(response) if response.status == 200 else None
        finally:
            with self._lock:
                # The one that was added first is the first one of a dict.
                self._documents.pop(url, None)
                if len(self._documents) >= MAX_CACHED_DOCUMENTS:
                    del self._documents[next(iter(self._documents))]
                self._documents[url] = _Document(self._clock(), value)
        return _require_document(value)

    def _exchange_code(self, client: Client, metadata: Metadata, flow: Flow, code: str) -> str:
        """Return the ID token for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_uri,
            "client_id": client.client_id,
            "code_verifier": flow.code_verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if client.client_secret is not None and metadata.accepts_basic:
            # Each part is encoded like a form first (RFC 6749, section 2.3.1).
            pair = f"{quote(client.client_id, safe='')}:{quote(client.client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif client.client_secret is not None:
            form["client_secret"] = client.client_secret
        response = self._send("POST", metadata.token_endpoint, headers, urlencode(form).encode())
        if response.status >= 500:
            raise SignInFailed("provider_unavailable", f"the token endpoint returned {response.status}")
        token = (_parse_object(response) or {}).get("id_token")
        if response.status != 200 or not isinstance(token, str) or len(token) > MAX_TOKEN_CHARACTERS:
            raise _rejected(f"the token endpoint returned {response.status} without an ID token")
        return token

    def _verify_token(self, metadata: Metadata, token: str) -> dict[str, Any]:
        """Return the claims of an ID token with a valid signature of the provider."""
        # Imported here, as by `_find_keys`: it loads `cryptography`, which takes 8 MB of each process.
        from joserfc import jws
        from joserfc.errors import JoseError

        try:
            header = json.loads(_decode_base64(token.partition(".")[0]))
            key_id = header.get("kid")
        except (ValueError, RecursionError, AttributeError) as error:
            raise _rejected("the ID token cannot be parsed") from error
        keys = _find_keys(self._get_document(metadata.jwks_uri), key_id)
        if not keys:
            # The provider may have changed its keys.
            keys = _find_keys(self._get_document(metadata.jwks_uri, REFETCH_SECONDS), key_id)
        for key in keys:
            try:
                # It also compares the algorithm with the type of the key.
                payload = jws.deserialize_compact(token, key, algorithms=ALGORITHMS).payload
                claims = json.loads(payload)
            except (JoseError, ValueError, TypeError, RecursionError):
                continue
            if isinstance(claims, dict):
                return claims
        raise _rejected("no key of the provider verifies the ID token")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> HttpResponse:
        try:
            return self._http.send(
                method,
                url,
                headers=headers,
                content=content,
                timeout_seconds=TIMEOUT_SECONDS,
                max_bytes=MAX_DOCUMENT_BYTES,
            )
        except (HttpClientError, TargetNotAllowed) as error:
            raise SignInFailed("provider_unavailable", f"{url.partition('?')[0]}: {error}") from error


def challenge_of(code_verifier: str) -> str:
    """Return the challenge of a verifier (RFC 7636, method S256)."""
    return _encode_base64(hashlib.sha256(code_verifier.encode()).digest())


def _derive(secret_key: str, purpose: str, state: str) -> str:
    message = f"openid connect, {purpose}: {state}"
    return _encode_base64(hmac.digest(secret_key.encode(), message.encode(), "sha256"))


def _encode_base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decode_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _rejected(message: str) -> SignInFailed:
    return SignInFailed("sign_in_rejected", message)


def _require_document(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SignInFailed(
            "provider_unavailable", "a document of the provider is missing or is no JSON object"
        )
    return value


def _parse_object(response: HttpResponse) -> dict[str, Any] | None:
    try:
        value = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_endpoint(document: Mapping[str, Any], name: str, issuer: str) -> str:
    """Return an endpoint of the configuration. Only an allowed host can be an issuer without TLS."""
    url = document.get(name)
    if not isinstance(url, str) or len(url) > MAX_URL_LENGTH or not _ENDPOINT.fullmatch(url):
        url = ""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and "@" not in parts.netloc
        is_valid = has_host and parts.scheme in ("https", urlsplit(issuer).scheme)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise SignInFailed("provider_unavailable", f"the configuration has no valid {name}")
    return url


def _find_keys(document: Mapping[str, Any], key_id: object) -> list[Key]:
    """Return the public keys that may have signed a token; those without the `kid` of a token cannot."""
    from joserfc import jwk
    from joserfc.errors import JoseError

    entries = document.get("keys")
    found: list[Key] = []
    for entry in entries[:MAX_KEYS] if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if entry.get("use", "sig") != "sig" or (key_id is not None and entry.get("kid") != key_id):
            continue
        if entry["kty"] == "RSA" and len(str(entry.get("n"))) < MIN_RSA_CHARACTERS:
            continue
        # A provider may publish keys of kinds that are not known here.
        with suppress(JoseError, ValueError, TypeError, KeyError):
            found.append(jwk.import_key(entry))
    return found


def _read_user(claims: Mapping[str, Any], client: Client, flow: Flow) -> ProviderUser:
    """Return the user of an ID token whose signature is valid (OpenID Connect Core 1.0, section 3.1.3.7)."""
    now = time.time()
    audiences = claims.get("aud")
    audiences = [audiences] if isinstance(audiences, str) else audiences
    nonce, subject = claims.get("nonce"), claims.get("sub")
    expires_at, issued_at, not_before = (_read_time(claims, name) for name in ("exp", "iat", "nbf"))
    problems = {
        "iss is another issuer": claims.get("iss") != client.issuer,
        "aud does not name this client": not isinstance(audiences, list)
        or len(audiences) > MAX_AUDIENCES
        or client.client_id not in audiences,
        "azp is another client": claims.get("azp", client.client_id) != client.client_id
        or (isinstance(audiences, list) and len(audiences) > 1 and "azp" not in claims),
        "nonce is of another sign-in": nonce != flow.nonce,
        "it has expired": expires_at is None or expires_at <= now - LEEWAY_SECONDS,
        "it is issued in the future": issued_at is None or issued_at > now + LEEWAY_SECONDS,
        "it is not valid yet": not_before is not None and not_before > now + LEEWAY_SECONDS,
        "sub is missing or too long": not isinstance(subject, str)
        or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS
        or not subject.isprintable(),
    }
    found = [problem for problem, is_present in problems.items() if is_present]
    if found:
        raise _rejected(f"ID token: {', '.join(found)}")
    email, name = claims.get("email"), claims.get("name")
    # Only `true` counts: some providers let users enter any address and send `"false"` as text.
    is_verified = claims.get("email_verified") is True and isinstance(email, str) and _EMAIL.fullmatch(email)
    full_name = "".join(filter(str.isprintable, name))[:200].strip() if isinstance(name, str) else ""
    return ProviderUser(str(subject), email if is_verified else None, full_name or None)


def _read_time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # Compared first: a whole number can be too large for a float.
    return float(value) if abs(value) < MAX_TIME and math.isfinite(value) else None
