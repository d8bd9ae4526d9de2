"""Whatever is signed is judged by a comparison in constant time, and by nothing else.

Each check is run with a comparison that always says yes, and with one that always says no. A check that
compares by itself would not notice.
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
from handlers.auth import ALGORITHM, AUDIENCE, ISSUER, read_access_token
from studio.api_keys import read_secret, write_secret
from studio.jobs.callbacks import InvalidWebhookSignature, require_signature
from studio.media.signing import InvalidSignature, check_upload_signature, read_share, sign_share, sign_upload
from tests.api.catalogue import House
from tests.compute_server import COMPUTE_WEBHOOK_SECRET, signature
from tests.contract.keys import HEADER, back_to_work, change_key
from tests.contract.mini.asking import Reply

OURS, FORGERS = "a secret that only the server knows", "a secret that only the forger knows"
LATER = timedelta(minutes=15)


def upload_address(_house: House, genuine: bool) -> bool:
    upload_id, now = uuid4(), utc_now()
    signed = sign_upload(OURS if genuine else FORGERS, upload_id, now, LATER)
    with suppress(InvalidSignature):
        check_upload_signature(OURS, upload_id, signed.expires, signed.signature, now)
        return True
    return False


def shared_link(_house: House, genuine: bool) -> bool:
    token = sign_share(OURS if genuine else FORGERS, uuid4(), utc_now() + LATER)
    with suppress(InvalidSignature):
        read_share(OURS, token, utc_now())
        return True
    return False


def api_key(_house: House, genuine: bool) -> bool:
    return read_secret(write_secret(uuid4(), OURS if genuine else FORGERS), OURS) is not None


def access_token(_house: House, genuine: bool) -> bool:
    ids = {name: str(uuid4()) for name in ("sub", "sid", "jti")}
    claims = {"iss": ISSUER, "aud": AUDIENCE, "type": "access", "iat": utc_now(), "exp": utc_now() + LATER}
    token = jwt.encode({**claims, **ids}, OURS if genuine else FORGERS, ALGORITHM)
    return read_access_token(token, OURS) is not None


def call_back(_house: House, genuine: bool) -> bool:
    body = b"{}"
    expected = COMPUTE_WEBHOOK_SECRET if genuine else "whsec_" + "A" * 32
    with suppress(InvalidWebhookSignature):
        require_signature(expected, body, signature(body, "msg_1"))
        return True
    return False


def cursor(house: House, genuine: bool) -> bool:
    path = f"/brands/{house.scope}&limit=1"
    for name in ("Atelier Nord", "Atelier Sud"):
        house.create("/brands/", {"name": name})
    given: str = house.client("GET", path).json()["next_cursor"]
    changed = ("B" if given[0] == "A" else "A") + given[1:]
    return house.client("GET", f"{path}&cursor={given if genuine else changed}").status == 200


def make_brand(house: House, key: str, name: str) -> Reply:
    return house.client("POST", f"/brands/{house.scope}", {"name": name}, headers={HEADER: key})


def repetition(house: House, genuine: bool) -> bool:
    key = str(uuid4())
    assert make_brand(house, key, "Atelier Nord").status == 201
    return (
        "idempotency-replayed" in make_brand(house, key, "Atelier Nord" if genuine else "Atelier Sud").headers
    )


def repetition_of_what_was_left_behind(house: House, genuine: bool) -> bool:
    key, app = str(uuid4()), house.client.app
    assert make_brand(house, key, "Atelier Nord").status == 201
    back_to_work(app, key)
    change_key(app, key, lease_expires_at=utc_now())
    return make_brand(house, key, "Atelier Nord" if genuine else "Atelier Sud").status == 201


class Verifier(NamedTuple):
    """A check of something signed: the modules whose comparisons decide, and whether it is accepted."""

    modules: tuple[str, ...]
    accepts: Callable[[House, bool], bool]


VERIFIERS = (
    Verifier(("studio.media.signing",), upload_address),
    Verifier(("studio.media.signing", "itsdangerous.signer"), shared_link),
    Verifier(("studio.api_keys",), api_key),
    Verifier(("jwt.algorithms",), access_token),
    Verifier(("standardwebhooks.webhooks",), call_back),
    Verifier(("handlers.paging",), cursor),
    Verifier(("handlers.idempotency",), repetition),
    Verifier(("studio.idempotency",), repetition_of_what_was_left_behind),
)


class Biased:
    """The module `hmac` with a comparison whose verdict is certain."""

    def __init__(self, verdict: bool) -> None:
        self.verdict = verdict

    def __getattr__(self, name: str) -> Any:
        return getattr(hmac, name)

    def compare_digest(self, *_: object) -> bool:
        return self.verdict


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda verifier: verifier.accepts.__name__)
def test_s26_what_is_signed_is_judged_by_a_comparison_in_constant_time_alone(
    verifier: Verifier, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepts = partial(verifier.accepts, house)
    assert accepts(True)
    assert not accepts(False)
    for verdict in (True, False):
        for module in verifier.modules:
            monkeypatch.setattr(f"{module}.hmac", Biased(verdict))
        assert accepts(not verdict) is verdict
