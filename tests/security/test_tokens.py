"""Access tokens: nothing but one of ours opens, whatever it says about itself (RFC 8725)."""

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
from db.session import Database
from handlers.app import Application
from handlers.auth import AUDIENCE, KEPT_TOKENS, read_access_token
from studio.identity.passwords import hash_password
from tests import factories
from tests.api.conftest import Client
from tests.api.mailbox import token_mailed_to
from tests.listening import Listening, listening
from tests.serving import bearer
from tests.signing_in import assert_refused, refresh, sign_in, who

PASSWORD = "a-linen-dress-in-may"
ADDRESS = "dana@example.com"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_PEM = RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
PUBLIC_JWK = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)


class Good(NamedTuple):
    """A token that opens, taken apart."""

    token: str
    claims: dict[str, Any]
    secret: str


@pytest.fixture
def user(database: Database) -> User:
    return factories.make_user(email=ADDRESS, hashed_password=hash_password(PASSWORD))


@pytest.fixture
def anybody(client_of: Callable[..., Client]) -> Client:
    return client_of(None)


@pytest.fixture
def good(app: Application, user: User) -> Good:
    token = bearer(app, user)["authorization"].removeprefix("Bearer ")
    secret = app.settings.secret_key
    return Good(token, jwt.decode(token, secret, algorithms=["HS256"], audience=AUDIENCE), secret)


@pytest.fixture
def canary() -> Iterator[Listening]:
    """A server with the forger's keys, which nobody should ask."""
    with listening() as server:
        yield server


def packed(part: bytes | dict[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(
    header: dict[str, Any], claims: bytes | dict[str, Any], key: bytes | None, digest: str = "sha256"
) -> str:
    """A token with this header, signed with HMAC, whatever the header says, or not at all."""
    signed = f"{packed(header)}.{packed(claims)}"
    return f"{signed}.{packed(hmac.digest(key, signed.encode(), digest)) if key is not None else ''}"


def assert_only_the_good_one_opens(anybody: Client, good: Good, forged: list[str]) -> None:
    for one in forged:
        assert_refused(who(anybody, one))
    # What was changed is what was refused: the token as it was opens before and after.
    assert who(anybody, good.token).status == 200


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None])
def test_s15_a_token_that_says_it_needs_no_signature_is_refused(
    anybody: Client, good: Good, name: str | None
) -> None:
    header, signature = {"alg": name, "typ": "JWT"}, good.token.rsplit(".", 1)[1]
    unsigned = by_hand(header, good.claims, None)
    forged = [
        unsigned,
        unsigned[:-1],
        unsigned + signature,
        by_hand(header, good.claims, good.secret.encode()),
    ]
    assert_only_the_good_one_opens(anybody, good, forged)


def test_s15_a_public_key_is_no_secret(anybody: Client, good: Good) -> None:
    der = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    forged = [
        by_hand({"alg": algorithm, "typ": "JWT"}, good.claims, key)
        for algorithm in ("HS256", "RS256")
        for key in (PUBLIC_PEM, PUBLIC_PEM.strip(), der)
    ]
    forged += [jwt.encode(good.claims, RSA_KEY, algorithm) for algorithm in ("RS256", "PS256")]
    forged += [jwt.encode(good.claims, EC_KEY, "ES256")]
    assert_only_the_good_one_opens(anybody, good, forged)


def test_s15_the_right_key_with_another_algorithm_is_refused(anybody: Client, good: Good) -> None:
    key = good.secret.encode()
    forged = [by_hand({"alg": f"HS{size}"}, good.claims, key, f"sha{size}") for size in (384, 512)]
    forged += [
        by_hand({"alg": name}, good.claims, good.secret.encode()) for name in ("hs256", "HS256 ", "HS1")
    ]
    assert_only_the_good_one_opens(anybody, good, forged)


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
def test_s15_no_key_is_looked_up_by_the_name_that_a_token_gives(
    anybody: Client, good: Good, kid: str, content: bytes
) -> None:
    forged = [by_hand({"alg": "HS256", "kid": kid}, good.claims, content)]
    assert_only_the_good_one_opens(anybody, good, forged)


