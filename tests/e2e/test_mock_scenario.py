"""A mock misbehaves as its scenario says, for clients that need no change, and returns to its start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.e2e.test_mock import ORGANIZATION, PRODUCT, control, get_json, running_mock
from tools.servers.http_recorder import HttpRecorder, run_http_recorder
from tools.servers.server import ROOT, free_port

SECONDS_TO_WAIT = 20
MAX_RESET_SECONDS = 2
UNKNOWN = "01990000-5eed-7000-8000-00000000dead"

pytestmark = pytest.mark.slow("it starts mocks and waits for late responses")


@pytest.fixture(scope="module")
def receiver() -> Iterator[HttpRecorder]:
    """Yield the receiver of the webhooks."""
    with run_http_recorder() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: HttpRecorder) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("mock")
    with running_mock(folder, OUTBOUND_ALLOWED_HOSTS=receiver.host, WEBHOOK_SENDERS="2") as client:
        yield client


@pytest.fixture
def mock(server: httpx.Client, receiver: HttpRecorder) -> httpx.Client:
    """Return a client of a mock in its state at the start."""
    assert control(server, "POST", "reset").status_code == 204
    receiver.requests.clear()
    return server


def play(mock: httpx.Client, **scenario: list[dict[str, Any]]) -> None:
    """Set the scenario of the mock."""
    answer = control(mock, "PUT", "scenario", json=scenario)
    assert answer.status_code == 200, answer.text


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def request_generation(mock: httpx.Client) -> dict[str, Any]:
    body = {"product_id": PRODUCT, "width": 64, "height": 64}
    answer = mock.post("/generations/", params={"organization_id": ORGANIZATION}, json=body)
    return dict(get_json(answer, 202))


def read_credits(mock: httpx.Client) -> int:
    (subscription,) = mock.get("/subscriptions/").json()["data"]
    return int(subscription["credits_remaining"])


def add_endpoint(mock: httpx.Client, receiver: HttpRecorder, *event_types: str) -> Webhook:
    """Register the receiver, and return the verifier of its messages."""
    params, body = {"organization_id": ORGANIZATION}, {"url": receiver.url, "event_types": event_types}
    return Webhook(get_json(mock.post("/webhook-endpoints/", params=params, json=body))["secret"])


def test_a_sequence_of_errors_ends_in_the_real_response(mock: httpx.Client) -> None:
    rule = {"operation": "create_brand", "retry_after": 2, "times": 2}
    play(mock, responses=[{**rule, "status": 503}, {**rule, "status": 429, "times": 1}])
    answers = [mock.post("/brands/", json={"name": "Atelier Sud"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 429, 201]
    assert [answer.headers.get("retry-after") for answer in answers] == ["2", "2", "2", None]
    assert answers[2].json()["detail"] == "Too many requests; try again in 2 seconds"
    assert answers[2].headers["ratelimit"] == '"account";r=0;t=2'
    assert [rule["used"] for rule in control(mock, "GET", "scenario").json()["responses"]] == [2, 1]


def test_a_rule_with_a_condition_is_for_requests_with_its_values(mock: httpx.Client) -> None:
    in_body = {"operation": "create_brand", "status": 503, "when": {"body": {"/name": "A"}}}
    rules = [
        in_body,
        {"operation": "list_brands", "status": 429, "when": {"query": {"limit": 7}}},
        {"operation": "list_brands", "status": 503, "when": {"headers": {"X-Request-Id": "one"}}},
        {"operation": "get_brand", "status": 404, "when": {"path": {"brand_id": UNKNOWN}}},
        {"operation": "create_brand", "disconnect": "before", "when": {"body": {"/name": "B"}}},
    ]
    play(mock, responses=rules)
    params = {"organization_id": ORGANIZATION}
    answers = [mock.post("/brands/", params=params, json={"name": name}) for name in ("A", "C")]
    assert [answer.status_code for answer in answers] == [503, 201]
    # A later rule for the same operation is reached, and a body that is read for a rule arrives complete.
    with pytest.raises(httpx.RemoteProtocolError):
        mock.post("/brands/", params=params, json={"name": "B"})
    assert mock.post("/brands/", params=params, content=b"no JSON").status_code == 415
    for query, headers, status in (
        ({"limit": "7"}, {}, 429),
        ({"limit": "8"}, {}, 200),
        ({}, {"x-request-id": "one"}, 503),
        ({}, {"x-request-id": "two"}, 200),
    ):
        assert mock.get("/brands/", params=params | query, headers=headers).status_code == status
    assert mock.get(f"/brands/{answers[1].json()['id']}").status_code == 200
    assert mock.get(f"/brands/{UNKNOWN}").json()["detail"]
    assert [rule["used"] for rule in control(mock, "GET", "scenario").json()["responses"]] == [1] * 5


def test_a_rule_with_a_probability_applies_to_the_same_requests_again(mock: httpx.Client) -> None:
    rule = {"operation": "list_brands", "status": 503, "probability": 0.5}
    runs = []
    for seed in (1, 1, 2):
        answer = control(mock, "PUT", "scenario", json={"seed": seed, "responses": [rule]})
        assert answer.json()["seed"] == seed
        runs.append([mock.get("/brands/").status_code for _ in range(20)])
    assert runs[0] == runs[1] != runs[2]
    assert set(runs[0]) == {200, 503}


@pytest.mark.parametrize(
    ("error", "category", "retryable"),
    [
        ("provider", "provider", True),
        ("internal", "internal", True),
        ("content_rejected", "input", False),
        ("missing_image", "input", False),
        ("no_outline", "input", False),
    ],
)
def test_a_failed_generation_has_the_chosen_error(
    mock: httpx.Client, error: str, category: str, retryable: bool
) -> None:
    play(mock, generations=[{"outcome": "failed", "error": error}])
    failed = mock.get(f"/generations/{request_generation(mock)['id']}").json()["error"]
    assert (failed["category"], failed["retryable"]) == (category, retryable)


def test_a_dropped_webhook_never_arrives_and_its_delivery_is_tried_again(
    mock: httpx.Client, receiver: HttpRecorder
) -> None:
    add_endpoint(mock, receiver, "generation.completed")
    play(mock, webhooks=[{"drop": True, "times": 1}])
    request_generation(mock)
    params = {"organization_id": ORGANIZATION}
    endpoint = mock.get("/webhook-endpoints/", params=params).json()["data"][0]["id"]
    path = f"/webhook-endpoints/{endpoint}/deliveries"
    delivery = wait_for(lambda: [one for one in mock.get(path).json()["data"] if one["last_error"]])[0]
    assert (delivery["status"], delivery["last_error"]) == ("pending", "timeout")
    assert receiver.requests == []
    assert mock.post(f"{path}/{delivery['id']}/redeliver").status_code == 202
    wait_for(lambda: receiver.requests)


def test_a_rule_for_every_operation_leaves_health_checks_alone(mock: httpx.Client) -> None:
    play(mock, responses=[{"operation": "*", "status": 429}])
    assert [mock.get(path).status_code for path in ("/brands/", "/users/me")] == [429, 429]
    assert mock.get("/utils/readiness").status_code == 200
    play(mock)
    assert mock.get("/users/me").status_code == 200


def test_a_slow_response_is_the_real_one(mock: httpx.Client) -> None:
    play(mock, responses=[{"operation": "list_brands", "delay": 0.4, "times": 1}])
    with pytest.raises(httpx.ReadTimeout):
        mock.get("/brands/", timeout=0.2)
    play(mock, responses=[{"operation": "list_brands", "delay": 0.2, "times": 1}])
    started_at = time.monotonic()
    assert mock.get("/brands/").json()["count"] == 0
    assert time.monotonic() - started_at >= 0.2


def test_a_connection_that_is_dropped_before_the_request_is_handled(mock: httpx.Client) -> None:
    play(mock, responses=[{"operation": "create_brand", "disconnect": "before", "times": 1}])
    with pytest.raises(httpx.RemoteProtocolError):
        mock.post("/brands/", json={"name": "Atelier Sud"})
    assert mock.get("/brands/").json()["count"] == 0


@pytest.mark.parametrize("operation", ["create_brand", "create_generation"])
def test_a_retry_with_the_same_key_finds_what_was_stored_before_the_connection_was_dropped(
    mock: httpx.Client, operation: str
) -> None:
    play(mock, responses=[{"operation": operation, "disconnect": "after", "times": 1}])
    body = {"product_id": PRODUCT} if operation == "create_generation" else {"name": "Atelier Sud"}
    path = "/generations/" if operation == "create_generation" else "/brands/"

    def send() -> httpx.Response:
        params = {"organization_id": ORGANIZATION}
        return mock.post(path, json=body, params=params, headers={"Idempotency-Key": "attempt-1"})

    with pytest.raises(httpx.RemoteProtocolError):
        send()
    count = mock.get(path, params={"organization_id": ORGANIZATION}).json()["count"]
    answer = send()
    assert answer.headers["idempotency-replayed"] == "true"
    assert mock.get(path, params={"organization_id": ORGANIZATION}).json()["count"] == count


@pytest.mark.parametrize("outcome", ["failed", "expired"])
def test_a_generation_that_fails_refunds_its_credits_and_sends_its_webhook(
    mock: httpx.Client, receiver: HttpRecorder, outcome: str
) -> None:
    webhook = add_endpoint(mock, receiver, "generation.completed", f"generation.{outcome}")
    credits_before = read_credits(mock)
    play(mock, generations=[{"outcome": outcome, "times": 1}])
    generation = mock.get(f"/generations/{request_generation(mock)['id']}").json()
    assert (generation["status"], generation["error"]["retryable"]) == (outcome, True)
    assert generation["predictions"] == []
    assert read_credits(mock) == credits_before
    wait_for(lambda: receiver.requests)
    event = webhook.verify(receiver.requests[0].body, dict(receiver.requests[0].headers))
    assert (event["type"], event["data"]["id"]) == (f"generation.{outcome}", generation["id"])
    assert mock.get(f"/generations/{request_generation(mock)['id']}").json()["status"] == "completed"
    assert read_credits(mock) < credits_before


def test_a_generation_that_takes_time_is_running_until_then(mock: httpx.Client) -> None:
    play(mock, generations=[{"seconds": 0.8, "times": 1}])
    generation = request_generation(mock)
    assert generation["status"] in ("pending", "running")
    path = f"/generations/{generation['id']}"
    progress = wait_for(lambda: mock.get(path).json()["progress"])
    assert 0 < progress < 100
    completed = mock.get(path, headers={"Prefer": "wait=10"}).json()
    assert (completed["status"], completed["progress"]) == ("completed", 100)


def test_a_generation_that_takes_time_can_be_canceled(mock: httpx.Client) -> None:
    play(mock, generations=[{"outcome": "failed", "seconds": 30}])
    path = f"/generations/{request_generation(mock)['id']}"
    wait_for(lambda: mock.get(path).json()["status"] == "running")
    assert mock.post(f"{path}/cancel").is_success
    assert wait_for(lambda: mock.get(path).json()["status"] == "canceled")


def test_webhooks_come_late_twice_or_badly_signed(mock: httpx.Client, receiver: HttpRecorder) -> None:
    webhook = add_endpoint(mock, receiver, "generation.completed")
    play(
        mock,
        webhooks=[
            {"event": "generation.failed", "copies": 9},
            {"event": "generation.completed", "copies": 2, "times": 1},
            {"signature": "invalid", "times": 1},
            {"signature": "stale", "times": 1},
            {"delay": 0.5},
        ],
    )
    for _ in range(4):
        request_generation(mock)
    wait_for(lambda: len(receiver.requests) == 4)
    requested_at = time.monotonic()
    wait_for(lambda: len(receiver.requests) == 5)
    assert time.monotonic() - requested_at > 0.3
    first, copy, invalid, stale, late = receiver.requests
    assert (first.headers["webhook-id"], first.body) == (copy.headers["webhook-id"], copy.body)
    for message in (first, copy, late):
        assert webhook.verify(message.body, dict(message.headers))["type"] == "generation.completed"
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        webhook.verify(invalid.body, dict(invalid.headers))
    with pytest.raises(WebhookVerificationError, match="too old"):
        webhook.verify(stale.body, dict(stale.headers))


def test_a_reset_restores_rows_files_ids_and_scenario(mock: httpx.Client) -> None:
    def use() -> tuple[str, str, bytes]:
        brand = get_json(mock.post("/brands/", json={"name": "Atelier Sud"}))["id"]
        (prediction,) = mock.get(f"/generations/{request_generation(mock)['id']}").json()["predictions"]
        return brand, prediction["id"], mock.get(f"/predictions/{prediction['id']}/image").content

    play(mock, responses=[{"operation": "get_brand", "status": 503}])
    first = use()
    assert mock.delete(f"/products/{PRODUCT}").status_code == 409  # the seeded rows use it
    assert control(mock, "POST", "reset").status_code == 204
    assert mock.get(f"/brands/{first[0]}").status_code == 404
    assert mock.get(f"/predictions/{first[1]}").status_code == 404
    assert mock.get(mock.get(f"/products/{PRODUCT}").json()["cover_image"]).status_code == 200
    assert control(mock, "GET", "scenario").json() == {"responses": [], "generations": [], "webhooks": []}
    assert use() == first


def test_a_reset_is_fast(mock: httpx.Client) -> None:
    def reset() -> float:
        get_json(mock.post("/brands/", json={"name": "Atelier Sud"}))
        started_at = time.monotonic()
        assert control(mock, "POST", "reset").status_code == 204
        return time.monotonic() - started_at

    # The fastest of some, because other programs use the machine. Without them, it takes half a second.
    assert min(reset() for _ in range(5)) < MAX_RESET_SECONDS


def test_a_webhook_is_sent_after_a_reset(mock: httpx.Client, receiver: HttpRecorder) -> None:
    control(mock, "POST", "reset")
    webhook = add_endpoint(mock, receiver, "generation.completed")
    generation = request_generation(mock)
    wait_for(lambda: receiver.requests)
    event = webhook.verify(receiver.requests[0].body, dict(receiver.requests[0].headers))
    assert event["data"]["id"] == generation["id"]


def test_an_event_stream_ends_with_a_reset(mock: httpx.Client) -> None:
    play(mock, generations=[{"seconds": 30}])
    path = f"/generations/{request_generation(mock)['id']}/events"
    with mock.stream("GET", path) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        control(mock, "POST", "reset")
        started_at = time.monotonic()
        assert not any("completed" in line for line in lines)
    assert time.monotonic() - started_at < SECONDS_TO_WAIT


@pytest.mark.parametrize(
    ("rule", "pointer"),
    [
        ({"operation": "create_nothing", "status": 503}, "/responses/0/operation"),
        ({"operation": "create_brand", "status": 418}, "/responses/0/status"),
        ({"operation": "*", "status": 201}, "/responses/0/status"),
        ({"operation": "create_brand", "example": "nothing"}, "/responses/0/example"),
        ({"operation": "create_brand", "status": 404, "retry_after": 1}, "/responses/0/retry_after"),
        ({"operation": "create_brand", "times": 0}, "/responses/0/times"),
        ({"operation": "create_brand", "latency": 1}, "/responses/0/latency"),
        ({"operation": "create_brand", "status": 503, "disconnect": "before"}, "/responses/0/disconnect"),
    ],
)
def test_a_rule_that_can_never_apply_is_rejected(
    mock: httpx.Client, rule: dict[str, Any], pointer: str
) -> None:
    answer = control(mock, "PUT", "scenario", json={"responses": [rule]})
    assert answer.status_code == 422
    assert [violation["pointer"] for violation in answer.json()["detail"]] == [pointer]
    assert control(mock, "GET", "scenario").json()["responses"] == []


@pytest.mark.parametrize(
    ("scenario", "pointer", "message"),
    [
        (
            {"responses": [{"operation": "createBrand"}]},
            "/responses/0/operation",
            "The API has no operation createBrand; did you mean `create_brand`?",
        ),
        (
            {"generations": [{"error": "provider", "times": 1}]},
            "/generations/0/error",
            "Needs the outcome `failed`",
        ),
        (
            {"responses": [{"operation": "create_brand", "when": {"body": {"name": "A"}}}]},
            "/responses/0/when/body/name",
            "The name must match the pattern ^/",
        ),
        (
            {"webhooks": [{"event": "generation.complete"}]},
            "/webhooks/0/event",
            "The API has no event generation.complete; did you mean `generation.completed`?",
        ),
        (
            {"responses": [{"operation": "*", "delay": 1}, {"operation": "create_brand", "status": 503}]},
            "/responses/1",
            "/responses/0 always applies before this rule: give it `times`, or move it behind",
        ),
        (
            {"generations": [{"outcome": "failed", "times": 1}, {"seconds": 1}, {"outcome": "expired"}]},
            "/generations/2",
            "/generations/1 always applies before this rule: give it `times`, or move it behind",
        ),
        (
            {"webhooks": [{"delay": 1}, {"event": "generation.failed", "copies": 2}]},
            "/webhooks/1",
            "/webhooks/0 always applies before this rule: give it `times`, or move it behind",
        ),
    ],
)
def test_a_rule_that_can_never_apply_says_why(
    mock: httpx.Client, scenario: dict[str, Any], pointer: str, message: str
) -> None:
    answer = control(mock, "PUT", "scenario", json=scenario)
    assert answer.status_code == 422
    assert [(one["pointer"], one["msg"]) for one in answer.json()["detail"]] == [(pointer, message)]


def test_a_rule_for_every_operation_hides_no_rule_for_one_without_a_rate_limit(mock: httpx.Client) -> None:
    play(mock, responses=[{"operation": "*", "delay": 0}, {"operation": "health", "status": 503}])
    assert mock.get("/utils/health").status_code == 503


def test_the_third_request_fails_after_a_rule_without_effect(mock: httpx.Client) -> None:
    play(
        mock,
        responses=[
            {"operation": "list_brands", "times": 2},
            {"operation": "list_brands", "status": 503, "times": 1},
        ],
    )
    assert [mock.get("/brands/").status_code for _ in range(4)] == [200, 200, 503, 200]


def test_a_file_with_comments_only_is_an_empty_scenario(mock: httpx.Client) -> None:
    answer = control(mock, "PUT", "scenario", content=b"# responses:\n")
    assert answer.json() == {"responses": [], "generations": [], "webhooks": []}


def test_the_scenario_of_the_documentation_is_valid(mock: httpx.Client) -> None:
    page = (ROOT / "docs/guides/mock-server.md").read_text(encoding="utf-8")
    first, second = (block.partition("```")[0] for block in page.split("```yaml\n")[1:3])
    for scenario, sizes in ((first, [4, 2, 3]), (second, [2, 1, 1])):
        answer = control(mock, "PUT", "scenario", content=scenario)
        assert answer.status_code == 200, answer.text
        assert [len(answer.json()[name]) for name in ("responses", "generations", "webhooks")] == sizes


def test_the_control_surface_answers_errors_as_problems(mock: httpx.Client) -> None:
    answers = [
        control(mock, "PUT", "scenario", content=b"{"),
        control(mock, "PUT", "scenario", content=b"[]"),
        control(mock, "GET", "reset"),
        control(mock, "GET", "nothing"),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (400, "malformed_request"), (422, "invalid_request"), (405, "method_not_allowed"), (404, "not_found"),
    ]  # fmt: skip
    assert answers[2].headers["allow"] == "POST"


def test_a_scenario_with_a_typing_error_names_its_place(mock: httpx.Client) -> None:
    answer = control(
        mock, "PUT", "scenario", content=b"responses:\n  - {operation list_brands, status: 503\n"
    )
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("The scenario is neither JSON nor YAML: expected ',' or '}'")
    assert answer.json()["detail"].endswith(" at line 3, column 1")


SCENARIO_FILE = """
# The first request after the start fails.
responses:
  - {operation: list_brands, status: 503, retry_after: 1, times: 1}
