"""Logs, metrics and trace contexts by themselves; tests/e2e shows them on real processes."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY
from sqlalchemy import literal, select, table
from sqlalchemy.exc import DBAPIError

import studio.telemetry
from db.engines import make_engine
from db.models.generations import GenerationStatus
from db.session import Database
from studio.jobs import queue
from studio.jobs.workshop import Workshop
from studio.lifecycle import advance
from studio.media.storage import LocalDisk, media_folder
from studio.outbound import Outbound, OutboundFailed
from studio.settings import Settings, SettingsRefused
from studio.telemetry import traces
from studio.telemetry.context import Work, current_trace, new_trace, read_traceparent, tracing_as, working_on
from studio.telemetry.logs import JsonLine, ReadableLine, WithContext
from studio.telemetry.metrics import MetricsPort, PoolState, QueueState
from tests.house.sources import ROOT
from tests.listening import Answer, listening
from tests.production import LEASE, Production
from tests.receiving import Receiver, endpoint_at, happen, send
from tests.studio.test_jobs import PAST, order

ALERTS = Path(studio.telemetry.__file__).parent / "alerts.yml"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(text: str, sampled: bool) -> None:
    read = read_traceparent(text)
    assert read is not None
    assert (read.trace_id, read.span_id, read.sampled) == (TRACE, SPAN, sampled)
    child = read.child()
    assert (child.trace_id, child.sampled) == (TRACE, sampled)
    assert child.span_id != SPAN
    assert read_traceparent(str(child)) == child


@pytest.mark.parametrize(
    "text",
    [
        None, "", "nonsense", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-01\n", f"0-{TRACE}-{SPAN}-01",
    ],
)  # fmt: skip
def test_a_malformed_traceparent_is_none(text: str | None) -> None:
    assert read_traceparent(text) is None


def record_of(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    """A record as a logger makes it, with the context filled in."""
    logger = logging.getLogger("studio.test")
    record = logger.makeRecord(logger.name, logging.INFO, "x.py", 1, message, arguments, None, extra=extra)
    assert WithContext().filter(record)
    return record


def test_a_line_of_json_tells_what_it_belongs_to_and_nothing_that_a_library_adds() -> None:
    trace = new_trace()
    work = Work("request-1", "get_brand", "user-1", "organization-1", "generation-1")
    with working_on(work), tracing_as(trace):
        record = record_of("%s was\nread", "it", status=200, arguments_of_the_task="hunter2")
    line = JsonLine("sartiq-api").format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("timestamp"))
    assert told == {
        "level": "INFO",
        "logger": "studio.test",
        "message": "it was\nread",
        "service": "sartiq-api",
        "request_id": "request-1",
        "trace_id": trace.trace_id,
        "span_id": trace.span_id,
        "user_id": "user-1",
        "org_id": "organization-1",
        "operation_id": "get_brand",
        "generation_id": "generation-1",
        "status": 200,
    }


def test_an_exception_is_a_field_of_its_line() -> None:
    record = record_of("it failed")
    try:
        raise ValueError("a reason")
    except ValueError:
        record.exc_info = sys.exc_info()
    told = json.loads(JsonLine("sartiq-api").format(record))
    assert told["exception"].startswith("Traceback")
    assert told["exception"].endswith("ValueError: a reason")
    assert "request_id" not in told


def test_logs_are_for_people_in_development_and_for_machines_elsewhere() -> None:
    secret = {"SECRET_KEY": "a secret of tests that is long enough for every algorithm"}
    formats = {
        name: Settings.from_environment({"SARTIQ_ENV": name, **secret}).log_format
        for name in ("development", "test", "production")
    }
    assert formats == {"development": "lines", "test": "json", "production": "json"}
    assert Settings.from_environment({"LOG_FORMAT": "json"}).log_format == "json"
    with pytest.raises(SettingsRefused, match="LOG_FORMAT must be one of json, lines"):
        Settings.from_environment({"LOG_FORMAT": "xml"})


def test_a_readable_line_names_its_request() -> None:
    with working_on(Work("request-1")):
        assert "INFO [request-1] studio.test: read" in ReadableLine().format(record_of("read"))
    assert "INFO [-] studio.test: read" in ReadableLine().format(record_of("read"))


def test_an_error_of_the_database_does_not_tell_what_was_to_be_written(committing_database: Database) -> None:
    missing = select(literal("hunter2")).select_from(table("missing"))
    with pytest.raises(DBAPIError) as raised, committing_database.transaction(write=False) as reading:
        reading.execute(missing)
    assert "missing" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_collector_that_is_away_holds_nobody_up() -> None:
    tracing = traces.Tracing("http://127.0.0.1:9", "sartiq-test")
    tracing.start()
    began = time.monotonic()
    for _ in range(100):
        with traces.entry("work", traces.SERVER, None, {}), traces.step("part"):
            pass
    assert time.monotonic() - began < 1
    tracing.stop()
    assert time.monotonic() - began < 5
    assert not traces.is_recording()


def test_without_a_collector_nothing_is_recorded_and_the_trace_goes_on_all_the_same() -> None:
    traces.Tracing(None, "sartiq-test").start()
    parent = new_trace()
    with traces.entry("work", traces.SERVER, parent, {}) as recorded, traces.step("part"):
        here = current_trace()
    assert not recorded.is_recording()
    assert here is not None
    assert (here.trace_id, here.span_id == parent.span_id) == (parent.trace_id, False)
    assert current_trace() is None


def value(name: str, **labels: str) -> float:
    """What a scrape would tell now."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def counted() -> dict[str, float]:
    """How much each counter of generations grew since the test began."""

    class Growth(dict[str, float]):
        def __missing__(self, key: str) -> float:
            return self.now(key) - before[key]

        @staticmethod
        def now(key: str) -> float:
            if key == "recoveries":
                return value("sartiq_lease_recoveries_total")
            if key == "timed":
                return value("sartiq_generation_duration_seconds_count")
            return value("sartiq_generations_total", outcome=key)

    before = {
        key: Growth.now(key) for key in ("completed", "failed", "canceled", "expired", "recoveries", "timed")
    }
    return Growth()


