"""Tests of the Python client against a server that fails: retries, keys, renewed tokens, cut downloads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest

import sartiq
from sartiq import _retries, _transport
from tests.clients.clients_of_both_kinds import KINDS, Kind, run_step
from tests.clients.scripted_server import Answer, Drop, ScriptedServer, problem
from tools.servers.http_recorder import RecordedRequest

BRAND = {
    "id": "01990000-5eed-7000-8000-000300000001", "created_at": "2026-11-02T09:15:00Z",
    "updated_at": "2026-11-02T09:15:00Z", "owner_id": "01990000-5eed-7000-8000-000100000001",
    "organization_id": None, "name": "Linea", "slug": "linea", "description": None, "logo_url": None,
    "website": None, "default_background_preset_id": None, "default_resolution_preset_id": None,
    "default_guidelines_id": None, "default_style_id": None, "external_id": None, "metadata": {},
}  # fmt: skip

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retries, "FIRST_DELAY", 0.01)


def create_brand(client: Any) -> Any:
    return client.brands.create_brand(name="Linea")


def approve(client: Any) -> Any:
    return client.predictions.approve_prediction("p1")


@pytest.mark.parametrize(
    "failure",
    [
        problem(429, "rate_limited", Retry_After="0"),
        problem(503, "unavailable", Retry_After="0"),
        problem(409, "idempotency_key_in_progress", Retry_After="0"),
        Answer(502, b"<html>Bad gateway</html>"),
        Drop(),
        Answer(201, b'{"id": "0199', announced=500),
    ],
    ids=["429", "503", "409 in progress", "502 of a proxy", "no response", "half a response"],
)
def test_a_request_with_a_key_is_sent_again_with_the_same_key(
    scripted_server: ScriptedServer, kind: Kind, failure: Any
) -> None:
    scripted_server.answer_with(failure, failure, Answer(201, BRAND))
    brand = run_step(kind, create_brand, base_url=scripted_server.url, token="sk_test")
    assert brand.name == "Linea"
    assert len(scripted_server.requests) == 3
    assert len({request.headers["idempotency-key"] for request in scripted_server.requests}) == 1
    assert {request.body for request in scripted_server.requests} == {b'{"name": "Linea"}'}


def test_two_calls_have_two_keys(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(Answer(201, BRAND))
    for _ in range(2):
        run_step(kind, create_brand, base_url=scripted_server.url, token="sk_test")
    assert len({request.headers["idempotency-key"] for request in scripted_server.requests}) == 2


def test_your_own_key_is_sent(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(Answer(201, BRAND))
    run_step(
        kind,
        lambda client: client.brands.create_brand(name="Linea", idempotency_key="mine"),
        base_url=scripted_server.url,
        token="sk_test",
    )
    assert scripted_server.requests[0].headers["idempotency-key"] == "mine"


@pytest.mark.parametrize("failure", [Drop(), problem(503, "unavailable")], ids=["no response", "503"])
def test_a_request_without_a_key_that_may_have_been_executed_is_sent_once(
    scripted_server: ScriptedServer, kind: Kind, failure: Any
) -> None:
    scripted_server.answer_with(failure)
    with pytest.raises((sartiq.APIConnectionError, sartiq.errors.ServerError)):
        run_step(kind, approve, base_url=scripted_server.url, token="sk_test")
    assert len(scripted_server.requests) == 1


def test_a_request_without_a_key_is_sent_again_after_429(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(problem(429, "rate_limited", Retry_After="0"), problem(404, "not_found"))
    with pytest.raises(sartiq.NotFoundError):
        run_step(kind, approve, base_url=scripted_server.url, token="sk_test")
    assert len(scripted_server.requests) == 2


def test_other_problems_are_not_repeated(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(problem(409, "sku_taken"))
    with pytest.raises(sartiq.ConflictError) as raised:
        run_step(kind, create_brand, base_url=scripted_server.url, token="sk_test")
    error = raised.value
    assert (error.status, error.code, error.request_id) == (409, "sku_taken", "request-1")
    assert str(error) == "409 sku_taken: It did not work (request request-1)"
    assert len(scripted_server.requests) == 1


def test_the_number_of_retries_is_limited(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(problem(429, "rate_limited", Retry_After="0"))
    with pytest.raises(sartiq.RateLimitError):
        run_step(kind, create_brand, base_url=scripted_server.url, token="sk_test", max_retries=2)
    assert len(scripted_server.requests) == 3


def test_a_retry_after_of_an_hour_is_an_error_at_once(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(problem(429, "rate_limited", Retry_After="3600"))
    with pytest.raises(sartiq.RateLimitError) as raised:
        run_step(kind, create_brand, base_url=scripted_server.url, token="sk_test")
    assert raised.value.headers["retry-after"] == "3600"
    assert len(scripted_server.requests) == 1


class Session:
    """A server on which each access token works for a number of requests."""

    def __init__(self, requests_per_token: int, *, refresh_works: bool = True) -> None:
        self.left: dict[str, int] = {}
        self.requests_per_token, self.refresh_works = requests_per_token, refresh_works
        self.sign_ins = self.refreshes = 0
        self._lock = threading.Lock()

    def __call__(self, request: RecordedRequest) -> Answer:
        with self._lock:
            if request.path.endswith("/login/access-token"):
                self.sign_ins += 1
                return self._issue()
            if request.path.endswith("/login/refresh-token"):
                self.refreshes += 1
                return self._issue() if self.refresh_works else problem(401, "invalid_token")
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self.left.get(token, 0) <= 0:
                return problem(401, "token_expired")
            self.left[token] -= 1
            return Answer(201, BRAND)

    def _issue(self) -> Answer:
        token = f"access-{self.sign_ins}-{self.refreshes}"
        self.left[token] = self.requests_per_token
        return Answer(200, {"access_token": token, "token_type": "bearer", "expires_in": 3600,
                            "refresh_token": f"refresh-{token}"})  # fmt: skip


def test_an_expired_token_is_renewed_and_the_request_sent_again(
    scripted_server: ScriptedServer, kind: Kind
) -> None:
    session = Session(requests_per_token=1)
    scripted_server.answer_with(session)
    options = {"base_url": scripted_server.url, "email": "demo@example.com", "password": "secret"}

    async def create_three(client: Any) -> None:
        for _ in range(3):
            await create_brand(client)

    def create_three_now(client: Any) -> None:
        for _ in range(3):
            create_brand(client)

    run_step(kind, create_three_now if kind == "sync" else create_three, **options)
    assert (session.sign_ins, session.refreshes) == (1, 2)


def test_the_client_signs_in_again_when_the_refresh_token_is_rejected(
    scripted_server: ScriptedServer, kind: Kind
) -> None:
    session = Session(requests_per_token=1, refresh_works=False)
    scripted_server.answer_with(session)
    options = {"base_url": scripted_server.url, "email": "demo@example.com", "password": "secret"}

    async def create_two(client: Any) -> None:
        await create_brand(client)
        await create_brand(client)

    def create_two_now(client: Any) -> None:
        create_brand(client)
        create_brand(client)

    run_step(kind, create_two_now if kind == "sync" else create_two, **options)
    assert (session.sign_ins, session.refreshes) == (2, 1)


def test_a_sign_in_sends_the_code_that_the_server_asks_for(
    scripted_server: ScriptedServer, kind: Kind
) -> None:
    asked = problem(401, "second_factor_required")
    session, asks = Session(requests_per_token=1), replace(asked, body={**asked.body, "challenge": "sf_1"})
    options = {"base_url": scripted_server.url, "email": "demo@example.com", "password": "secret"}
    for otp in ("492039", lambda: "492039"):
        scripted_server.answer_with(asks, session)
        run_step(kind, lambda client, otp=otp: client.sign_in(otp=otp), **options)
        assert parse_qs(scripted_server.requests[-1].body.decode()) == {
            "challenge": ["sf_1"],
            "otp": ["492039"],
            "grant_type": ["password"],
        }
    scripted_server.answer_with(asks)
    with pytest.raises(sartiq.AuthenticationError) as raised:
        run_step(kind, lambda client: client.sign_in(), **options)
    assert raised.value.code == "second_factor_required"


def test_a_rejected_api_key_is_an_error_at_once(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(problem(401, "invalid_token"))
    with pytest.raises(sartiq.AuthenticationError):
        run_step(kind, create_brand, base_url=scripted_server.url, token="sk_deleted")
    assert len(scripted_server.requests) == 1


def test_threads_and_tasks_renew_a_token_once(scripted_server: ScriptedServer, kind: Kind) -> None:
    session = Session(requests_per_token=100)
    scripted_server.answer_with(session)

    def create_in_threads(client: Any) -> None:
        create_brand(client)
        session.left.clear()  # the server forgets the token
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda _: create_brand(client), range(30)))

    async def create_in_tasks(client: Any) -> None:
        await create_brand(client)
        session.left.clear()
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(create_brand, client)

    options = {"base_url": scripted_server.url, "email": "demo@example.com", "password": "secret"}
    run_step(kind, create_in_threads if kind == "sync" else create_in_tasks, **options)
    assert (session.sign_ins, session.refreshes) == (1, 1)


def save_image(folder: Path) -> Any:
    path = folder / "image.webp"

    async def save(client: Any) -> Path:
        download = await client.predictions.get_prediction_image("p1")
        return await download.save(path)

    def save_now(client: Any) -> Path:
        return client.predictions.get_prediction_image("p1").save(path)

    return {"sync": save_now, "async": save}


def test_a_download_that_breaks_off_starts_again(
    scripted_server: ScriptedServer, kind: Kind, tmp_path: Path
) -> None:
    image = Answer(200, b"x" * 1000, {"Content-Type": "image/webp"})
    scripted_server.answer_with(
        Answer(200, b"x" * 100, {"Content-Type": "image/webp"}, announced=1000), image
    )
    path = run_step(kind, save_image(tmp_path)[kind], base_url=scripted_server.url, token="sk_test")
    assert path.read_bytes() == b"x" * 1000
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_download_leaves_the_earlier_file(
    scripted_server: ScriptedServer, kind: Kind, tmp_path: Path
) -> None:
    (tmp_path / "image.webp").write_bytes(b"earlier")
    scripted_server.answer_with(Answer(200, b"x" * 100, announced=1000))
    with pytest.raises(sartiq.APIConnectionError):
        run_step(
            kind, save_image(tmp_path)[kind], base_url=scripted_server.url, token="sk_test", max_retries=1
        )
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


def test_an_upload_to_another_host_gets_no_token(
    scripted_server: ScriptedServer, kind: Kind, tmp_path: Path
) -> None:
    path = tmp_path / "mug.jpg"
    path.write_bytes(b"photo")
    target = {"upload_url": f"{scripted_server.url}/bucket/key?signature=1", "file_url": "https://example.com/mug",
              "upload_method": "PUT", "expires_in_seconds": 900, "max_file_size": 1000}  # fmt: skip
    scripted_server.answer_with(Answer(200, target), Drop(), Answer(204))
    url = run_step(kind, lambda client: client.upload(path), base_url=scripted_server.url, token="sk_test")
    assert url == "https://example.com/mug"
    _, first, second = scripted_server.requests
    for upload in (first, second):
        assert (upload.method, upload.path, upload.body) == ("PUT", "/bucket/key?signature=1", b"photo")
        assert upload.headers["content-type"] == "image/jpeg"
        assert "authorization" not in upload.headers


def test_a_deprecated_operation_is_logged_once(
    scripted_server: ScriptedServer,
    kind: Kind,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_transport, "_warned", set())
    documentation, successor = "/api/v1/docs#/brands/create_brand", "/api/v1/labels/"
    link = f'<{documentation}>; rel="deprecation"; type="text/html", <{successor}>; rel="successor-version"'
    headers = {"Deprecation": "@1772323200", "Sunset": "Mon, 01 Mar 2027 12:00:00 GMT", "Link": link}
    deprecated = replace(Answer(201, BRAND), headers=headers)
    scripted_server.answer_with(deprecated, deprecated)
    for _ in range(2):
        run_step(kind, create_brand, base_url=scripted_server.url, token="sk_test")
    (message,) = caplog.messages
    assert message == (
        "POST /brands/ is deprecated since 2026-03-01, and ends on Mon, 01 Mar 2027 12:00:00 GMT. "
        f"Use {successor}. See {documentation}."
    )
