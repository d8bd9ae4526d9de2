"""Access tokens: only tokens of this server are accepted, whatever a token claims (RFC 8725)."""

from __future__ import annotations

import base64
import hmac
import json
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from db.models import User
from handlers.app import Application
from handlers.pipeline.auth import AUDIENCE, TOKEN_CACHE_SIZE, decode_access_token
from tests.api.conftest import Client
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.auth import assert_challenge, assert_unauthorized, get_token_owner, refresh, sign_in
from tests.support.mailbox import get_mailed_token
from tests.support.passwords import ADDRESS, PASSWORD
from tools.servers.http_recorder import HttpRecorder, run_http_recorder


class ValidToken(NamedTuple):
    """The parts of a valid token."""

    token: str
    claims: dict[str, Any]
    secret: str


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def build_pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return the public key of a key pair as PEM."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.fixture
def valid_token(app: Application, user: User) -> ValidToken:
    token = auth_headers(app, user)["authorization"].removeprefix("Bearer ")
    secret = app.settings.secret_key
    return ValidToken(token, jwt.decode(token, secret, algorithms=["HS256"], audience=AUDIENCE), secret)


@pytest.fixture
def canary() -> Iterator[HttpRecorder]:
    """Run a server with an attacker's keys, which must not receive a request."""
    with run_http_recorder() as server:
        yield server


def encode_part(part: bytes | dict[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def build_token(
    header: dict[str, Any], claims: bytes | dict[str, Any], key: bytes | None, digest: str = "sha256"
) -> str:
    """Return a token with this header, signed with HMAC if there is a key, regardless of the `alg` header."""
    signed = f"{encode_part(header)}.{encode_part(claims)}"
    return f"{signed}.{encode_part(hmac.digest(key, signed.encode(), digest)) if key is not None else ''}"


def assert_only_valid_token_accepted(anonymous: Client, valid_token: ValidToken, forged: list[str]) -> None:
    for token in forged:
        assert_unauthorized(get_token_owner(anonymous, token))
    # The unmodified token is accepted, so the forged ones were rejected for their differences.
    assert get_token_owner(anonymous, valid_token.token).status == 200


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None])
def test_s15_a_token_without_a_signature_is_rejected(
    anonymous: Client, valid_token: ValidToken, name: str | None
) -> None:
    header, signature = {"alg": name, "typ": "JWT"}, valid_token.token.rsplit(".", 1)[1]
    unsigned = build_token(header, valid_token.claims, None)
    forged = [
        unsigned,
        unsigned[:-1],
        unsigned + signature,
        build_token(header, valid_token.claims, valid_token.secret.encode()),
    ]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)


def test_s15_a_token_signed_with_a_public_key_or_an_asymmetric_key_is_rejected(
    anonymous: Client, valid_token: ValidToken, rsa_key: rsa.RSAPrivateKey
) -> None:
    pem = build_pem(rsa_key)
    der = rsa_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    forged = [
        build_token({"alg": algorithm, "typ": "JWT"}, valid_token.claims, key)
        for algorithm in ("HS256", "RS256")
        for key in (pem, pem.strip(), der)
    ]
    forged += [jwt.encode(valid_token.claims, rsa_key, algorithm) for algorithm in ("RS256", "PS256")]
    elliptic_key = ec.generate_private_key(ec.SECP256R1())
    forged += [jwt.encode(valid_token.claims, elliptic_key, "ES256")]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)


def test_s15_the_correct_key_with_another_algorithm_is_rejected(
    anonymous: Client, valid_token: ValidToken
) -> None:
    key = valid_token.secret.encode()
    forged = [build_token({"alg": f"HS{size}"}, valid_token.claims, key, f"sha{size}") for size in (384, 512)]
    forged += [
        build_token({"alg": name}, valid_token.claims, valid_token.secret.encode())
        for name in ("hs256", "HS256 ", "HS1")
    ]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)


@pytest.mark.parametrize(
    ("kid", "content"),
    [
        ("../../../../../../dev/null", b""),
        ("/dev/null", b""),
        ("/proc/sys/kernel/randomize_va_space", b"2\n"),
        ("x' UNION SELECT 'known' -- ", b"known"),
        ("|echo known", b"known"),
        ("\x00", b""),
    ],
)
def test_s15_the_kid_header_of_a_token_does_not_select_a_key(
    anonymous: Client, valid_token: ValidToken, kid: str, content: bytes
) -> None:
    forged = [build_token({"alg": "HS256", "kid": kid}, valid_token.claims, content)]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)


