"""S35: a file is not read before its request is authorized, and slow or unfinished bodies are limited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select

from db.errors import TooManyConcurrentRequests
from db.models import AuditEvent, Upload
from db.models.audit import Outcome
from db.session import Database
from handlers.app import Application
from handlers.contract.errors import RequestTimeout
from handlers.contract.request_bodies import MIN_BYTES_PER_SECOND, read_chunks
from handlers.pipeline.admission.body_limits import TooManyBodyBytes, UnfinishedBodies
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.errors import build_problem
from handlers.pipeline.prechecks import find_precheck
from studio.infrastructure.fair_slots import Requester
from tests.contract.operations import BASE, OPERATIONS, Request, unknown_id
from tests.contract.tenant import Tenant, sign_upload_request
from tests.security.test_uploads import accepts_image_bytes
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import build_scope
from tests.support.factories.api_keys import api_key_headers

WITH_FILE = [name for name, operation in OPERATIONS.items() if accepts_image_bytes(operation)]
WITH_CREDENTIAL = [name for name in WITH_FILE if not OPERATIONS[name].is_public]
HALF_A_FILE = 20_000_000
"""A Content-Length that is announced and never sent."""


@pytest.fixture
def tenant(app: Application, database: Database) -> Tenant:
    """Return a tenant with a row of every kind."""
    return Tenant(app.settings)


def send_head(app: Application, request: Request, headers: dict[str, str]) -> tuple[int, str]:
    """Send the head of a request whose body never arrives; return the status and code of the response.

    Fails if the application reads from the body.
    """
    boundary = "; boundary=b" if request.media_type == "multipart/form-data" else ""
    head = {"content-type": f"{request.media_type}{boundary}", "content-length": str(HALF_A_FILE)}
    scope = build_scope(request.operation.method, request.target, {**head, **headers})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is read")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    code = next(part for part in sent[1]["body"].split(b'"code":"')[1:])
    return sent[0]["status"], code.partition(b'"')[0].decode()


def test_s35_every_operation_with_a_file_authorizes_before_it_reads(app: Application) -> None:
    assert {"add_product_image", "add_base_image", "put_upload"} <= set(WITH_FILE)
    for name in WITH_FILE:
        precheck = find_precheck(app.endpoints[name]._handler)
        assert precheck is not None, name
        assert precheck.authorize is not None, name


@pytest.mark.parametrize("name", WITH_CREDENTIAL)
def test_s35_no_byte_is_read_without_a_permission(app: Application, tenant: Tenant, name: str) -> None:
    request = tenant.request_for(name)
    other_permission = api_key_headers(app, tenant.organization, ["brands:read"])
    revoked = auth_headers(app, tenant.owner)
    assert Request(OPERATIONS["logout"]).send(app, revoked).status == 204
    foreign, unknown = Tenant(app.settings).request_for(name), tenant.request_for(name)
    unknown.path = dict.fromkeys(unknown.path, unknown_id())
    owner = auth_headers(app, tenant.owner)
    expected: dict[str, tuple[Request, dict[str, str], tuple[int, str]]] = {
        "no token": (request, {}, (401, "not_authenticated")),
        "invalid token": (request, {"authorization": "Bearer x"}, (401, "invalid_token")),
        "revoked session": (request, revoked, (401, "invalid_token")),
        "key without the scope": (request, other_permission, (403, "not_enough_permissions")),
        "viewer": (request, auth_headers(app, tenant.viewer), (403, "not_enough_permissions")),
        "other organization's row": (foreign, owner, (404, "not_found")),
        "unknown row": (unknown, owner, (404, "not_found")),
    }
    for case, (sent, headers, answer) in expected.items():
        assert send_head(app, sent, headers) == answer, case


def break_signature(request: Request) -> None:
    request.query["signature"] = "0" * 64


def let_expire(request: Request) -> None:
    request.query["expires"] = 1


def omit_signature(request: Request) -> None:
    del request.query["signature"]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (break_signature, (403, "invalid_signature")),
        (let_expire, (403, "invalid_signature")),
        (omit_signature, (422, "invalid_request")),
    ],
)
def test_s35_no_byte_is_read_without_a_valid_signature(
    app: Application, tenant: Tenant, change: Callable[[Request], None], answer: tuple[int, str]
) -> None:
    request = tenant.request_for("put_upload")
    change(request)
    assert send_head(app, request, {}) == answer


@pytest.mark.parametrize(
    ("status", "answer"), [("ingested", (409, "upload_consumed")), (None, (404, "not_found"))]
)
def test_s35_no_byte_is_read_for_an_upload_that_is_not_open(
    app: Application, tenant: Tenant, status: str | None, answer: tuple[int, str]
) -> None:
    request = tenant.request_for("put_upload")
    if status is None:
        request.path["upload_id"] = unknown_id()
        sign_upload_request(tenant, request)
    else:
        upload: Upload = tenant.rows["upload"]
        upload.status = status
        factories.make(upload)
    assert send_head(app, request, {}) == answer


def test_s35_the_denial_before_the_body_is_one_audit_event(
    app: Application, tenant: Tenant, database: Database
) -> None:
    request = tenant.request_for("add_product_image")
    assert send_head(app, request, auth_headers(app, tenant.viewer))[0] == 403
    with database.transaction(write=False) as session:
        denied = session.scalars(select(AuditEvent).where(AuditEvent.outcome == Outcome.REFUSED)).all()
        assert [(event.action, event.actor_id) for event in denied] == [
            ("add_product_image", tenant.viewer.id)
        ]


@pytest.mark.parametrize("body", [{}, {"file_url": f"{BASE}/files/media/x", "type": "no type"}])
def test_s35_a_wrong_json_body_tells_a_caller_without_the_permission_nothing(
    body: dict[str, Any], app: Application, tenant: Tenant
) -> None:
    request = tenant.request_for("add_product_image_from_url").replace(body=body)
    assert request.send(app, auth_headers(app, tenant.viewer)).status == 403
    assert request.send(app, auth_headers(app, tenant.member)).status == 422


async def _read_all(messages: Iterator[tuple[float, bytes]], seconds: float) -> int:
    """Read a body of which each piece arrives after a pause; return the number of bytes."""

    async def receive() -> dict[str, Any]:
        pause, piece = next(messages, (60, b""))
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    return sum([len(chunk) async for chunk in read_chunks(receive, 100_000_000, seconds)])


def test_s35_a_fast_start_does_not_pay_for_a_pause() -> None:
    began = time.monotonic()
    # At the average rate of the whole body, the client could pause for 5 minutes.
    with pytest.raises(RequestTimeout):
        asyncio.run(_read_all(iter([(0, b"x" * 10_000_000)]), 0.2))
    assert 0.15 < time.monotonic() - began < 5


def test_s35_bytes_that_trickle_in_after_a_fast_start_time_out() -> None:
    pieces = [(0, b"x" * 10_000_000), *[(0.02, b"x")] * 1_000]
    began = time.monotonic()
    with pytest.raises(RequestTimeout):
        asyncio.run(_read_all(iter(pieces), 0.2))
    assert time.monotonic() - began < 5


def test_s35_a_steady_slow_client_is_served() -> None:
    pieces = [*[(0.05, b"x" * (MIN_BYTES_PER_SECOND // 5))] * 12, (0, b"")]
    assert asyncio.run(_read_all(iter(pieces), 0.4)) == 12 * (MIN_BYTES_PER_SECOND // 5)


def test_s35_the_time_that_the_server_needs_is_not_the_clients() -> None:
    async def read_slowly() -> int:
        messages = iter([b"x", b"x", b"x", b""])

        async def receive() -> dict[str, Any]:
            piece = next(messages)
            return {"type": "http.request", "body": piece, "more_body": bool(piece)}

        size = 0
        async for chunk in read_chunks(receive, 100, 0.1):
            await asyncio.sleep(0.15)
            size += len(chunk)
        return size

    assert asyncio.run(read_slowly()) == 3


@pytest.mark.parametrize(
    ("bodies", "is_rejected"),
    [
        ([("anna", "192.0.2.1", 150), ("anna", "192.0.2.2", 1)], True),
        ([("anna", "192.0.2.1", 150), ("ben", "192.0.2.1", 1)], True),
        ([("192.0.2.1", "192.0.2.1", 150), ("ben", "192.0.2.1", 1)], True),
        ([("anna", "192.0.2.1", 150), ("ben", "192.0.2.2", 150)], False),
        ([(f"account {n}", f"192.0.2.{n}", 100) for n in range(11)], True),
        ([(f"account {n}", f"192.0.2.{n}", 100) for n in range(10)], False),
    ],
)
def test_s35_unfinished_bodies_are_limited_by_account_by_address_and_in_total(
    bodies: list[tuple[str, str, int]], is_rejected: bool
) -> None:
    limits = UnfinishedBodies(per_account=150, per_address=150, total=1_000)

    def hold(rest: list[tuple[str, str, int]]) -> None:
        if rest:
            account, address, size = rest[0]
            with limits.track(Requester(account, address)) as count:
                count(size)
                hold(rest[1:])

    for _ in range(2):  # everything is released in between
        if is_rejected:
            with pytest.raises(TooManyBodyBytes) as rejected:
                hold(bodies)
            assert build_problem(rejected.value).limit is Limit.BODY_BYTES
        else:
            hold(bodies)
    assert not limits._held


def test_s35_an_account_has_two_large_bodies_of_json_in_progress() -> None:
    limits = UnfinishedBodies(per_account=10**9, per_address=10**9, total=10**9)
    account = Requester("account", "address")
    with limits.track(account, is_file=False) as first, limits.track(account, is_file=False) as second:
        for count in (first, second, first):
            count(900_000)
        second(200_000)
        with limits.track(account) as file, limits.track(account, is_file=False) as small:
            file(2_000_000)
            small(1_000_000)
            with pytest.raises(TooManyConcurrentRequests) as rejected:
                small(1)
            assert build_problem(rejected.value).limit is Limit.LARGE_JSON
        with limits.track(Requester("other", "address"), is_file=False) as other:
            other(1_000_001)
    with limits.track(account, is_file=False) as again:
        again(1_000_001)
    assert not limits._held
    assert not limits._large