def test_a_generation_counts_once_when_its_end_is_committed(
    database: Database, production: Production, counted: dict[str, float]
) -> None:
    order(database, production)
    claim = queue.claim_next(database, "first", LEASE)
    assert claim is not None

    def fail_and_break_off() -> None:
        with database.transaction(write=True):
            generation = queue.locked(claim)
            assert generation is not None
            advance(generation, GenerationStatus.FAILED, queue.INTERNAL_ERROR)
            raise KeyError("the process is interrupted")

    with pytest.raises(KeyError):
        fail_and_break_off()
    assert counted["failed"] == 0
    queue.fail(database, claim, queue.INTERNAL_ERROR)
    assert (counted["failed"], counted["completed"], counted["timed"]) == (1, 0, 0)


def test_what_painters_say_belongs_to_the_generation_and_the_trace_of_its_order(
    database: Database, storage: LocalDisk, production: Production, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(WithContext())
    ordered_in = new_trace()
    with tracing_as(ordered_in):
        generation_id = order(database, production)
    storage.delete_folder(media_folder(production.media.id))
    workshop = Workshop(database, storage, painters=1, lease_seconds=60)
    assert workshop.work_off_next()
    workshop.close()
    (record,) = [record for record in caplog.records if "unusable inputs" in record.getMessage()]
    assert (record.generation_id, record.org_id, record.trace_id) == (
        str(generation_id), str(production.organization.id), ordered_in.trace_id,
    )  # fmt: skip
    assert record.span_id != ordered_in.span_id


def test_a_generation_taken_over_from_a_lost_worker_is_counted(
    database: Database, production: Production, counted: dict[str, float]
) -> None:
    order(database, production)
    assert queue.claim_next(database, "lost", PAST) is not None
    assert counted["recoveries"] == 0
    assert queue.claim_next(database, "second", LEASE) is not None
    assert counted["recoveries"] == 1


def test_every_attempt_to_deliver_a_webhook_is_counted_by_how_it_ended(
    database: Database, receiver: Receiver
) -> None:
    name, outcomes = "sartiq_webhook_deliveries_total", ("delivered", "retried", "failed")
    before = {outcome: value(name, outcome=outcome) for outcome in outcomes}
    calls = {outcome: value("sartiq_outbound_calls_total", outcome=outcome) for outcome in ("2xx", "5xx")}
    receiver.planned = [Answer(), Answer(500)]
    for endpoint in (endpoint_at(receiver), endpoint_at(receiver)):
        happen(database, endpoint)
    while send(database, receiver):
        pass
    grown = {outcome: value(name, outcome=outcome) - before[outcome] for outcome in outcomes}
    assert grown == {"delivered": 1, "retried": 1, "failed": 0}
    assert value("sartiq_outbound_calls_total", outcome="5xx") - calls["5xx"] == 1
    assert value("sartiq_outbound_calls_total", outcome="2xx") - calls["2xx"] == 1


def test_a_call_that_comes_to_nothing_is_counted_by_its_reason() -> None:
    with listening(lambda asked: Answer(body=b"too much")) as server:
        before = value("sartiq_outbound_calls_total", outcome="too_large")
        with pytest.raises(OutboundFailed):
            Outbound([server.host]).send("GET", server.url, timeout_seconds=5, max_bytes=1)
    assert value("sartiq_outbound_calls_total", outcome="too_large") - before == 1


def test_a_port_for_metrics_that_is_taken_stops_the_start_and_says_so(database: Database) -> None:
    with listening() as taken:
        port = MetricsPort("127.0.0.1", taken.port, database, "sqlite://")
        with pytest.raises(OSError, match=f"the metrics cannot be served at 127.0.0.1:{taken.port}: "):
            port.start()
    port.stop()


def test_the_queue_is_told_by_status_with_the_age_of_its_head_and_read_once_in_a_while(
    database: Database, production: Production
) -> None:
    state = QueueState(database)
    order(database, production)

    def told(state: QueueState) -> dict[str, float]:
        return {
            "/".join([sample.name, *sample.labels.values()]): sample.value
            for family in state.collect()
            for sample in family.samples
        }

    first = told(state)
    age = first.pop("sartiq_queue_oldest_pending_seconds")
    assert 0 <= age < 60
    assert first == {
        "sartiq_queue_depth/pending": 1,
        "sartiq_queue_depth/running": 0,
        "sartiq_queue_depth/canceling": 0,
    }
    assert queue.claim_next(database, "worker", LEASE) is not None
    assert told(state)["sartiq_queue_depth/pending"] == 1
    fresh = told(QueueState(database))
    assert (fresh["sartiq_queue_depth/pending"], fresh["sartiq_queue_depth/running"]) == (0, 1)
    assert fresh["sartiq_queue_oldest_pending_seconds"] == 0


def test_a_database_that_is_away_leaves_a_gap_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty = Database(make_engine(f"sqlite:///{tmp_path / 'no-tables.db'}"))
    assert list(QueueState(empty).collect()) == []
    assert "the depth of the queue cannot be read" in caplog.text
    empty.dispose()


def families() -> dict[str, tuple[str, ...]]:
    """Name of every metric of ours as a rule spells it -> its labels."""
    found = {}
    for collector in list(REGISTRY._collector_to_names):
        name = getattr(collector, "_name", "")
        if name.startswith("sartiq_"):
            suffix = "_total" if collector._type == "counter" else ""
            found[name + suffix] = tuple(collector._labelnames)
    database = Database(make_engine("sqlite://"))
    for family in [*QueueState(database).describe(), *PoolState(database).describe()]:
        found[family.name] = ("status",) if family.name == "sartiq_queue_depth" else ()
    return found


def test_the_readme_lists_every_metric_with_its_labels() -> None:
    rows = re.findall(
        r"^\| `(sartiq_\w+)` \| ([^|]*)\|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name: tuple(labels.replace(",", " ").split()) for name, labels in rows} == families()


def test_no_label_can_take_a_value_of_a_tenant() -> None:
    labels = {label for names in families().values() for label in names}
    assert labels == {"operation", "method", "status", "kind", "outcome", "policy"}


def test_every_alert_asks_for_metrics_and_labels_that_exist() -> None:
    known = families()
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert {"SartiqErrorRate", "SartiqLatency", "SartiqQueueDepth", "SartiqGenerationFailures"} <= {
        rule["alert"] for rule in rules
    }
    for rule in rules:
        asked = re.findall(r"(sartiq_\w+)(?:\{(\w+)=)?", rule["expr"])
        assert asked, rule
        for name, label in asked:
            family = name.removesuffix("_bucket")
            assert family in known, rule
            assert not label or label in known[family], rule
        assert rule["annotations"]["summary"]
