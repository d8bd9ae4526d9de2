"""The benchmark: its statistics, its open and closed loops, and the features that it can turn off."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from db.base import Base
from tests.support.requirements import skip_or_fail
from tools.bench import lists, processes, tail, tail_server, targets
from tools.bench.calm import MAX_REPEATED, Steadiness, read_core_times, run_steadily, wait_until_calm
from tools.bench.closed_loop import LoadResult, require_wrk, run_load
from tools.bench.conformance_check import CHECKS_BY_OPERATION, IMAGE_FIELDS, PRODUCT_FIELDS
from tools.bench.environment import BenchEnvironment, BenchServer
from tools.bench.feature_costs import Costs
from tools.bench.feature_toggles import FEATURES, FunctionTimer, disabled, resolve_target
from tools.bench.measurements import QUICK, BenchmarkRun, ServerResults
from tools.bench.open_loop import Latencies, arrival_times, encode_requests, run_requests
from tools.bench.operations import COUNTER, OPERATIONS_BY_NAME, RUN, Request
from tools.bench.processes import pinned_to_cores
from tools.bench.progress import Progress
from tools.bench.published_tables import replace_table
from tools.bench.report import COSTS_BEGIN, SHOP_BEGIN, SHOP_END, replace_tables
from tools.bench.rows import STATEMENTS
from tools.bench.run import PERFORMANCE_PAGE, QUICK_SCALE, RESULTS, try_measure
from tools.bench.servers import ASYNC, BARE, LITESTAR, OURS, SERVERS, TEMPLATE
from tools.bench.shop import ShopResults
from tools.bench.statistics import Estimate, paired_ratios, percentile, rotate
from tools.bench.workers import Workers
from tools.review.tools import BUNDLE, read_bundle
from tools.servers.processes import DependencyMissing, PostgresServer

RESPONSE_SECONDS = 0.02


def test_an_estimate_is_the_median_with_the_neighboring_rounds() -> None:
    assert Estimate.from_rounds([3.0, 1.0, 2.0]) == Estimate(2.0, 1.0, 3.0)


def test_the_bounds_of_a_median_hold_in_95_of_100_cases_and_are_no_wider() -> None:
    chance = random.Random(1)
    figures = [Estimate.from_samples([chance.expovariate(1) for _ in range(100)]) for _ in range(1_000)]
    held = sum(figure.low <= math.log(2) <= figure.high for figure in figures)
    assert 940 <= held <= 980


def test_ratios_are_taken_within_a_round_so_that_a_slow_round_cancels_out() -> None:
    assert paired_ratios([100.0, 10.0, 100.0], [50.0, 5.0, 50.0]) == Estimate(2.0, 2.0, 2.0)


def test_a_percentile_is_a_measured_value() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.99) == 7


def test_the_peers_return_every_property_that_the_contract_has() -> None:
    schemas = read_bundle(BUNDLE)["components"]["schemas"]
    assert set(schemas["Product"]["properties"]) == PRODUCT_FIELDS
    assert set(schemas["ProductImage"]["properties"]) == IMAGE_FIELDS


def test_the_rows_have_a_value_for_every_column_that_requires_one() -> None:
    inserts = re.findall(r"INSERT INTO (\w+)\s*\(([^)]*)\)", STATEMENTS.read_text(encoding="utf-8"))
    assert len(inserts) == 9
    for name, columns in inserts:
        required = {
            column.name
            for column in Base.metadata.tables[name].columns
            if not column.nullable and column.server_default is None
        }
        assert required <= set(re.split(r",\s*", columns)), name


def test_each_round_starts_with_another_server() -> None:
    orders = [rotate("abc", number) for number in range(4)]
    assert ["".join(order) for order in orders] == ["abc", "bca", "cab", "abc"]


def test_the_open_loop_sends_at_the_given_rate_and_times() -> None:
    due = arrival_times(200, 60)
    assert math.isclose(len(due), 12_000, rel_tol=0.05)
    assert due == sorted(due)
    assert 0 < due[0] < due[-1] < 60
    assert arrival_times(200, 60) == due


def test_each_request_of_the_open_loop_has_a_number_and_a_content_length() -> None:
    requests = encode_requests([Request("POST", "/things", "token", '{"name": "no {n}"}')], "host:1")
    first, second = next(requests), next(requests)
    assert first.startswith(b"POST /things HTTP/1.1\r\nHost: host:1\r\nAuthorization: Bearer token\r\n")
    assert first.endswith(b'Content-Length: 16\r\n\r\n{"name": "no 1"}')
    assert second.endswith(b'{"name": "no 2"}')


def test_each_request_of_the_open_loop_has_another_idempotency_key() -> None:
    prepared = [Request("POST", "/things", "", "{}", key=f"bench-{RUN}-{COUNTER}")]
    keys = [
        re.findall(rb"Idempotency-Key: (\S+)", next(requests))
        for requests in (encode_requests(prepared, "host:1"), encode_requests(prepared, "host:1"))
        for _ in range(2)
    ]
    assert len({key for (key,) in keys}) == 4
    assert all(b"Authorization" not in next(encode_requests(prepared, "host:1")) for _ in keys)


@asynccontextmanager
async def run_slow_server(status: int = 200) -> AsyncIterator[str]:
    """A server that handles one request at a time, in 20 ms, and returns this status."""
    lock = asyncio.Lock()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            # A request without a body ends with an empty line. A closed connection ends the loop.
            while line := await reader.readline():
                if line != b"\r\n":
                    continue
                async with lock:
                    await asyncio.sleep(RESPONSE_SECONDS)
                writer.write(f"HTTP/1.1 {status} Said\r\nContent-Length: 2\r\n\r\nok".encode())

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        # Connections that the client has closed come to their end.
        await asyncio.sleep(0.1)


def test_the_open_loop_shows_that_a_server_falls_behind() -> None:
    """Twice as many requests as it can handle, for half a second: the last one waits for all others."""
    due = arrival_times(100, 0.5)

    async def measure() -> Latencies:
        async with run_slow_server() as host:
            return await run_requests(host, encode_requests([Request("GET", "/", "token")], host), due, 200)

    latencies = asyncio.run(measure())
    assert (latencies.errors, len(latencies.seconds)) == (0, len(due))
    assert min(latencies.seconds) < max(latencies.seconds)
    assert max(latencies.seconds) > len(due) * RESPONSE_SECONDS - 0.5


@pytest.mark.parametrize(("expected", "answered"), [(200, 200), (200, 404), (422, 422), (304, 200)])
def test_the_closed_loop_counts_unexpected_responses(expected: int, answered: int) -> None:
    try:
        require_wrk()
    except DependencyMissing as missing:
        skip_or_fail(str(missing))
    operation = replace(OPERATIONS_BY_NAME["read"], status=expected)

    async def measure() -> LoadResult:
        async with run_slow_server(answered) as host:
            server = BenchServer(OURS, f"http://{host}", os.getpid(), 0.0, "none")
            return await asyncio.to_thread(run_load, server, operation, [Request("GET", "/", "token")], 2, 1)

    load = asyncio.run(measure())
    assert load.requests > 0
    assert (load.unexpected, load.failed_connections) == (0 if answered == expected else load.requests, 0)


def build_results(rate: int) -> ServerResults:
    """Return the results of a server with this rate in each of two rounds."""
    results = ServerResults([1.0], statements={1: 5, 100: 5})
    for _ in range(2):
        results.loads["read", 8].append(LoadResult(rate, 1.0, 0, 0, 0.5))
    return results


@pytest.mark.parametrize(("ours", "met"), [(300, "yes"), (299, "**no**")])
def test_a_missed_target_is_reported_as_missed(ours: int, met: str) -> None:
    (verdict,) = targets.rate_verdicts(build_results(ours), build_results(100), "fastapi_template")
    assert verdict.is_met == (met == "yes")
    _, target, measured, is_met = verdict.cells
    assert (target, is_met) == ("at least 3", met)
    assert measured.startswith(f"{ours / 100:.2f} (")
    (row,) = targets.summarize([verdict])
    assert row == (verdict.target.title, target, f"{ours / 100:.2f}", met)


def test_the_table_of_targets_has_the_range_of_all_operations_and_of_their_limits() -> None:
    litestar = targets.TARGETS["litestar"]
    operations = [
        targets.Verdict(litestar.of_operation(name), "", "", value)
        for name, value in (("list_20", 0.9), ("list_100", 0.7), ("other", 0.5))
    ]
    (row,) = targets.summarize(operations)
    assert row[1:] == ("at least 0.5 to 0.8", "0.50 to 0.90", "**no**, 2 of 3 met")


def test_a_run_fails_by_what_depends_neither_on_the_machine_nor_on_peers() -> None:
    rules = {name for name, target in targets.TARGETS.items() if target.is_rule}
    assert rules == {"statements", "errors"}


def test_no_target_is_about_what_a_server_without_guarantees_leaves_out() -> None:
    ours, theirs = (build_results(100) for _ in range(2))
    for results in (ours, theirs):
        results.loads["invalid", 8] = results.loads["create", 8] = results.loads["read", 8]
    compared = {
        name: [each.what.partition(",")[0] for each in targets.rate_verdicts(ours, theirs, name)]
        for name in ("flask_core", "fastify", "litestar")
    }
    read, create, invalid = (OPERATIONS_BY_NAME[name].title for name in ("read", "create", "invalid"))
    assert compared == {
        "flask_core": [read, create],
        "fastify": [read],
        "litestar": [read, invalid, create],
    }


def build_latencies(p99: float) -> ServerResults:
    """Return results with this 99th percentile in milliseconds over two rounds."""
    results = build_results(100)
    fast, slow = Latencies([0.001] * 98), Latencies([p99 / 1000] * 2)
    results.latencies["create", 0.8] = [fast, slow]
    results.latencies["create", 0.5] = [Latencies([9.0])]
    return results


@pytest.mark.parametrize(("ours", "is_met"), [(12.0, True), (12.1, False)])
def test_the_tail_is_compared_with_the_best_peer_over_all_rounds(ours: float, is_met: bool) -> None:
    peers = {"slow": build_latencies(9.0), "fast": build_latencies(8.0), "none": build_results(100)}
    (verdict,) = targets.tail_verdicts(build_latencies(ours), peers)
    assert verdict.is_met == is_met
    assert verdict.measured.endswith(f"({ours:.1f} ms over 100 requests; fast: 8.0 ms)")


def test_a_round_in_which_the_speed_of_the_machine_moved_is_repeated() -> None:
    speeds = iter([[100.0, 100.0], [100.0, 80.0], [100.0, 100.0], [95.0, 100.0]])
    steadiness, rounds, reports = Steadiness(), [], []
    run_steadily(steadiness, "read", lambda: rounds.append(1), reports.append, speeds=lambda: next(speeds))
    assert (len(rounds), steadiness.rounds, steadiness.is_steady) == (2, 1, True)
    assert reports == ["read: the speed of the machine moved by 20%; the round is repeated"]
    assert "1 of them were repeated because it moved by more than 15%" in steadiness.describe()


def test_a_round_that_no_repetition_helps_counts_and_is_named() -> None:
    speeds = itertools.cycle([[100.0], [50.0]])
    steadiness, rounds = Steadiness(), []
    run_steadily(
        steadiness, "read", lambda: rounds.append(1), lambda _: None, attempts=2, speeds=lambda: next(speeds)
    )
    assert (len(rounds), len(steadiness.repeated), steadiness.is_steady) == (2, 1, False)
    assert "1 rounds count although it moved: read" in steadiness.describe()
    steadiness.repeated *= MAX_REPEATED
    run_steadily(steadiness, "list", lambda: rounds.append(1), lambda _: None, speeds=lambda: next(speeds))
    assert len(rounds) == 3


def test_the_wait_for_a_calm_machine_ends_when_it_is_calm_or_at_its_limit() -> None:
    shares, reports = iter([0.9, 0.5, 0.01]), []
    assert wait_until_calm(60, reports.append, lambda: next(shares))
    assert [report.rpartition(":")[2] for report in reports] == [
        " a core is 90% busy",
        " a core is 50% busy",
    ]
    assert not wait_until_calm(0, reports.append, lambda: 0.9)
    assert "not calm" in reports[-1]


def test_a_busy_core_is_noticed() -> None:
    core = min(os.sched_getaffinity(0))
    before = read_core_times([core])
    with pinned_to_cores(core):
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            pass
    ((was_busy, was),), ((busy, total),) = before, read_core_times([core])
    assert (busy - was_busy) / (total - was) > 0.5


def test_a_process_is_idle_when_its_cpu_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [0.0, 0.05, 0.05, 0.1, 0.1, 0.1]
    monkeypatch.setattr(processes, "cpu_seconds", lambda _: readings.pop(0))
    assert processes.wait_until_idle(1)
    assert readings == []
    monkeypatch.setattr(processes, "cpu_seconds", lambda _: time.monotonic())
    assert not processes.wait_until_idle(1, 0.1)


def test_a_peer_is_not_asked_for_operations_that_it_does_not_have() -> None:
    servers = [BenchServer(each, "http://127.0.0.1", 1, 1.0, "none") for each in (OURS, BARE, LITESTAR)]
    benchmark_run = BenchmarkRun(
        BenchEnvironment(PostgresServer(Path(), Path(), 1), Path(), QUICK_SCALE), servers, QUICK, Progress(0)
    )
    for name, expected in (
        ("invalid", {"ours", "litestar"}),
        ("batch", {"ours", "asgi_asyncpg"}),
        ("with_key", {"ours", "litestar", "asgi_asyncpg"}),
    ):
        found = benchmark_run._measure_steadily(0, name, OPERATIONS_BY_NAME[name], lambda server: server.url)
        assert set(found) == expected


def test_every_operation_that_a_server_may_lack_exists() -> None:
    missing = {name for spec in SERVERS for name in spec.missing}
    assert missing == CHECKS_BY_OPERATION.keys() - {"with_key"}
    assert missing <= OPERATIONS_BY_NAME.keys()
    assert set(QUICK.operations) | set(QUICK.open_loop) <= OPERATIONS_BY_NAME.keys()
    assert {name for name in targets.TARGETS if name in {spec.name for spec in SERVERS}} == {
        "fastapi_template", "fastapi_async", "litestar", "flask_core", "fastify",
    }  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES)
def test_the_functions_of_a_feature_exist(feature: str) -> None:
    """A renamed function would be measured as if it cost nothing."""
    for module, name, _ in FEATURES[feature]:
        owner, last = resolve_target(module, name)
        assert callable(getattr(owner, last))


def test_a_timer_counts_nested_calls_once() -> None:
    timer = FunctionTimer("rate_limits")
    inner = timer._timed(lambda: None)
    timer._timed(inner)()
    assert (timer.calls, timer.seconds > 0) == (1, True)
    inner()
    assert timer.calls == 2


def test_a_disabled_feature_is_restored() -> None:
    owner, last = resolve_target("handlers.contract.responses", "Responses.find_mismatch")
    before = getattr(owner, last)
    with disabled("response_validation"):
        assert getattr(owner, last) is not before
    assert getattr(owner, last) is before


def test_another_server_may_fail_and_ours_may_not() -> None:
    servers = [BenchServer(each, "http://127.0.0.1", 1, 1.0, "none") for each in (OURS, TEMPLATE, ASYNC)]
    benchmark_run = BenchmarkRun(
        BenchEnvironment(PostgresServer(Path(), Path(), 1), Path(), QUICK_SCALE), servers, QUICK, Progress(0)
    )

    def fail_at(name: str) -> None:
        def measure(server: BenchServer) -> None:
            if server.spec.name == name:
                raise ValueError("broken")

        benchmark_run._for_each_server(1, measure)

    fail_at(TEMPLATE.name)
    assert list(benchmark_run.results) == [OURS.name, ASYNC.name]
    assert [server.spec for server in benchmark_run.servers] == [OURS, ASYNC]
    assert benchmark_run.failed == {TEMPLATE.title: "ValueError('broken')"}
    with pytest.raises(ValueError, match="broken"):
        fail_at(OURS.name)


def test_the_open_loop_sends_no_more_than_the_slowest_server_handles() -> None:
    servers = [BenchServer(each, "http://127.0.0.1", 1, 1.0, "none") for each in (OURS, TEMPLATE)]
    benchmark_run = BenchmarkRun(
        BenchEnvironment(PostgresServer(Path(), Path(), 1), Path(), QUICK_SCALE), servers, QUICK, Progress(0)
    )
    for spec, few, many in ((OURS, 300, 200), (TEMPLATE, 150, 100)):
        for connections, rates in ((8, [few, few + 1, 900]), (64, [many, many + 1, 900])):
            loads = [LoadResult(rate, 1.0, 0, 0, 0.5) for rate in rates]
            benchmark_run.results[spec.name].loads["read", connections] = loads
    assert benchmark_run.min_capacity("read") == 101


@pytest.mark.parametrize(
    ("timed", "disabled_cost", "is_met"), [(0.07, 0.08, True), (0.09, 0.04, False), (0.04, 0.09, False)]
)
def test_the_cost_of_validation_is_the_higher_of_two_measurements(
    timed: float, disabled_cost: float, is_met: bool
) -> None:
    costs = Costs({}, {}, Estimate(disabled_cost, 0.0, 1.0), timed, Estimate(1.1, 1.0, 1.2), {})
    verdict, _ = targets.cost_verdicts(costs)
    assert verdict.is_met == is_met


def test_the_parts_of_a_request_add_up_to_its_time_in_the_server() -> None:
    record = {
        tail_server.TOTAL: 0.010,
        tail_server.QUEUE: 0.001,
        tail_server.THREAD: 0.007,
        tail_server.THREAD_CPU: 0.002,
        tail_server.CPU_IN_STATEMENTS: 0.0005,
        tail_server.COMMITTING: 0.003,
        tail_server.COLLECTION: 0.004,
    }
    parts = tail.split_request(record)
    assert math.isclose(sum(parts.values()), record[tail_server.TOTAL])
    assert math.isclose(parts[tail.COMPUTING], 0.0015)
    assert math.isclose(parts[tail.WAITING], 0.0025)
    usual = {**record, tail_server.TOTAL: 0.009}
    measured = tail.Tail(0.8, 80.0, Latencies([0.01] * 100), [*[usual] * 99, record])
    lines = list(tail.format_table(measured))
    assert f"| {tail.LOOP} | 1.00 | 2.00 | 100% |" in lines
    assert "| **in the server** | 9.00 | 10.00 | 100% |" in lines


def test_a_failed_measurement_is_reported_and_others_are_kept() -> None:
    failed: dict[str, str] = {}
    assert try_measure("easy", failed, lambda: 7) == 7
    assert try_measure("hard", failed, lambda: int("seven")) is None
    assert list(failed) == ["hard"]
    assert "invalid literal" in failed["hard"]


@pytest.mark.parametrize(
    ("rates", "work", "are_met"),
    [((100, 140), (1.0, 1.1), [True, True]), ((100, 139), (1.0, 1.2), [False, False])],
)
def test_a_second_worker_must_raise_the_rate(
    rates: tuple[int, int], work: tuple[float, float], are_met: list[bool]
) -> None:
    one, two = (
        [LoadResult(rate, 1.0, 0, 0, seconds * rate / 1000)]
        for rate, seconds in zip(rates, work, strict=True)
    )
    workers = Workers(one, two, [1.5], 59_000_000)
    assert [verdict.is_met for verdict in targets.worker_verdicts(workers)] == [*are_met, True]


def test_a_list_is_as_slow_as_its_slowest_page_except_with_skip(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        lists.print_comparison(10, 1000, {"first": (2.0, 2.0), "by name": (2.0, 3.0), "skip": (1.0, 9.0)})
        == 1.5
    )
    assert "by name" in capsys.readouterr().out


def test_the_performance_page_has_the_costs_table_of_the_results() -> None:
    results, page = (path.read_text(encoding="utf-8") for path in (RESULTS, PERFORMANCE_PAGE))
    assert COSTS_BEGIN in results
    assert replace_tables(results, page) == page
    assert replace_tables(results.replace("|", "!"), page) != page


def test_the_rates_of_a_shop_replace_those_of_the_performance_page() -> None:
    shop = ShopResults(1_000, 2.0, 4.0, 500, 5.0, 6_000, 3.0, 214_000_000, 200, 40.0, 310_000_000)
    results = "\n".join((SHOP_BEGIN, *shop.list_table(), SHOP_END))
    page = replace_tables(results, PERFORMANCE_PAGE.read_text(encoding="utf-8"))
    assert "| rows of an import, new products | 1,000 | 500 |" in page
    assert "| approvals in batches | 500 | 100 |" in page
    assert "| entries of the change feed | 6,000 | 2,000 |" in page
    assert "| images of an import, 1200 x 1500 pixels | 200 | 5.0 |" in page
    assert replace_tables(results, page) == page
    assert shop.find_missed_targets() == ["an import takes 4.0 s, more than 1.2 s"]


@pytest.mark.parametrize("name", ["bench-balanced", "bench-lists"])
def test_the_table_of_a_single_benchmark_replaces_the_one_of_the_page(name: str) -> None:
    page = PERFORMANCE_PAGE.read_text(encoding="utf-8")
    replaced = replace_table(page, name, ["| another table |"])
    assert "| another table |" in replaced
    assert len(replaced) < len(page)
    assert replace_table(replaced, name, ["| another table |"]) == replaced
    with pytest.raises(ValueError, match="no comments around the table of bench-unknown"):
        replace_table(page, "bench-unknown", [])