def test_s15_a_key_that_comes_along_or_is_linked_is_not_taken(
    anybody: Client, good: Good, canary: Listening
) -> None:
    address = f"{canary.url}/keys.json"
    symmetric = {"kty": "oct", "k": packed(b"a key that the forger knows, long enough")}
    forged = [
        jwt.encode(good.claims, RSA_KEY, "RS256", {"jwk": PUBLIC_JWK}),
        jwt.encode(good.claims, RSA_KEY, "RS256", {"jku": address, "kid": "1"}),
        jwt.encode(good.claims, RSA_KEY, "RS256", {"x5u": address, "x5c": [packed(PUBLIC_PEM)]}),
        by_hand({"alg": "HS256", "jwk": symmetric}, good.claims, b"a key that the forger knows, long enough"),
        by_hand({"alg": "HS256", "jku": address}, good.claims, b"a key that the forger knows, long enough"),
        by_hand({"alg": "dir", "enc": "A256GCM", "jku": address}, good.claims, b""),
    ]
    assert_only_the_good_one_opens(anybody, good, forged)
    assert canary.asked == []


def test_s15_a_token_signed_with_another_key_is_refused(anybody: Client, good: Good) -> None:
    keys = [
        "another secret that is long enough for it",
        good.secret[:-1],
        good.secret + " ",
        good.secret.upper(),
    ]
    forged = [by_hand({"alg": "HS256"}, good.claims, key.encode()) for key in keys]
    forged += [by_hand({"alg": "HS256"}, good.claims, key) for key in (b"", b"\0", b"secret")]
    # The same secret signs cursors and addresses, each with its own prefix.
    forged += [by_hand({"alg": "HS256"}, good.claims, f"cursor:{good.secret}".encode())]
    assert_only_the_good_one_opens(anybody, good, forged)


def test_s15_a_token_that_was_changed_is_refused(anybody: Client, good: Good, user: User) -> None:
    header, payload, signature = good.token.split(".")
    other = packed({**good.claims, "sub": str(factories.make_user(is_superuser=True).id)})
    # The last character of a signature holds bits that count for nothing: the one before it is changed.
    letter = "A" if signature[-2] != "A" else "B"
    forged = [
        f"{header}.{other}.{signature}",
        f"{packed({'alg': 'HS256'})}.{payload}.{signature}",
        f"{header}.{payload}.{signature[:-2]}{letter}{signature[-1]}",
        f"{header}.{payload}.{signature[:-4]}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
        f"{good.token}.{signature}",
        f"{good.token}A",
        f".{good.token}",
        good.token * 2,
        good.token.upper(),
    ]
    assert_only_the_good_one_opens(anybody, good, forged)


def changes_of_claims() -> dict[str, dict[str, Any]]:
    """What the claims of an otherwise good token are changed to; None leaves a claim out."""
    now = int(time.time())
    return {
        "without exp": {"exp": None},
        "expired": {"exp": now - 1},
        "expired long ago": {"exp": 1},
        "expired as text": {"exp": "tomorrow"},
        "exp a list": {"exp": [now + 60]},
        "not before the future": {"nbf": now + 60},
        "issued in the future": {"iat": now + 3600},
        "nbf as text": {"nbf": "yesterday"},
        "without iat": {"iat": None},
        "another audience": {"aud": "other"},
        "no audience": {"aud": None},
        "audiences without ours": {"aud": ["other", "sartiq"]},
        "another issuer": {"iss": "other"},
        "no issuer": {"iss": None},
        "a longer issuer": {"iss": "sartiq.example.com"},
        "a refresh token": {"type": "refresh"},
        "of no type": {"type": None},
        "of type Access": {"type": "Access"},
        "without session": {"sid": None},
        "a session that is no id": {"sid": "' OR 1=1 --"},
        "a session that is none": {"sid": str(uuid.uuid4())},
        "without account": {"sub": None},
        "an account that is none": {"sub": str(uuid.uuid4())},
        "an account that is no id": {"sub": "dana@example.com"},
        "an account that is a number": {"sub": 1},
        "without token id": {"jti": None},
    }


@pytest.mark.parametrize("what", changes_of_claims())
def test_s15_a_token_of_ours_with_other_claims_is_refused(anybody: Client, good: Good, what: str) -> None:
    changed = {**good.claims, **changes_of_claims()[what]}
    claims = {name: value for name, value in changed.items() if value is not None}
    forged = [by_hand({"alg": "HS256", "typ": "JWT"}, claims, good.secret.encode())]
    assert_only_the_good_one_opens(anybody, good, forged)


