"""The access log, metrics and traces of requests, and the metric of contract defects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from handlers.pipeline.middleware.observability import ObservabilityMiddleware
from handlers.pipeline.request_context import REQUEST_CONTEXT
from handlers.pipeline.use_counter import UseCounter
from studio.infrastructure.telemetry.logs import ContextFilter
from tests.contract.mini.server import USER
from tests.support.client import ClientResponse, send_request

Call = Callable[..., ClientResponse]
Growth = Callable[..., float]
WIDGET = "01990000-5eed-7000-8000-000400000001"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def growth() -> Growth:
    """Return a function that returns the growth of a metric since its first call."""
    first_values: dict[Any, float] = {}

    def measure(name: str, **labels: str) -> float:
        now = REGISTRY.get_sample_value(name, labels) or 0.0
        key = (name, *labels.items())
        return now - first_values.setdefault(key, now)

    return measure


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """Yield the access log records of this test, as the formatter gets them."""

    class ListHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    records: list[logging.LogRecord] = []
    handler, logger = ListHandler(), logging.getLogger("sartiq.access")
    handler.addFilter(ContextFilter())
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel("INFO")
    yield records
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("status", "status"), ("media-type", "media_type"), ("body", "body"), ("header-missing", "header"),
        ("body-on-204", "body"), ("unserializable", "encoding"), ("bytes", "body"),
        ("undocumented-problem", "status"),
    ],
)  # fmt: skip
def test_an_invalid_response_counts_one_contract_defect(
    call: Call, growth: Growth, how: str, kind: str
) -> None:
    name, labels = "sartiq_contract_defects_total", {"operation": "misbehave", "kind": kind}
    growth(name, **labels)
    assert call("POST", f"/misbehave/{how}").status == 500
    assert growth(name, **labels) == 1


def test_a_valid_response_counts_no_defect(call: Call) -> None:
    def defects() -> float:
        (family,) = [family for family in REGISTRY.collect() if family.name == "sartiq_contract_defects"]
        return sum(sample.value for sample in family.samples)

    before = defects()
    assert call("POST", "/misbehave/well").status == 200
    assert call("POST", "/misbehave/crash").status == 500
    assert defects() == before


def test_values_of_an_invalid_response_are_not_logged(
    mini: Any, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    assert call("POST", "/misbehave/body").status == 500
    assert "/name: the value is shorter than" in caplog.text


def test_requests_are_counted_by_operation_method_and_status(mini: Any, call: Call, growth: Growth) -> None:
    name = "sartiq_requests_total"
    expected = [
        ({"operation": "get_my_widget", "method": "GET", "status": "200"}, 2),
        ({"operation": "get_widget", "method": "GET", "status": "404"}, 1),
        ({"operation": "list_widgets", "method": "GET", "status": "401"}, 1),
        ({"operation": "unmatched", "method": "GET", "status": "404"}, 2),
        ({"operation": "unmatched", "method": "other", "status": "405"}, 2),
    ]
    for labels, _ in expected:
        growth(name, **labels)
    growth("sartiq_request_duration_seconds_count", operation="get_my_widget")
    for _ in range(2):
        call("GET", "/widgets/me")
    call("GET", f"/widgets/{WIDGET[:-1]}2")
    send_request(mini, "GET", "/api/v1/widgets/")
    for path in ("/nothing", "/api/v1/nothing/at/all"):
        send_request(mini, "GET", path)
    for method in ("BREW", "PROPFIND"):
        send_request(mini, method, "/api/v1/widgets/")
    assert [growth(name, **labels) for labels, _ in expected] == [count for _, count in expected]
    assert growth("sartiq_request_duration_seconds_count", operation="get_my_widget") == 2
    assert REGISTRY.get_sample_value("sartiq_requests_in_progress") == 0


@pytest.mark.parametrize(("aborts", "observed"), [(False, 1), (True, 0)])
def test_the_latency_excludes_long_polling_and_aborted_requests(
    growth: Growth, aborts: bool, observed: int
) -> None:
    async def wait_and_respond(scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(0.2)
        scope[REQUEST_CONTEXT].wait_seconds = 0.2
        if not aborts:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        # The time in which a slow client reads the response is not latency either.
        await asyncio.sleep(0.2)

    async def send(_message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    count, total = (f"sartiq_request_duration_seconds_{name}" for name in ("count", "sum"))
    status = {"operation": "unmatched", "method": "GET", "status": "aborted" if aborts else "200"}
    for name in (count, total):
        growth(name, operation="unmatched")
    growth("sartiq_requests_total", **status)
    asyncio.run(
        ObservabilityMiddleware(wait_and_respond, base_path="", count_use=UseCounter({}).count)(
            scope, None, send
        )
    )
    assert growth("sartiq_requests_total", **status) == 1
    assert growth(count, operation="unmatched") == observed
    assert growth(total, operation="unmatched") < 0.15


def test_the_access_log_has_caller_operation_and_status(call: Call, lines: list[Any]) -> None:
    call("GET", f"/widgets/{WIDGET}?limit=hunter2", {"x-request-id": "line-2"})
    (record,) = lines
    assert record.getMessage().startswith(f"GET /api/v1/widgets/{WIDGET} 422 ")
    logged = (
        record.request_id,
        record.operation_id,
        record.user_id,
        record.method,
        record.path,
        record.status,
    )
    assert logged == ("line-2", "get_widget", USER, "GET", "/api/v1/widgets/{widget_id}", 422)
    assert record.duration_ms > 0
    assert "hunter2" not in str(vars(record))


def test_a_request_continues_the_trace_of_its_traceparent(call: Call, lines: list[Any]) -> None:
    call("GET", "/widgets/me", {"traceparent": f"00-{TRACE}-{SPAN}-01"})
    call("GET", "/widgets/me", {"traceparent": f"00-{TRACE}-{'0' * 16}-01"})
    call("GET", "/widgets/me")
    continued, invalid, new = lines
    assert continued.trace_id == TRACE
    assert continued.span_id != SPAN
    assert len({TRACE, invalid.trace_id, new.trace_id}) == 3
    assert {len(record.trace_id) for record in lines} == {32}
    assert {len(record.span_id) for record in lines} == {16}
