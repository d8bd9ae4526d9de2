"""The measuring instrument of `make abuse`: its attacks, its client, and what fails a run."""

from __future__ import annotations

import asyncio
import random
import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.abuse import deployment, run
from tests.abuse.attacks import ATTACKS, Attack, Target
from tests.abuse.bystander import Observation, Samples, percentile
from tests.abuse.client import Address, Connection, ConnectionEnded, Payload, encode_request
from tests.abuse.report import MAX_GROWTH_MEGABYTES, Phase, format_row, judge
from tests.contract.operations import OPERATIONS
from tools.servers.http_recorder import StubResponse, run_http_recorder
from tools.servers.server import BASE_PATH

ROWS = (
    "images", "batches", "exported", "running", "endpoints", "shots", "product", "products", "shooting",
    "imports", "review_link", "guests",
)  # fmt: skip
MEMORY = {"server 1": 100_000_000, "PostgreSQL": 50_000_000}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_every_attack_sends_requests_of_the_contract(attack: Attack, tmp_path: Path) -> None:
    for name in ("large.jpg", "bomb-0"):
        (tmp_path / name).write_bytes(b"image")
    ids = {**{name: ["an-id"] for name in ROWS}, "uploads": ["/uploads/an-id?expires=1&signature=s"]}
    target = Target("token", "an-id", ids, tmp_path, 1, random.Random(1))
    for payload in islice(attack.payloads(target), 10):
        if not payload.wire:
            continue
        method, url, _ = payload.wire.split(b"\r\n")[0].decode().split()
        path = urlsplit(url.removeprefix(BASE_PATH))
        (operation,) = [
            each
            for each in OPERATIONS.values()
            if each.method.upper() == method and matches(each.path, path.path)
        ]
        known = {each["name"] for each in operation.parameters if each["in"] == "query"}
        assert parse_qs(path.query).keys() <= known


def matches(template: str, path: str) -> bool:
    pairs = list(zip(template.split("/"), path.split("/"), strict=False))
    filled = all(a == b or (a.startswith("{") and b) for a, b in pairs)
    return template.count("/") == path.count("/") and filled


def make_phase(
    name: str, milliseconds: float, grown: int = 0, errors: tuple[str, ...] = (), probe: float = 3.0
) -> Phase:
    samples = Samples([milliseconds] * 50, list(errors))
    memory = {"server 1": MEMORY["server 1"] + grown * 1_000_000, "PostgreSQL": 0}
    return Phase(name, Observation(samples, Samples([3.0, probe])), {"429": 2}, 0.1, 0.5, memory, 0, 0)


@pytest.mark.parametrize(
    ("phase", "failures"),
    [
        (make_phase("fast", 149.0), []),
        (make_phase("slow", 150.0), ["slow: p99 is 150 ms, the limit 150 ms"]),
        (make_phase("late", 9.0, probe=999.0), []),
        (
            make_phase("late", 9.0, probe=1_000.0),
            ["late: the slowest probe took 1000 ms, the limit 1000 ms"],
        ),
        (make_phase("wrong", 9.0, errors=("GET /x: 500",)), ["wrong: 1 errors, the first: GET /x: 500"]),
        (make_phase("large", 9.0, MAX_GROWTH_MEGABYTES + 1), ["memory: grown by 151 MB, the limit 150 MB"]),
    ],
)
def test_a_run_fails_by_errors_latency_probes_and_memory(phase: Phase, failures: list[str]) -> None:
    idle = make_phase("idle", 30.0)
    assert judge([idle, phase]) == failures
    assert format_row(idle, phase).split()[0] == phase.name


def test_an_idle_p99_of_a_few_milliseconds_counts_as_the_floor() -> None:
    assert judge([make_phase("idle", 3.0), make_phase("attack", 99.0)]) == []
    assert judge([make_phase("idle", 3.0), make_phase("attack", 100.0)]) != []


def test_the_percentile_is_a_measured_value() -> None:
    values = [float(number) for number in range(1, 301)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (150.0, 297.0, 300.0)


def test_the_client_sends_drips_until_the_response() -> None:
    async def send(port: int, payload: Payload) -> tuple[int, bytes]:
        connection = await Connection.open(Address(port, "127.0.0.2"), keeps_bodies=True)
        response = await connection.send(payload)
        connection.close()
        with pytest.raises(ConnectionEnded):
            await connection.send(payload)
        return response.status, response.body

    with run_http_recorder(lambda request: StubResponse(200, request.body)) as server:
        head = encode_request("GET", "/", {"Content-Length": "3"})
        assert asyncio.run(send(server.port, Payload(head, b"x"))) == (200, b"xxx")
        whole = encode_request("PUT", "/", {}, b"abc")
        assert asyncio.run(send(server.port, Payload(whole))) == (200, b"abc")


@pytest.mark.slow("it starts a deployment and attacks it for ten seconds")
def test_one_attack_on_a_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether other packages than those of requirements.txt are installed makes no difference here.
    monkeypatch.setattr(deployment, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(deployment, "SEARCHED_PRODUCTS", 100)
    monkeypatch.setattr(deployment, "BATCH_LOOKS", 20)
    monkeypatch.setattr(run, "WARM_UP", ())
    monkeypatch.setattr(run, "IDLE_SECONDS", 5)
    monkeypatch.setattr(run, "CONTROL_SECONDS", 2)
    # Not `tmp_path`, which the user of PostgreSQL cannot enter.
    with (
        TemporaryDirectory(prefix="sartiq-abuse-") as folder,
        deployment.run_deployment(Path(folder), run.SEED, with_rates=False) as running,
    ):
        idle, control, attack = asyncio.run(run.run_phases(running, ["batches"], run.SEED, seconds=10))
    # Latencies are judged by `make abuse` only: tests share the machine with other work.
    assert [error for phase in (idle, control, attack) for error in phase.seen.errors] == []
    assert [len(phase.seen.jobs.milliseconds) for phase in (idle, control, attack)] == [1, 1, 1]
    assert attack.statuses["202"] > 0
    assert attack.statuses["open"] == ATTACKS["batches"].connections
    assert len(attack.seen.requests.slowest(3)) == 3
    assert attack.server_cpu > idle.server_cpu
