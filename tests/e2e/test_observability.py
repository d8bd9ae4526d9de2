"""Tests of the logs, metrics and traces of an API process and a worker process."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.generation_steps import prepare_look, wait_for_generation
from tests.e2e.otlp_collector import Collector, ReceivedSpan, run_collector
from tests.support.requirements import skip_or_fail
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import RunningServer, free_port, running_server
from tools.servers.server_databases import database_of

pytestmark = pytest.mark.slow("it starts two servers and a collector")

SERVER, CONSUMER, INTERNAL = 2, 5, 1
UNKNOWN = "/api/v1/nothing-is-here"
TRACE_STATE = "congo=t61rcWkgMzE"


@dataclass
class RunningSystem:
    """An API and a worker on one database, and the results of the requests of `run_customer_actions`."""

    api: RunningServer
    worker: RunningServer
    metrics: dict[str, str]
    """URLs of the metrics of `api` and `worker`."""
    collector: Collector
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    parent_id: str = field(default_factory=lambda: secrets.token_hex(8))
    token: str = ""
    link: str = ""
    generation: dict[str, Any] = field(default_factory=dict)
    organization_id: str = ""
    secrets: list[str] = field(default_factory=list)
    """Secrets from responses and wrong guesses, which must not occur in any log."""

    def scrape(self, process: str) -> dict[str, float]:
        """Return the metrics as Prometheus reads them: name and labels to value."""
        response = httpx.get(self.metrics[process])
        assert response.status_code == 200
        return {
            sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    def lines(self, process: str) -> list[dict[str, Any]]:
        """Return the log lines of a process; fail if a line is not JSON."""
        log = (self.api if process == "api" else self.worker).log
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """Yield the running API and worker, after a customer has requested images within a trace."""
    folder = tmp_path_factory.mktemp("observability")
    ports = {"api": free_port(), "worker": free_port()}
    shared = {"MEDIA_DIR": str(folder / "media"), "DATABASE_URL": database_of(folder)}
    with run_collector() as collector:
        shared |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        shared |= {"LOG_FORMAT": "json"}
        api_side = shared | {"RENDER_WORKERS": "0", "METRICS_PORT": str(ports["api"])}
        worker_side = shared | {"OTEL_SERVICE_NAME": "sartiq-worker", "METRICS_PORT": str(ports["worker"])}
        with (
            running_server(folder / "api", **api_side) as api,
            running_server(folder / "worker", **worker_side) as worker,
        ):
            metrics = {name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items()}
            system = RunningSystem(api, worker, metrics, collector)
            run_customer_actions(system)
            yield system


def run_customer_actions(system: RunningSystem) -> None:
    """Send the requests of a customer, including some that fail."""
    with Api(system.api.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        system.token = api.client.headers["authorization"].split()[1]
        system.organization_id = api.get("/organizations/")["data"][0]["id"]
        shot = prepare_look(api, 96, 128)["shots"][0]
        parent = f"00-{system.trace_id}-{system.parent_id}-01"
        accepted = api.client.post(
            f"/shots/{shot['id']}/generate",
            json={"num_predictions": 2},
            headers={"traceparent": parent, "tracestate": TRACE_STATE, "x-request-id": "the-request"},
        )
        assert accepted.status_code == 202, accepted.text
        system.generation = wait_for_generation(api, accepted.json()["id"], "completed")
        prediction = system.generation["predictions"][0]["id"]
        system.link = api.post(f"/predictions/{prediction}/share", json={"expires_in_seconds": 60})["url"]
        assert httpx.get(system.link).status_code == 200
        assert httpx.get(f"{system.link}/").status_code == 404
        api.client.post("/password-recovery/somebody.private@example.com")
        api.client.post("/brands/", json={"name": 7, "description": "a body that is not logged"})
        brand = api.post("/brands/", organization_id=system.organization_id, json={"name": "Logged brand"})
        api.get(f"/brands/{brand['id']}")
        system.secrets = use_secrets(api, system.organization_id)
        for _ in range(3):
            httpx.get(system.api.origin + UNKNOWN + secrets.token_hex(4))


def use_secrets(api: Api, organization_id: str) -> list[str]:
    """Obtain tokens and secrets, guess and revoke some; return all of them."""
    guess = "a-guess-that-was-wrong"
    sign_in = {"username": EMAIL, "password": guess}
    for username in (EMAIL, "nobody.known@example.com"):
        wrong = sign_in | {"username": username}
        assert api.client.post("/login/access-token", data=wrong).status_code == 401
    tokens = api.client.post("/login/access-token", data=sign_in | {"password": PASSWORD}).json()
    renewed = api.post("/login/refresh-token", json={"refresh_token": tokens["refresh_token"]})
    assert api.client.post("/login/refresh-token", json={"refresh_token": f"rt_{guess}"}).status_code == 401
    assert api.client.post("/oauth/revoke", data={"token": renewed["refresh_token"]}).status_code == 200
    hook = {"url": f"https://93.184.216.34/{guess}", "event_types": ["shot.approved"]}
    endpoint = api.post("/webhook-endpoints/", organization_id=organization_id, json=hook)
    received = [*(tokens[name] for name in ("access_token", "refresh_token")), guess, endpoint["secret"]]
    return [*received, renewed["access_token"], renewed["refresh_token"]]


def test_metrics_count_requests_and_generations(system: RunningSystem) -> None:
    api, worker = system.scrape("api"), system.scrape("worker")
    assert api["sartiq_requests_total POST generate_shot 202"] == 1
    assert api["sartiq_requests_total POST create_brand 422"] == 1
    assert api["sartiq_requests_total GET unmatched 404"] == 4
    assert api["sartiq_request_duration_seconds_count generate_shot"] == 1
    assert 0 < api["sartiq_request_duration_seconds_sum generate_shot"] < 10
    assert api["sartiq_requests_in_progress"] == 0
    assert not [name for name in api if name.startswith("sartiq_contract_defects_total")]
    assert worker["sartiq_generations_total completed"] == 1
    assert worker["sartiq_generation_duration_seconds_count"] == 1
    assert worker["sartiq_lease_recoveries_total"] == 0
    for metrics in (api, worker):
        assert metrics["sartiq_queue_depth pending"] == metrics["sartiq_queue_oldest_pending_seconds"] == 0
        assert (
            0 <= metrics["sartiq_database_connections_in_use"] <= metrics["sartiq_database_connections_max"]
        )
    assert api["process_resident_memory_bytes"] > 0


def test_metric_labels_contain_no_ids_and_no_paths(system: RunningSystem) -> None:
    text = httpx.get(system.metrics["api"]).text
    values = set(re.findall(r'(?:operation|method|status|kind|outcome)="([^"]*)"', text))
    assert "generate_shot" in values
    assert [value for value in values if not re.fullmatch(r"[a-z_]+|[A-Z]+|\d{3}", value)] == []


def test_every_log_line_is_json_with_its_request_context(system: RunningSystem) -> None:
    lines = system.lines("api")
    assert {line["service"] for line in lines} == {"sartiq-api"}
    (line,) = [line for line in lines if line.get("request_id") == "the-request"]
    user_id = system.generation["owner_id"]
    assert line["message"].startswith("POST /api/v1/shots/")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert line["duration_ms"] > 0
    assert {name: line[name] for name in ("level", "logger", "trace_id", "user_id", "operation_id")} == {
        "level": "INFO",
        "logger": "sartiq.access",
        "trace_id": system.trace_id,
        "user_id": user_id,
        "operation_id": "generate_shot",
    }
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/v1/shots/{shot_id}/generate", 202)
    assert line["address"] == "127.0.0.1"


def test_the_log_line_of_a_generation_has_the_trace_id_of_its_request(system: RunningSystem) -> None:
    (line,) = [
        line for line in system.lines("worker") if line.get("generation_id") == system.generation["id"]
    ]
    assert line["message"] == f"generation {system.generation['id']} is completed, at attempt 1"
    assert (line["service"], line["status"], line["trace_id"]) == (
        "sartiq-worker", "completed", system.trace_id,
    )  # fmt: skip
    assert line["duration_ms"] > 0


def test_a_log_line_names_the_organization_whose_rows_were_accessed(system: RunningSystem) -> None:
    brand_requests = {
        (line["operation_id"], line["status"], line.get("org_id"))
        for line in system.lines("api")
        if line.get("operation_id") in ("create_brand", "get_brand")
    }
    own = system.organization_id
    assert brand_requests == {
        ("create_brand", 201, None), ("create_brand", 422, None), ("create_brand", 201, own),
        ("get_brand", 200, own),
    }  # fmt: skip


def test_s24_every_failed_sign_in_is_logged_with_its_address_but_without_the_name(
    system: RunningSystem,
) -> None:
    """The log never has the name, even of a known account: it may be a password in the wrong field."""
    failed = [
        (line["address"], line.get("user_id"), bool(line["request_id"]))
        for line in system.lines("api")
        if (line.get("operation_id"), line.get("status")) == ("login", 401)
    ]
    assert failed == [("127.0.0.1", None, True)] * 2


def test_s24_no_log_line_contains_a_secret(system: RunningSystem) -> None:
    signature = system.link.rpartition("/")[2]
    secret = (
        system.token, PASSWORD, signature, "somebody.private", "nobody.known", EMAIL,
        "a body that is not logged", "Bearer", "secret of servers", "postgresql+psycopg://", *system.secrets,
    )  # fmt: skip
    for server in (system.api, system.worker):
        text = server.log.read_text(encoding="utf-8")
        assert [word for word in secret if word in text] == []


def test_the_spans_of_a_worker_belong_to_the_trace_of_the_request(system: RunningSystem) -> None:
    names = (
        "generate_shot", "claim_generation", "make_generation", "set_stage", "make_image",
        "record_images",
    )  # fmt: skip
    spans = system.collector.wait_for_trace(system.trace_id, *names)
    by_name: dict[str, ReceivedSpan] = {span.name: span for span in spans}
    request, work = by_name["generate_shot"], by_name["make_generation"]
    assert (request.service, request.kind, request.parent_id) == ("sartiq-api", SERVER, system.parent_id)
    assert request.trace_state == TRACE_STATE
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/v1/shots/{shot_id}/generate",
        "url.path": f"/api/v1/shots/{system.generation['shot_id']}/generate",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "http.response.status_code": 202,
        "sartiq.request_id": "the-request",
    }
    assert (work.service, work.kind, work.parent_id) == ("sartiq-worker", CONSUMER, request.span_id)
    assert work.attributes["sartiq.generation_id"] == system.generation["id"]
    assert by_name["claim_generation"].parent_id == request.span_id
    steps = [span for span in spans if span.parent_id == work.span_id]
    assert sorted(span.name for span in steps) == [*["make_image"] * 2, "record_images", "set_stage"]
    assert {span.kind for span in steps} == {INTERNAL}
    assert not any(span.failed for span in spans)


def test_metrics_are_served_only_if_a_port_is_set(demo_server: RunningServer) -> None:
    assert httpx.get(f"{demo_server.origin}/metrics").status_code == 404
    opened = listening_ports(demo_server.process.pid)
    assert opened == {int(demo_server.origin.rpartition(":")[2])}


def listening_ports(process_id: int) -> set[int]:
    """Return the ports that a process listens on; skip the test without /proc."""
    files = Path(f"/proc/{process_id}/fd")
    if not files.is_dir():
        skip_or_fail("Linux, whose /proc lists the ports of a process")
    sockets = set()
    for file in files.iterdir():
        with suppress(FileNotFoundError):  # the process has closed it meanwhile
            sockets.add(str(file.readlink()))
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{process_id}/net/{table}").read_text().splitlines()[1:]
    ]
    opened = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    return {int(origin.rpartition(":")[2], 16) for origin in opened}