def test_s15_a_token_that_opened_before_is_refused_from_the_second_when_it_ends(
    anybody: Client, good: Good, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_token = {"authorization": f"Bearer {good.token}"}
    for seconds, status in ((-1, 200), (0, 401), (-1, 200), (60, 401)):
        clock = SimpleNamespace(time=lambda now=good.claims["exp"] + seconds: now)
        monkeypatch.setattr("handlers.auth.time", clock)
        assert anybody("GET", "/users/me", headers=with_token).status == status


def test_s15_the_account_of_one_session_does_not_open_that_of_another(
    app: Application, anybody: Client, good: Good
) -> None:
    other = bearer(app, factories.make_user(is_superuser=True))["authorization"].removeprefix("Bearer ")
    theirs = jwt.decode(other, good.secret, algorithms=["HS256"], audience=AUDIENCE)
    forged = [
        by_hand({"alg": "HS256"}, {**good.claims, "sid": theirs["sid"]}, good.secret.encode()),
        by_hand({"alg": "HS256"}, {**good.claims, "sub": theirs["sub"]}, good.secret.encode()),
    ]
    assert_only_the_good_one_opens(anybody, good, forged)


def test_s15_claims_that_are_no_object_are_refused(anybody: Client, good: Good) -> None:
    contents = [b"", b"[]", b"null", b'"text"', b"\xff", b"{", b'{"exp": 1e400}', b"[" * 1000]
    forged = [by_hand({"alg": "HS256"}, content, good.secret.encode()) for content in contents]
    forged += [f"{packed(head)}.{packed(good.claims)}." for head in (b"", b"[]", b"null", b"\xff", b"{")]
    assert_only_the_good_one_opens(anybody, good, forged)


def test_s15_a_secret_of_one_kind_is_good_for_no_other(
    app: Application, anybody: Client, good: Good, client_of: Callable[..., Client]
) -> None:
    tokens = sign_in(anybody, ADDRESS, PASSWORD).json()
    owner = factories.make_user()
    path = f"/organizations/{factories.make_organization(owner).id}/invitations"
    assert client_of(owner)("POST", path, {"email": ADDRESS, "role": "viewer"}).status == 201
    mailed = {"iv": token_mailed_to(app, ADDRESS, "iv")}
    assert anybody("POST", f"/password-recovery/{ADDRESS}").status == 200
    mailed["pr"] = token_mailed_to(app, ADDRESS, "pr")
    assert_only_the_good_one_opens(anybody, good, [tokens["refresh_token"], *mailed.values()])
    for one in (tokens["access_token"], good.token, *mailed.values()):
        assert_refused(refresh(anybody, one))
    for one in (tokens["access_token"], tokens["refresh_token"], mailed["iv"]):
        assert_refused(
            anybody("POST", "/reset-password/", {"token": one, "new_password": "another linen dress"})
        )
    for one in (tokens["access_token"], tokens["refresh_token"], mailed["pr"]):
        assert_refused(anybody("POST", "/invitations/accept", {"token": one}))
        assert_refused(anybody("POST", "/email-change/confirm", {"token": one}))
    assert refresh(anybody, tokens["refresh_token"]).status == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "bearer", "Basic {token}", "Token {token}", "{token}", "Bearer Bearer {token}",
     "Bearer {token} {token}", "Bearer {token}, Bearer {token}", 'Bearer "{token}"'],
)  # fmt: skip
def test_s15_a_credential_that_is_not_written_as_it_should_be_is_refused(
    anybody: Client, good: Good, header: str
) -> None:
    for path in ("/users/me", "/brands/", "/users/me/sessions"):
        reply = anybody("GET", path, headers={"authorization": header.format(token=good.token)})
        assert reply.status == 401, header
        assert reply.headers["www-authenticate"] == "Bearer"
    for path in (f"/users/me?access_token={good.token}", f"/users/me?token={good.token}"):
        assert anybody("GET", path).status in (401, 422)
    assert anybody("GET", "/users/me", headers={"cookie": f"access_token={good.token}"}).status == 401
    assert who(anybody, good.token).status == 200


def test_tokens_that_were_read_take_a_bounded_part_of_the_memory(good: Good) -> None:
    tokens = [jwt.encode({**good.claims, "jti": str(n)}, good.secret) for n in range(2 * KEPT_TOKENS)]
    tracemalloc.start()
    # Copies, as each request brings one: they count too.
    assert all(read_access_token("".join(token), good.secret) for token in tokens)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_250_000
