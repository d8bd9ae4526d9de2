"""Every signature is verified by `hmac.compare_digest`, which takes constant time, and by nothing else.

Each verifier runs with a comparison that always returns true, and with one that always returns false. A
verifier with a comparison of its own would not follow the replaced result, and its test would fail.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import jwt
import pytest

from db.base import utc_now
from handlers.pipeline.auth import ALGORITHM, AUDIENCE, ISSUER, decode_access_token
from studio.accounts.api_keys import generate_secret, parse_secret
from studio.generations.worker.callbacks import InvalidWebhookSignature, require_signature
from studio.media.signing import (
    InvalidSignature,
    check_upload_signature,
    sign_share,
    sign_upload,
    verify_share,
)
from tests.support.client import ClientResponse
from tests.support.factories.catalog import Customer
from tests.support.idempotency import HEADER, mark_in_progress, update_key
from tests.support.servers.compute import COMPUTE_WEBHOOK_SECRET, signature_headers

SERVER_SECRET, FORGED_SECRET = "a secret that only the server knows", "a secret that only the forger knows"
LATER = timedelta(minutes=15)


def upload_url(_customer: Customer, genuine: bool) -> bool:
    upload_id, now = uuid4(), utc_now()
    signed = sign_upload(SERVER_SECRET if genuine else FORGED_SECRET, upload_id, now, LATER)
    with suppress(InvalidSignature):
        check_upload_signature((SERVER_SECRET,), upload_id, signed.expires, signed.signature, now)
        return True
    return False


def shared_link(_customer: Customer, genuine: bool) -> bool:
    token = sign_share(SERVER_SECRET if genuine else FORGED_SECRET, uuid4())
    with suppress(InvalidSignature):
        verify_share((SERVER_SECRET,), token)
        return True
    return False


def api_key(_customer: Customer, genuine: bool) -> bool:
    return (
        parse_secret(generate_secret(uuid4(), SERVER_SECRET if genuine else FORGED_SECRET), (SERVER_SECRET,))
        is not None
    )


def access_token(_customer: Customer, genuine: bool) -> bool:
    ids = {name: str(uuid4()) for name in ("sub", "sid", "jti")}
    claims = {"iss": ISSUER, "aud": AUDIENCE, "type": "access", "iat": utc_now(), "exp": utc_now() + LATER}
    token = jwt.encode({**claims, **ids}, SERVER_SECRET if genuine else FORGED_SECRET, ALGORITHM)
    return decode_access_token(token, (SERVER_SECRET,)) is not None


def callback(_customer: Customer, genuine: bool) -> bool:
    body = b"{}"
    expected = COMPUTE_WEBHOOK_SECRET if genuine else "whsec_" + "A" * 32
    with suppress(InvalidWebhookSignature):
        require_signature(expected, body, signature_headers(body, "msg_1"))
        return True
    return False


def cursor(customer: Customer, genuine: bool) -> bool:
    path = f"/brands/{customer.organization_query}&limit=1"
    for name in ("Atelier Nord", "Atelier Sud"):
        customer.create("/brands/", {"name": name})
    cursor: str = customer.client("GET", path).json()["next_cursor"]
    content, signature = cursor.rsplit(".", 1)
    altered = ("B" if signature[0] == "A" else "A") + signature[1:]
    sent = cursor if genuine else f"{content}.{altered}"
    return customer.client("GET", f"{path}&cursor={sent}").status == 200


def make_brand(customer: Customer, key: str, name: str) -> ClientResponse:
    return customer.client(
        "POST", f"/brands/{customer.organization_query}", {"name": name}, headers={HEADER: key}
    )


def replay(customer: Customer, genuine: bool) -> bool:
    key = str(uuid4())
    assert make_brand(customer, key, "Atelier Nord").status == 201
    return (
        "idempotency-replayed"
        in make_brand(customer, key, "Atelier Nord" if genuine else "Atelier Sud").headers
    )


def replay_after_crash(customer: Customer, genuine: bool) -> bool:
    key, app = str(uuid4()), customer.client.app
    assert make_brand(customer, key, "Atelier Nord").status == 201
    mark_in_progress(app, key)
    update_key(app, key, lease_expires_at=utc_now())
    return make_brand(customer, key, "Atelier Nord" if genuine else "Atelier Sud").status == 201


class Verifier(NamedTuple):
    """A verifier of signatures.

    Attributes:
        modules: the modules that import `hmac` for the comparison.
        accepts: sends a genuine or a forged signature and returns whether it is accepted.
        caller: the module of this project that delegates the comparison to a library.
    """

    modules: tuple[str, ...]
    accepts: Callable[[Customer, bool], bool]
    caller: str | None = None


VERIFIERS = (
    Verifier(("studio.media.signing",), upload_url),
    Verifier(("studio.media.signing", "itsdangerous.signer"), shared_link),
    Verifier(("studio.accounts.api_keys",), api_key),
    Verifier(("jwt.algorithms",), access_token),
    Verifier(("standardwebhooks.webhooks",), callback),
    Verifier(("itsdangerous.signer",), cursor, caller="handlers.common.cursors"),
    Verifier(("handlers.pipeline.idempotency",), replay),
    Verifier(("studio.infrastructure.idempotency",), replay_after_crash),
)


class FixedComparison:
    """Stand-in for the module `hmac` whose comparison always returns the same result."""

    def __init__(self, verdict: bool) -> None:
        self.verdict = verdict

    def __getattr__(self, name: str) -> Any:
        return getattr(hmac, name)

    def compare_digest(self, *_: object) -> bool:
        return self.verdict


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda verifier: verifier.accepts.__name__)
def test_s26_signatures_are_verified_by_constant_time_comparison_only(
    verifier: Verifier, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepts = partial(verifier.accepts, customer)
    assert accepts(True)
    assert not accepts(False)
    for verdict in (True, False):
        for module in verifier.modules:
            monkeypatch.setattr(f"{module}.hmac", FixedComparison(verdict))
        assert accepts(not verdict) is verdict
