"""Test logs, metrics and trace contexts within one process; tests/e2e covers real processes."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
import yaml
from opentelemetry.trace import format_span_id, format_trace_id
from prometheus_client import REGISTRY
from sqlalchemy import func, literal, select, table
from sqlalchemy.exc import DBAPIError

import studio.infrastructure.telemetry
from db.engine import build_engine
from db.libpq.statements import Query
from db.models.generations import Generation, GenerationStatus
from db.session import Database
from studio.generations.lifecycle import transition
from studio.generations.worker import queue
from studio.generations.worker.executor import GenerationExecutor
from studio.infrastructure.http_client import HttpClientError, SafeHttpClient
from studio.infrastructure.settings import InvalidSettings, Settings
from studio.infrastructure.storage import LocalDisk, media_folder
from studio.infrastructure.telemetry import traces
from studio.infrastructure.telemetry.context import (
    LogContext,
    current_trace,
    current_trace_headers,
    current_traceparent,
    extract_trace,
    log_context,
    new_child,
    new_trace,
    parse_traceparent,
    to_headers,
    use_trace,
)
from studio.infrastructure.telemetry.logs import (
    ContextFilter,
    JsonFormatter,
    TextFormatter,
    configure_logging,
)
from studio.infrastructure.telemetry.metrics import (
    AuditCollector,
    DiskCollector,
    MetricsServer,
    PoolCollector,
    QueueCollector,
    describe_metrics,
)
from tests.architecture.sources import ROOT
from tests.support.queues import LEASE, PAST, build_worker
from tests.support.scenarios import PhotographedProduct, create_pending_generation
from tests.support.servers.webhook_receiver import (
    WebhookReceiver,
    make_endpoint,
    publish_event,
    send_next_delivery,
)
from tools.servers.databases import UNREACHABLE_URL
from tools.servers.http_recorder import StubResponse, run_http_recorder

ALERTS = Path(studio.infrastructure.telemetry.__file__).parent / "alerts.yml"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-a-later-version", True),
    ],
)
def test_a_traceparent_is_parsed_as_the_standard_requires(text: str, sampled: bool) -> None:
    trace = parse_traceparent(text)
    assert trace is not None
    assert (format_trace_id(trace.trace_id), format_span_id(trace.span_id)) == (TRACE, SPAN)
    assert trace.trace_flags.sampled == sampled
    child = new_child(trace)
    assert (child.trace_id, child.trace_flags) == (trace.trace_id, trace.trace_flags)
    assert child.span_id != trace.span_id
    continued = parse_traceparent(to_headers(child)["traceparent"])
    assert continued is not None
    assert (continued.trace_id, continued.span_id) == (child.trace_id, child.span_id)


@pytest.mark.parametrize(
    "text",
    [
        None, "", "nonsense", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1", f"0-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-{'x' * 600}",
    ],
)  # fmt: skip
def test_a_malformed_traceparent_is_none(text: str | None) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    ("headers", "tracestate"),
    [
        (["congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"], "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
        (["congo=1", " ,rojo=2 "], "congo=1,rojo=2"),
        (["congo=1,rojo"], None),
        (["congo=1,congo=2"], None),
        ([",".join(f"vendor{number}=1" for number in range(33))], None),
        (["congo=" + "x" * 600], None),
        ([" " * 60_000 + "x"], None),
    ],
)
def test_a_tracestate_is_propagated_with_its_trace_unless_it_is_malformed(
    headers: list[str], tracestate: str | None
) -> None:
    parent = extract_trace({"traceparent": [f"00-{TRACE}-{SPAN}-01"], "tracestate": headers})
    assert parent is not None
    with traces.start_root_span("GET", traces.SERVER, parent, {}), traces.start_span("part"):
        propagated = current_trace_headers()
    assert propagated["traceparent"].startswith(f"00-{TRACE}-")
    assert propagated.get("tracestate") == tracestate


def test_two_traceparents_start_a_new_trace() -> None:
    text = f"00-{TRACE}-{SPAN}-01"
    assert extract_trace({"traceparent": [text, text]}) is None
    assert extract_trace({"tracestate": ["congo=1"]}) is None


def test_a_stored_trace_context_fits_its_column() -> None:
    parent = extract_trace({"traceparent": [f"00-{TRACE}-{SPAN}-01"], "tracestate": ["congo=1"]})
    assert parent is not None
    with use_trace(parent):
        stored = current_traceparent()
    assert stored == f"00-{TRACE}-{SPAN}-01"
    assert len(stored) <= Generation.__table__.c.trace_context.type.length


def test_a_malformed_trace_header_is_not_logged() -> None:
    configured = logging.getLogger("opentelemetry.trace.span")
    configure_logging("INFO", "json", "sartiq-test")
    try:
        assert not configured.isEnabledFor(logging.WARNING)
        assert logging.getLogger("opentelemetry.exporter").isEnabledFor(logging.WARNING)
    finally:
        logging.getLogger("opentelemetry.trace").setLevel(logging.NOTSET)


def build_record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    """Return a log record with the fields of the current context."""
    logger = logging.getLogger("studio.test")
    record = logger.makeRecord(logger.name, logging.INFO, "x.py", 1, message, arguments, None, extra=extra)
    assert ContextFilter().filter(record)
    return record


def test_a_json_line_has_the_fields_of_its_context_and_none_that_a_library_adds() -> None:
    trace = new_trace()
    work = LogContext("request-1", "get_brand", "user-1", "organization-1", "generation-1")
    with log_context(work), use_trace(trace):
        record = build_record("%s was\nread", "it", status=200, arguments_of_the_task="hunter2")
    line = JsonFormatter("sartiq-api").format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("timestamp"))
    assert fields == {
        "level": "INFO",
        "logger": "studio.test",
        "message": "it was\nread",
        "service": "sartiq-api",
        "request_id": "request-1",
        "trace_id": format_trace_id(trace.trace_id),
        "span_id": format_span_id(trace.span_id),
        "user_id": "user-1",
        "org_id": "organization-1",
        "operation_id": "get_brand",
        "generation_id": "generation-1",
        "status": 200,
    }


def test_a_json_line_is_exact_for_quotes_other_scripts_and_missing_fields() -> None:
    record = build_record(
        'say "hi" \\ \n\x00 %s', "ü 漢 😀", path='/ä"', status=0, address=None, limit="rate"
    )
    record.created = 1_700_000_000.1239
    assert JsonFormatter("sartiq-äpi").format(record) == (
        '{"timestamp":"2023-11-14T22:13:20.123Z","level":"INFO","logger":"studio.test",'
        '"message":"say \\"hi\\" \\\\ \\n\\u0000 ü 漢 😀","service":"sartiq-äpi","limit":"rate",'
        '"path":"/ä\\"","status":0}'
    )


def test_an_exception_is_a_field_of_its_json_line() -> None:
    record = build_record("it failed")
    try:
        raise ValueError("a reason")
    except ValueError:
        record.exc_info = sys.exc_info()
    fields = json.loads(JsonFormatter("sartiq-api").format(record))
    assert fields["exception"].startswith("Traceback")
    assert fields["exception"].endswith("ValueError: a reason")
    assert "request_id" not in fields


def test_the_log_format_is_lines_in_development_and_json_elsewhere() -> None:
    secret = {"SECRET_KEY": "a secret of tests that is long enough for every algorithm"}
    formats = {
        name: Settings.from_environment({"SARTIQ_ENV": name, **secret, "MAIL": "off"}).log_format
        for name in ("development", "test", "production")
    }
    assert formats == {"development": "lines", "test": "json", "production": "json"}
    assert Settings.from_environment({"LOG_FORMAT": "json"}).log_format == "json"
    with pytest.raises(InvalidSettings, match="LOG_FORMAT must be one of json, lines"):
        Settings.from_environment({"LOG_FORMAT": "xml"})


def test_a_text_line_names_its_request() -> None:
    with log_context(LogContext("request-1")):
        assert "INFO [request-1] studio.test: read" in TextFormatter().format(build_record("read"))
    assert "INFO [-] studio.test: read" in TextFormatter().format(build_record("read"))


def test_a_database_error_does_not_contain_parameter_values(committing_database: Database) -> None:
    missing = select(literal("hunter2")).select_from(table("missing"))
    with pytest.raises(DBAPIError) as raised, committing_database.transaction(write=False) as reading:
        reading.execute(missing)
    assert "missing" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_an_unavailable_collector_does_not_delay_requests_or_the_shutdown() -> None:
    tracing = traces.Tracing("http://127.0.0.1:9", "sartiq-test")
    tracing.start()
    began = time.monotonic()
    for _ in range(100):
        with traces.start_root_span("work", traces.SERVER, None, {}), traces.start_span("part"):
            pass
    tracing.stop()
    # An export takes up to 3 s before it fails, so a request that waited for it would exceed this limit.
    assert time.monotonic() - began < 10
    assert not traces.is_recording()


def test_without_a_collector_nothing_is_recorded_and_the_trace_is_still_propagated() -> None:
    traces.Tracing(None, "sartiq-test").start()
    parent = new_trace()
    with traces.start_root_span("work", traces.SERVER, parent, {}) as recorded, traces.start_span("part"):
        current = current_trace()
    assert not recorded.is_recording()
    assert current is not None
    assert (current.trace_id, current.span_id == parent.span_id) == (parent.trace_id, False)
    assert current_trace() is None


def sample_value(name: str, **labels: str) -> float:
    """Return the current value of a metric, 0 if it has none."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def counter_growth() -> dict[str, float]:
    """Return how much each counter of generations has grown since the test began."""

    class Growth(dict[str, float]):
        def __missing__(self, key: str) -> float:
            return self.now(key) - before[key]

        @staticmethod
        def now(key: str) -> float:
            if key == "recoveries":
                return sample_value("sartiq_lease_recoveries_total")
            if key == "timed":
                return sample_value("sartiq_generation_duration_seconds_count")
            return sample_value("sartiq_generations_total", outcome=key)

    before = {
        key: Growth.now(key) for key in ("completed", "failed", "canceled", "expired", "recoveries", "timed")
    }
    return Growth()