def test_s15_a_key_that_a_token_embeds_or_links_to_is_not_used(
    anonymous: Client, valid_token: ValidToken, canary: HttpRecorder, rsa_key: rsa.RSAPrivateKey
) -> None:
    url = f"{canary.url}/keys.json"
    public_jwk = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True)
    certificate = encode_part(build_pem(rsa_key))
    symmetric = {"kty": "oct", "k": encode_part(b"a key that the forger knows, long enough")}
    forged = [
        jwt.encode(valid_token.claims, rsa_key, "RS256", {"jwk": public_jwk}),
        jwt.encode(valid_token.claims, rsa_key, "RS256", {"jku": url, "kid": "1"}),
        jwt.encode(valid_token.claims, rsa_key, "RS256", {"x5u": url, "x5c": [certificate]}),
        build_token(
            {"alg": "HS256", "jwk": symmetric},
            valid_token.claims,
            b"a key that the forger knows, long enough",
        ),
        build_token(
            {"alg": "HS256", "jku": url}, valid_token.claims, b"a key that the forger knows, long enough"
        ),
        build_token({"alg": "dir", "enc": "A256GCM", "jku": url}, valid_token.claims, b""),
    ]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)
    assert canary.requests == []


def test_s15_a_token_signed_with_another_key_is_rejected(anonymous: Client, valid_token: ValidToken) -> None:
    keys = [
        "another secret that is long enough for it",
        valid_token.secret[:-1],
        valid_token.secret + " ",
        valid_token.secret.upper(),
    ]
    forged = [build_token({"alg": "HS256"}, valid_token.claims, key.encode()) for key in keys]
    forged += [build_token({"alg": "HS256"}, valid_token.claims, key) for key in (b"", b"\0", b"secret")]
    # The same secret signs cursors and URLs, each with its own prefix.
    forged += [build_token({"alg": "HS256"}, valid_token.claims, f"cursor:{valid_token.secret}".encode())]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)


def test_s15_a_modified_token_is_rejected(anonymous: Client, valid_token: ValidToken) -> None:
    header, payload, signature = valid_token.token.split(".")
    other = encode_part({**valid_token.claims, "sub": str(factories.make_user(is_superuser=True).id)})
    # The last character of a signature has unused bits, so the one before it is changed.
    letter = "A" if signature[-2] != "A" else "B"
    forged = [
        f"{header}.{other}.{signature}",
        f"{encode_part({'alg': 'HS256'})}.{payload}.{signature}",
        f"{header}.{payload}.{signature[:-2]}{letter}{signature[-1]}",
        f"{header}.{payload}.{signature[:-4]}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
        f"{valid_token.token}.{signature}",
        f"{valid_token.token}A",
        f".{valid_token.token}",
        valid_token.token * 2,
        valid_token.token.upper(),
    ]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)


def claim_changes() -> dict[str, dict[str, Any]]:
    """Return changes to the claims of a valid token, by name; None removes a claim."""
    now = int(time.time())
    return {
        "without exp": {"exp": None},
        "expired": {"exp": now - 1},
        "expired long ago": {"exp": 1},
        "expired as text": {"exp": "tomorrow"},
        "exp a list": {"exp": [now + 60]},
        "nbf in the future": {"nbf": now + 60},
        "issued in the future": {"iat": now + 3600},
        "nbf as text": {"nbf": "yesterday"},
        "without iat": {"iat": None},
        "another audience": {"aud": "other"},
        "no audience": {"aud": None},
        "a list of other audiences": {"aud": ["other", "sartiq"]},
        "another issuer": {"iss": "other"},
        "no issuer": {"iss": None},
        "a longer issuer": {"iss": "sartiq.example.com"},
        "a refresh token": {"type": "refresh"},
        "without type": {"type": None},
        "type in another letter case": {"type": "Access"},
        "without session": {"sid": None},
        "a session id that is no UUID": {"sid": "' OR 1=1 --"},
        "an unknown session": {"sid": str(uuid.uuid4())},
        "without account": {"sub": None},
        "an unknown account": {"sub": str(uuid.uuid4())},
        "an account id that is no UUID": {"sub": "dana@example.com"},
        "an account id that is a number": {"sub": 1},
        "without token id": {"jti": None},
    }


@pytest.mark.parametrize("kind", claim_changes())
def test_s15_a_signed_token_with_other_claims_is_rejected(
    anonymous: Client, valid_token: ValidToken, kind: str
) -> None:
    changed = {**valid_token.claims, **claim_changes()[kind]}
    claims = {name: value for name, value in changed.items() if value is not None}
    forged = [build_token({"alg": "HS256", "typ": "JWT"}, claims, valid_token.secret.encode())]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)