"""


def test_a_scenario_file_applies_from_the_start_and_after_each_reset(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(SCENARIO_FILE)
    with running_mock(tmp_path / "server", MOCK_SCENARIO=str(file)) as mock:
        assert [mock.get("/brands/").status_code for _ in range(2)] == [503, 200]
        control(mock, "POST", "reset")
        assert [mock.get("/brands/").status_code for _ in range(2)] == [503, 200]


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "SARTIQ_MODE": "mock", **environment}
    command = [sys.executable, "-m", "handlers", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_mock_does_not_start_with_a_file_that_is_no_scenario(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text("responses: [{operation: list_brands, status: 418}]")
    outcome = run_command(MOCK_SCENARIO=str(file))
    assert outcome.returncode == 2
    assert f"MOCK_SCENARIO: {file}: /responses/0/status: list_brands has no response 418." in outcome.stderr


def test_the_wait_command_returns_when_the_server_is_ready(mock: httpx.Client) -> None:
    ready = run_command("wait", PORT=str(mock.base_url.port))
    assert ready.returncode == 0, ready.stderr
    assert ready.stdout == f"Ready: http://localhost:{mock.base_url.port}\n"
    proxied = run_command("wait", PORT=str(mock.base_url.port), PUBLIC_URL="https://api.example.com")
    polled = f"http://127.0.0.1:{mock.base_url.port}"
    assert proxied.stdout == f"Ready: https://api.example.com (polled at {polled})\n"
    absent = run_command("wait", "--seconds", "1", PORT=str(free_port()))
    assert absent.returncode == 1
    assert "is not ready after 1 s" in absent.stderr