def test_a_generation_is_counted_once_when_its_final_status_is_committed(
    database: Database, scenario: PhotographedProduct, counter_growth: dict[str, float]
) -> None:
    create_pending_generation(database, scenario)
    lease = queue.GENERATIONS.lease_next(database, LEASE)
    assert lease is not None

    def fail_and_roll_back() -> None:
        with database.transaction(write=True):
            transition(queue.GENERATIONS.lock(lease), GenerationStatus.FAILED, queue.INTERNAL_ERROR)
            raise KeyError("the process is interrupted")

    with pytest.raises(KeyError):
        fail_and_roll_back()
    assert counter_growth["failed"] == 0
    queue.GENERATIONS.fail(database, lease, queue.INTERNAL_ERROR)
    assert (counter_growth["failed"], counter_growth["completed"], counter_growth["timed"]) == (1, 0, 0)


def test_log_lines_of_render_threads_have_the_generation_and_its_trace(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(ContextFilter())
    trace = new_trace()
    with use_trace(trace):
        generation_id = create_pending_generation(database, scenario)
    storage.delete_folder(media_folder(scenario.media.id))
    executor = GenerationExecutor(build_worker(database, storage), render_threads=1)
    assert executor.run_next()
    executor.close()
    (record,) = [record for record in caplog.records if "failed for good" in record.getMessage()]
    assert (record.generation_id, record.org_id, record.trace_id) == (
        str(generation_id), str(scenario.organization.id), format_trace_id(trace.trace_id),
    )  # fmt: skip
    assert record.span_id != format_span_id(trace.span_id)


def test_a_generation_taken_over_from_a_lost_worker_is_counted(
    database: Database, scenario: PhotographedProduct, counter_growth: dict[str, float]
) -> None:
    create_pending_generation(database, scenario)
    assert queue.GENERATIONS.lease_next(database, PAST) is not None
    assert counter_growth["recoveries"] == 0
    assert queue.GENERATIONS.lease_next(database, LEASE) is not None
    assert counter_growth["recoveries"] == 1


def test_every_attempt_to_deliver_a_webhook_is_counted_by_its_outcome(
    database: Database, receiver: WebhookReceiver
) -> None:
    name, outcomes = "sartiq_webhook_deliveries_total", ("delivered", "retried", "failed")
    before = {outcome: sample_value(name, outcome=outcome) for outcome in outcomes}
    calls = {
        outcome: sample_value("sartiq_outbound_calls_total", outcome=outcome) for outcome in ("2xx", "5xx")
    }
    receiver.responses = [StubResponse(), StubResponse(500)]
    for endpoint in (make_endpoint(receiver), make_endpoint(receiver)):
        publish_event(database, endpoint)
    while send_next_delivery(database, receiver):
        pass
    growth = {outcome: sample_value(name, outcome=outcome) - before[outcome] for outcome in outcomes}
    assert growth == {"delivered": 1, "retried": 1, "failed": 0}
    assert sample_value("sartiq_outbound_calls_total", outcome="5xx") - calls["5xx"] == 1
    assert sample_value("sartiq_outbound_calls_total", outcome="2xx") - calls["2xx"] == 1


def test_a_failed_outbound_request_is_counted_by_its_reason() -> None:
    with run_http_recorder(lambda request: StubResponse(body=b"too much")) as server:
        before = sample_value("sartiq_outbound_calls_total", outcome="too_large")
        with pytest.raises(HttpClientError):
            SafeHttpClient([server.host]).send("GET", server.url, timeout_seconds=5, max_bytes=1)
    assert sample_value("sartiq_outbound_calls_total", outcome="too_large") - before == 1


def test_a_metrics_port_in_use_stops_the_start_with_an_error(database: Database) -> None:
    with run_http_recorder() as listener:
        server = MetricsServer(
            Settings(metrics_host="127.0.0.1", metrics_port=listener.port, database_url=UNREACHABLE_URL),
            database,
        )
        with pytest.raises(OSError, match=f"the metrics cannot be served at 127.0.0.1:{listener.port}: "):
            server.start()
    server.stop()


def collect_samples(collector: QueueCollector) -> dict[str, float]:
    """Return the values of the queue metrics, by name and labels."""
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_queue_metrics_report_status_counts_and_oldest_age_and_are_cached(
    database: Database, scenario: PhotographedProduct
) -> None:
    collector = QueueCollector(database)
    create_pending_generation(database, scenario)
    first = collect_samples(collector)
    age = first.pop("sartiq_queue_oldest_pending_seconds")
    assert 0 <= age < 60
    assert first == {
        "sartiq_queue_depth/pending": 1,
        "sartiq_queue_depth/running": 0,
        "sartiq_queue_depth/canceling": 0,
        "sartiq_queue_leased": 0,
        "sartiq_queue_unleased": 0,
    }
    assert queue.GENERATIONS.lease_next(database, LEASE) is not None
    assert collect_samples(collector)["sartiq_queue_depth/pending"] == 1
    fresh = collect_samples(QueueCollector(database))
    assert (fresh["sartiq_queue_depth/pending"], fresh["sartiq_queue_depth/running"]) == (0, 1)
    assert fresh["sartiq_queue_oldest_pending_seconds"] == 0


def count_leased_and_unleased(database: Database) -> tuple[float, float]:
    samples = collect_samples(QueueCollector(database))
    return samples["sartiq_queue_leased"], samples["sartiq_queue_unleased"]


def test_s29_a_generation_that_no_worker_leases_for_a_minute_is_visible(
    database: Database, scenario: PhotographedProduct
) -> None:
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        create_pending_generation(database, scenario)
        clock.shift(60)
        assert count_leased_and_unleased(database) == (0, 0)
        clock.shift(1)
        assert count_leased_and_unleased(database) == (0, 1)
        assert queue.GENERATIONS.lease_next(database, timedelta(seconds=20)) is not None
        assert count_leased_and_unleased(database) == (1, 0)
        clock.shift(20)
        assert count_leased_and_unleased(database) == (0, 0)
        clock.shift(61)
        assert count_leased_and_unleased(database) == (0, 1)
        assert queue.GENERATIONS.lease_next(database, timedelta(seconds=20)) is not None
        assert count_leased_and_unleased(database) == (1, 0)


def test_a_generation_that_waits_for_its_next_attempt_is_neither_leased_nor_unleased(
    database: Database, scenario: PhotographedProduct
) -> None:
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        create_pending_generation(database, scenario)
        clock.shift(61)
        lease = queue.GENERATIONS.lease_next(database, timedelta(seconds=20))
        assert lease is not None
        assert queue.GENERATIONS.release(database, lease, counts_attempt=True)
        assert count_leased_and_unleased(database) == (0, 0)
        clock.shift(70)
        assert count_leased_and_unleased(database) == (0, 1)


def test_queue_metrics_are_absent_while_the_database_is_unavailable(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    empty = Database(build_engine(empty_database_url))
    assert list(QueueCollector(empty).collect()) == []
    assert "queue metrics unavailable" in caplog.text
    empty.dispose()
    unreachable = Database(build_engine(UNREACHABLE_URL))
    assert list(AuditCollector(unreachable).collect()) == []
    assert "metrics of the audit log unavailable" in caplog.text
    unreachable.dispose()


def test_the_connections_of_reads_and_of_threads_count(database_url: str) -> None:
    database = Database(build_engine(database_url, pool_size=3), read_connections=2)

    def measure() -> list[float]:
        return [family.samples[0].value for family in PoolCollector(database).collect()]

    async def read() -> list[float]:
        reading = asyncio.create_task(database.fetch([Query(select(func.pg_sleep(0.3)), {})]))
        try:
            while database.reading_connections == 0:
                await asyncio.sleep(0.01)
            return measure()
        finally:
            await reading
            await database.close_reader()

    assert measure() == [0, 5]
    with database.transaction(write=False) as session:
        session.execute(select(1))
        assert asyncio.run(read()) == [2, 5]
    assert measure() == [0, 5]
    database.dispose()


def list_metric_labels() -> dict[str, tuple[str, ...]]:
    """Return the labels of each metric of this project, by its name in alert rules."""
    found = {}
    for collector in list(REGISTRY._collector_to_names):
        name = getattr(collector, "_name", "")
        if name.startswith("sartiq_"):
            suffix = "_total" if collector._type == "counter" else ""
            found[name + suffix] = tuple(collector._labelnames)
    database = Database(build_engine(UNREACHABLE_URL))
    collectors = (
        QueueCollector(database), PoolCollector(database), AuditCollector(database), DiskCollector(ROOT),
    )  # fmt: skip
    for family in (family for collector in collectors for family in collector.describe()):
        found[family.name] = ("status",) if family.name == "sartiq_queue_depth" else ()
    return found


def test_the_reference_page_has_every_metric_with_its_labels() -> None:
    # `tests/architecture/test_parity.py` compares the page with these descriptions.
    described = {metric.name: metric.labels for metric in describe_metrics()}
    assert described == list_metric_labels()
    for metric in describe_metrics():
        assert metric.kind in ("counter", "gauge", "histogram")
        assert not metric.meaning.endswith(".")


def test_the_page_about_observability_names_only_metrics_that_exist() -> None:
    page = (ROOT / "docs/operations/observability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(sartiq_\w+)`", page))
    assert named <= set(list_metric_labels())
    assert len(named) >= 4


def test_no_label_identifies_a_tenant() -> None:
    labels = {label for names in list_metric_labels().values() for label in names}
    assert labels == {
        "operation", "method", "status", "kind", "outcome", "policy", "task", "code", "limit"
    }  # fmt: skip


def test_every_alert_uses_metrics_and_labels_that_exist() -> None:
    families = list_metric_labels()
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert {"SartiqErrorRate", "SartiqLatency", "SartiqQueueDepth", "SartiqGenerationFailures"} <= {
        rule["alert"] for rule in rules
    }
    for rule in rules:
        used = re.findall(r"(sartiq_\w+)(?:\{(\w+)=)?", rule["expr"])
        assert used, rule
        for name, label in used:
            family = name.removesuffix("_bucket")
            assert family in families, rule
            assert not label or label in families[family], rule
        assert rule["annotations"]["summary"]
