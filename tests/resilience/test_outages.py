"""The instruments of `make faults`: the check against the contract, and the proxy that breaks connections."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.resilience import customers
from tests.resilience.customers import Contract, Customers, Record
from tests.resilience.outages import Proxy
from tools.servers.http_recorder import StubResponse, run_http_recorder

PROBLEM = {
    "type": "https://api.example.com/api/v1/problems/unavailable",
    "title": "Service Unavailable",
    "status": 503,
    "detail": "The service is temporarily unavailable",
    "code": "unavailable",
    "request_id": "0123456789abcdef0123",
}
HEADERS = {
    "content-type": "application/problem+json",
    "x-request-id": "0123456789abcdef0123",
    "retry-after": "5",
}


@pytest.mark.parametrize(
    ("status", "changes", "part"),
    [
        (503, {}, None),
        (418, {}, "the status 418"),
        (503, {"title": None}, "title"),
        (503, {"code": 7}, "code"),
    ],
)
def test_a_response_that_the_contract_does_not_declare_is_reported(
    contract: Contract, status: int, changes: dict[str, object], part: str | None
) -> None:
    request = httpx.Request("POST", "http://127.0.0.1/api/v1/products/?organization_id=x")
    body = PROBLEM | changes
    mismatch = contract.find_mismatch(httpx.Response(status, json=body, headers=HEADERS, request=request))
    assert (part in mismatch) if part is not None and mismatch is not None else mismatch is part


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract()


def test_the_proxy_breaks_connections_and_forwards_again() -> None:
    with run_http_recorder(lambda request: StubResponse(200, b"content")) as server:
        proxy = Proxy("127.0.0.1", server.port)
        url = f"http://127.0.0.1:{proxy.port}/"
        try:
            assert httpx.get(url).content == b"content"
            proxy.leave()
            with pytest.raises(httpx.TransportError):
                httpx.get(url)
            proxy.come_back()
            assert httpx.get(url).content == b"content"
            proxy.delay = 0.2
            assert httpx.get(url).elapsed.total_seconds() > 0.2
        finally:
            proxy.close()


@pytest.mark.parametrize(
    ("progress", "waiting", "status", "late"),
    [
        ([0] * 3, [], "completed", 0),
        (range(60), [], "completed", 1),
        ([0] * 60, range(200, 0, -1), "completed", 1),
        ([0] * 60, [], "running", 0),
    ],
    ids=["in time", "late", "behind others", "lost"],
)
def test_a_generation_is_late_as_long_as_it_makes_progress_and_lost_when_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, progress: Any, waiting: Any, status: str, late: int
) -> None:
    counts = iter(waiting)
    states = iter([{"id": "a", "status": "running", "progress": number} for number in progress])
    clock = iter(range(1_000))
    monkeypatch.setattr(customers.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(customers.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(customers, "RECOVERY_SECONDS", 20)

    def get(_self: Customers, path: str) -> dict[str, Any]:
        is_list = "?" in path
        return {"count": next(counts, 0)} if is_list else next(states, {"id": "a", "status": "completed"})

    monkeypatch.setattr(Customers, "_get", get)
    working = Customers.__new__(Customers)
    working.record, working._scope = Record(), ""
    assert working._wait_for("a") == status
    assert len(working.record.late) == late
