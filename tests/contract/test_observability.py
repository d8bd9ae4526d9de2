"""What a request leaves behind for those who watch: a line, its measures, and each broken answer counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from handlers.pipeline.middleware.observability import ObservabilityMiddleware
from handlers.pipeline.request_context import REQUEST_CONTEXT
from studio.telemetry.logs import ContextFilter
from tests.contract.mini.server import USER
from tests.support.client import ClientResponse, send_request

Call = Callable[..., ClientResponse]
Growth = Callable[..., float]
WIDGET = "01990000-5eed-7000-8000-000400000001"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def growth() -> Growth:
    """How much a sample has grown since it was asked for first."""
    seen: dict[Any, float] = {}

    def grown(name: str, **labels: str) -> float:
        now = REGISTRY.get_sample_value(name, labels) or 0.0
        key = (name, *labels.items())
        return now - seen.setdefault(key, now)

    return grown


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """The access lines of this test, as the formatter gets them."""

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    kept: list[logging.LogRecord] = []
    handler, logger = Kept(), logging.getLogger("sartiq.access")
    handler.addFilter(ContextFilter())
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel("INFO")
    yield kept
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("status", "status"), ("media-type", "media_type"), ("body", "body"), ("header-missing", "header"),
        ("body-on-204", "body"), ("unserialisable", "encoding"), ("bytes", "body"),
        ("undocumented-problem", "status"),
    ],
)  # fmt: skip
def test_a_broken_answer_counts_one_contract_defect(call: Call, growth: Growth, how: str, kind: str) -> None:
    name, labels = "sartiq_contract_defects_total", {"operation": "misbehave", "kind": kind}
    growth(name, **labels)
    assert call("POST", f"/misbehave/{how}").status == 500
    assert growth(name, **labels) == 1


def test_an_answer_that_keeps_the_contract_counts_no_defect(call: Call) -> None:
    def defects() -> float:
        (family,) = [family for family in REGISTRY.collect() if family.name == "sartiq_contract_defects"]
        return sum(sample.value for sample in family.samples)

    before = defects()
    assert call("POST", "/misbehave/well").status == 200
    assert call("POST", "/misbehave/crash").status == 500
    assert defects() == before


def test_what_a_broken_answer_holds_stays_out_of_the_log(
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


@pytest.mark.parametrize(("leaves", "observed"), [(False, 1), (True, 0)])
def test_a_latency_leaves_out_what_the_caller_asked_to_wait_and_callers_that_went_away(
    growth: Growth, leaves: bool, observed: int
) -> None:
    async def wait_and_answer(scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(0.2)
        scope[REQUEST_CONTEXT].wait_seconds = 0.2
        if not leaves:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        # What a slow client takes to read is not our latency either.
        await asyncio.sleep(0.2)

    async def send(_message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    count, total = (f"sartiq_request_duration_seconds_{name}" for name in ("count", "sum"))
    status = {"operation": "unmatched", "method": "GET", "status": "aborted" if leaves else "200"}
    for name in (count, total):
        growth(name, operation="unmatched")
    growth("sartiq_requests_total", **status)
    asyncio.run(ObservabilityMiddleware(wait_and_answer, base_path="")(scope, None, send))
    assert growth("sartiq_requests_total", **status) == 1
    assert growth(count, operation="unmatched") == observed
    assert growth(total, operation="unmatched") < 0.15


def test_the_line_of_a_request_tells_who_asked_for_what(call: Call, lines: list[Any]) -> None:
    call("GET", f"/widgets/{WIDGET}?limit=hunter2", {"x-request-id": "line-2"})
    (record,) = lines
    assert record.getMessage().startswith(f"GET /api/v1/widgets/{WIDGET} 422 ")
    told = (record.request_id, record.operation_id, record.user_id, record.method, record.path, record.status)
    assert told == ("line-2", "get_widget", USER, "GET", "/api/v1/widgets/{widget_id}", 422)
    assert record.duration_ms > 0
    assert "hunter2" not in str(vars(record))


def test_a_request_goes_on_with_the_trace_that_it_comes_with(call: Call, lines: list[Any]) -> None:
    call("GET", "/widgets/me", {"traceparent": f"00-{TRACE}-{SPAN}-01"})
    call("GET", "/widgets/me", {"traceparent": f"00-{TRACE}-{'0' * 16}-01"})
    call("GET", "/widgets/me")
    continued, refused, begun = lines
    assert continued.trace_id == TRACE
    assert continued.span_id != SPAN
    assert len({TRACE, refused.trace_id, begun.trace_id}) == 3
    assert {len(record.trace_id) for record in lines} == {32}
    assert {len(record.span_id) for record in lines} == {16}
