"""The benchmark itself: its arithmetic, its open loop, and that what it leaves away is there."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.resilience.processes import DependencyMissing, PostgresServer
from tests.support.requirements import skip_or_fail
from tests.tools.bench import lists, targets
from tests.tools.bench.closed_loop import LoadResult, require_wrk, run_load
from tests.tools.bench.environment import BenchEnvironment, BenchServer
from tests.tools.bench.feature_costs import Costs
from tests.tools.bench.feature_toggles import FEATURES, FunctionTimer, disabled, resolve_target
from tests.tools.bench.measurements import QUICK, BenchmarkRun, ServerResults
from tests.tools.bench.open_loop import Latencies, arrival_times, encode_requests, run_requests
from tests.tools.bench.operations import OPERATIONS_BY_NAME, Request
from tests.tools.bench.progress import Progress
from tests.tools.bench.report import COSTS_BEGIN, replace_costs_table
from tests.tools.bench.run import PERFORMANCE_PAGE, QUICK_SCALE, RESULTS, try_measure
from tests.tools.bench.servers import ASYNC, OURS, TEMPLATE
from tests.tools.bench.statistics import Estimate, paired_ratios, percentile, rotate
from tests.tools.bench.workers import Workers

RESPONSE_SECONDS = 0.02


def test_a_figure_tells_the_median_and_the_rounds_on_both_sides() -> None:
    assert Estimate.from_rounds([3.0, 1.0, 2.0]) == Estimate(2.0, 1.0, 3.0)


def test_the_bounds_of_a_median_hold_19_times_of_20_and_are_no_wider_than_need_be() -> None:
    chance = random.Random(1)
    figures = [Estimate.from_samples([chance.expovariate(1) for _ in range(100)]) for _ in range(1_000)]
    held = sum(figure.low <= math.log(2) <= figure.high for figure in figures)
    assert 940 <= held <= 980


def test_ratios_are_taken_within_a_round_so_that_a_slow_one_falls_out() -> None:
    assert paired_ratios([100.0, 10.0, 100.0], [50.0, 5.0, 50.0]) == Estimate(2.0, 2.0, 2.0)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.99) == 7


def test_in_each_round_somebody_else_is_first() -> None:
    orders = [rotate("abc", number) for number in range(4)]
    assert ["".join(order) for order in orders] == ["abc", "bca", "cab", "abc"]


def test_the_open_loop_asks_at_the_rate_and_moments_that_it_is_told() -> None:
    due = arrival_times(200, 60)
    assert math.isclose(len(due), 12_000, rel_tol=0.05)
    assert due == sorted(due)
    assert 0 < due[0] < due[-1] < 60
    assert arrival_times(200, 60) == due


def test_each_request_of_the_open_loop_has_its_own_number_and_its_length() -> None:
    asked = encode_requests([Request("POST", "/things", "token", '{"name": "no {n}"}')], "host:1")
    first, second = next(asked), next(asked)
    assert first.startswith(b"POST /things HTTP/1.1\r\nHost: host:1\r\nAuthorization: Bearer token\r\n")
    assert first.endswith(b'Content-Length: 16\r\n\r\n{"name": "no 1"}')
    assert second.endswith(b'{"name": "no 2"}')


@asynccontextmanager
async def run_slow_server(status: int = 200) -> AsyncIterator[str]:
    """A server that answers one request after the other, each after 20 milliseconds and with this status."""
    turn = asyncio.Lock()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            # A request without a body is lines up to an empty one; nothing more comes from who has hung up.
            while line := await reader.readline():
                if line != b"\r\n":
                    continue
                async with turn:
                    await asyncio.sleep(RESPONSE_SECONDS)
                writer.write(f"HTTP/1.1 {status} Said\r\nContent-Length: 2\r\n\r\nok".encode())

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        # Connections that the client has closed come to their end.
        await asyncio.sleep(0.1)


def test_a_server_that_falls_behind_cannot_hide_it_in_the_open_loop() -> None:
    """Twice as many requests as it can bear, for half a second: the last one waits for all the others."""
    due = arrival_times(100, 0.5)

    async def ask() -> Latencies:
        async with run_slow_server() as host:
            return await run_requests(host, encode_requests([Request("GET", "/", "token")], host), due, 200)

    found = asyncio.run(ask())
    assert (found.errors, len(found.seconds)) == (0, len(due))
    assert min(found.seconds) < max(found.seconds)
    assert max(found.seconds) > len(due) * RESPONSE_SECONDS - 0.5


@pytest.mark.parametrize(("expected", "answered"), [(200, 200), (200, 404), (422, 422), (304, 200)])
def test_the_closed_loop_counts_answers_that_are_not_as_expected(expected: int, answered: int) -> None:
    try:
        require_wrk()
    except DependencyMissing as missing:
        skip_or_fail(str(missing))
    operation = replace(OPERATIONS_BY_NAME["read"], status=expected)

    async def ask() -> LoadResult:
        async with run_slow_server(answered) as host:
            server = BenchServer(OURS, f"http://{host}", os.getpid(), 0.0, "none")
            return await asyncio.to_thread(run_load, server, operation, [Request("GET", "/", "token")], 2, 1)

    found = asyncio.run(ask())
    assert found.requests > 0
    assert (found.unexpected, found.failed_connections) == (0 if answered == expected else found.requests, 0)


def build_results(rate: int) -> ServerResults:
    """A contender that answers so many requests a second, in each of two rounds."""
    seen = ServerResults([1.0], statements={1: 5, 100: 5})
    for _ in range(2):
        seen.loads["read", 8].append(LoadResult(rate, 1.0, 0, 0, 0.5))
    return seen


@pytest.mark.parametrize(("ours", "is_met"), [(150, True), (149, False)])
def test_a_missed_target_is_told(ours: int, is_met: bool) -> None:
    found = list(targets.rate_verdicts(build_results(ours), build_results(100), "fastapi_template", 1.5))
    assert [verdict.is_met for verdict in found] == [is_met]
    assert found[0].measured.startswith(f"{ours / 100:.2f} (")


@pytest.mark.parametrize("part", FEATURES)
def test_what_the_benchmark_leaves_away_is_there(part: str) -> None:
    """A part that got another name would be measured as if it cost nothing."""
    for module, name, _ in FEATURES[part]:
        owner, last = resolve_target(module, name)
        assert callable(getattr(owner, last))


def test_a_clock_counts_a_part_that_calls_another_once() -> None:
    clock = FunctionTimer("rate_limits")
    inner = clock._timed(lambda: None)
    clock._timed(inner)()
    assert (clock.calls, clock.seconds > 0) == (1, True)
    inner()
    assert clock.calls == 2


def test_what_is_left_away_comes_back() -> None:
    owner, last = resolve_target("handlers.contract.responses", "Responses.find_mismatch")
    before = getattr(owner, last)
    with disabled("response_validation"):
        assert getattr(owner, last) is not before
    assert getattr(owner, last) is before


def test_a_contender_that_fails_is_left_out_and_ours_may_not() -> None:
    servers = [BenchServer(each, "http://127.0.0.1", 1, 1.0, "none") for each in (OURS, TEMPLATE, ASYNC)]
    measuring = BenchmarkRun(
        BenchEnvironment(PostgresServer(Path(), Path(), 1), Path(), QUICK_SCALE), servers, QUICK, Progress(0)
    )

    def fail_at(name: str) -> None:
        def measure(server: BenchServer) -> None:
            if server.spec.name == name:
                raise ValueError("broken")

        measuring._for_each_server(1, measure)

    fail_at(TEMPLATE.name)
    assert list(measuring.results) == [OURS.name, ASYNC.name]
    assert [server.spec for server in measuring.servers] == [OURS, ASYNC]
    assert measuring.failed == {TEMPLATE.title: "ValueError('broken')"}
    with pytest.raises(ValueError, match="broken"):
        fail_at(OURS.name)


def test_the_open_loop_asks_no_more_than_the_slowest_bears_over_few_connections_and_many() -> None:
    servers = [BenchServer(each, "http://127.0.0.1", 1, 1.0, "none") for each in (OURS, TEMPLATE)]
    measuring = BenchmarkRun(
        BenchEnvironment(PostgresServer(Path(), Path(), 1), Path(), QUICK_SCALE), servers, QUICK, Progress(0)
    )
    for contender, few, many in ((OURS, 300, 200), (TEMPLATE, 150, 100)):
        for connections, rates in ((8, [few, few + 1, 900]), (64, [many, many + 1, 900])):
            loads = [LoadResult(rate, 1.0, 0, 0, 0.5) for rate in rates]
            measuring.results[contender.name].loads["read", connections] = loads
    assert measuring.min_capacity("read") == 101


@pytest.mark.parametrize(
    ("clocked", "switched", "is_met"), [(0.04, 0.05, True), (0.06, 0.04, False), (0.04, 0.06, False)]
)
def test_the_cost_of_validation_is_the_higher_of_two_measurements(
    clocked: float, switched: float, is_met: bool
) -> None:
    costs = Costs({}, {}, Estimate(switched, 0.0, 1.0), clocked, {})
    assert targets.validation_verdict(costs).is_met == is_met


def test_a_failed_part_of_a_benchmark_is_reported_and_keeps_other_results() -> None:
    failed: dict[str, str] = {}
    assert try_measure("easy", failed, lambda: 7) == 7
    assert try_measure("hard", failed, lambda: int("seven")) is None
    assert list(failed) == ["hard"]
    assert "invalid literal" in failed["hard"]


@pytest.mark.parametrize(
    ("rates", "work", "are_met"),
    [((100, 140), (1.0, 1.1), [True, True]), ((100, 139), (1.0, 1.2), [False, False])],
)
def test_a_second_worker_has_to_pay(
    rates: tuple[int, int], work: tuple[float, float], are_met: list[bool]
) -> None:
    one, two = (
        [LoadResult(rate, 1.0, 0, 0, seconds * rate / 1000)]
        for rate, seconds in zip(rates, work, strict=True)
    )
    assert [verdict.is_met for verdict in targets.worker_verdicts(Workers(one, two, [1.5]))] == are_met


def test_a_list_is_as_slow_as_its_worst_page_but_for_what_has_to_walk(
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
    assert replace_costs_table(results, page) == page
    assert replace_costs_table(results.replace("|", "!"), page) != page