def test_s15_a_cached_token_is_rejected_after_it_expires(
    anonymous: Client, valid_token: ValidToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_token = {"authorization": f"Bearer {valid_token.token}"}
    for seconds, status in ((-1, 200), (0, 401), (-1, 200), (60, 401)):
        clock = SimpleNamespace(time=lambda now=valid_token.claims["exp"] + seconds: now)
        monkeypatch.setattr("handlers.pipeline.auth.time", clock)
        assert anonymous("GET", "/users/me", headers=with_token).status == status


def test_s15_a_token_with_the_session_of_one_account_and_the_id_of_another_is_rejected(
    app: Application, anonymous: Client, valid_token: ValidToken
) -> None:
    other = auth_headers(app, factories.make_user(is_superuser=True))["authorization"].removeprefix("Bearer ")
    other_claims = jwt.decode(other, valid_token.secret, algorithms=["HS256"], audience=AUDIENCE)
    forged = [
        build_token(
            {"alg": "HS256"}, {**valid_token.claims, "sid": other_claims["sid"]}, valid_token.secret.encode()
        ),
        build_token(
            {"alg": "HS256"}, {**valid_token.claims, "sub": other_claims["sub"]}, valid_token.secret.encode()
        ),
    ]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)


def test_s15_claims_that_are_not_an_object_are_rejected(anonymous: Client, valid_token: ValidToken) -> None:
    contents = [b"", b"[]", b"null", b'"text"', b"\xff", b"{", b'{"exp": 1e400}', b"[" * 1000]
    forged = [build_token({"alg": "HS256"}, content, valid_token.secret.encode()) for content in contents]
    forged += [
        f"{encode_part(head)}.{encode_part(valid_token.claims)}."
        for head in (b"", b"[]", b"null", b"\xff", b"{")
    ]
    assert_only_valid_token_accepted(anonymous, valid_token, forged)


def test_s15_a_token_of_one_kind_is_rejected_where_another_kind_is_required(
    app: Application, anonymous: Client, valid_token: ValidToken, client_for: Callable[..., Client]
) -> None:
    tokens = sign_in(anonymous, ADDRESS, PASSWORD).json()
    owner = factories.make_user()
    path = f"/organizations/{factories.make_organization(owner).id}/invitations"
    assert client_for(owner)("POST", path, {"email": ADDRESS, "role": "viewer"}).status == 201
    mailed = {"iv": get_mailed_token(app, ADDRESS, "iv")}
    assert anonymous("POST", f"/password-recovery/{ADDRESS}").status == 200
    mailed["pr"] = get_mailed_token(app, ADDRESS, "pr")
    assert_only_valid_token_accepted(anonymous, valid_token, [tokens["refresh_token"], *mailed.values()])
    for token in (tokens["access_token"], valid_token.token, *mailed.values()):
        assert_unauthorized(refresh(anonymous, token))
    for token in (tokens["access_token"], tokens["refresh_token"], mailed["iv"]):
        assert_unauthorized(
            anonymous("POST", "/reset-password/", {"token": token, "new_password": "another linen dress"})
        )
    for token in (tokens["access_token"], tokens["refresh_token"], mailed["pr"]):
        assert_unauthorized(anonymous("POST", "/invitations/accept", {"token": token}))
        assert_unauthorized(anonymous("POST", "/email-change/confirm", {"token": token}))
    assert refresh(anonymous, tokens["refresh_token"]).status == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "bearer", "Basic {token}", "Token {token}", "{token}", "Bearer Bearer {token}",
     "Bearer {token} {token}", "Bearer {token}, Bearer {token}", 'Bearer "{token}"'],
)  # fmt: skip
def test_s15_a_malformed_credential_is_rejected(
    anonymous: Client, valid_token: ValidToken, header: str
) -> None:
    for path in ("/users/me", "/brands/", "/users/me/sessions"):
        response = anonymous("GET", path, headers={"authorization": header.format(token=valid_token.token)})
        assert response.status == 401, header
        assert_challenge(response)
    for path in (f"/users/me?access_token={valid_token.token}", f"/users/me?token={valid_token.token}"):
        assert anonymous("GET", path).status in (401, 422)
    assert (
        anonymous("GET", "/users/me", headers={"cookie": f"access_token={valid_token.token}"}).status == 401
    )
    assert get_token_owner(anonymous, valid_token.token).status == 200


def test_the_cache_of_decoded_tokens_has_bounded_memory(valid_token: ValidToken) -> None:
    tokens = [
        jwt.encode({**valid_token.claims, "jti": str(n)}, valid_token.secret)
        for n in range(2 * TOKEN_CACHE_SIZE)
    ]
    tracemalloc.start()
    # Each request has its own copy of the token, which the cache may keep alive.
    assert all(decode_access_token("".join(token), (valid_token.secret,)) for token in tokens)
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory < 1_250_000
