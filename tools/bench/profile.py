"""`make bench-profile`: profile one request by stage.

The server runs in this process, on PostgreSQL, with the rows of the benchmark. Each kind of request is first
sent without a profiler, to measure its CPU time, and then with one. A profiler makes small functions look
expensive, so its times serve only as shares, which are scaled to the CPU time without it. The numbers of
function calls are the same on every machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

import sqlalchemy
from sqlalchemy.exc import OperationalError

from db.engine import build_engine
from db.migrations import upgrade
from db.rls.session_role import MIGRATING
from studio.accounts.identity.passwords import hash_password
from tools.bench.in_process import HOST, InProcessServer, run_in_process_server
from tools.bench.open_loop import encode_requests
from tools.bench.operations import OPERATIONS_BY_NAME
from tools.bench.profiler import RequestProfile
from tools.bench.rows import Scale, create_rows
from tools.bench.stages import REST, STAGES, WAITING
from tools.servers.databases import create_database

RESULTS = Path(__file__).with_suffix(".md")
SCALE = Scale(organizations=100, products=200)
OPERATIONS = ("read", "not_modified", "list_20", "list_100", "create", "update", "invalid")
SIGN_IN = "sign_in"
EMAIL, PASSWORD = "user1@bench.example", "as good as any other"


@dataclass(frozen=True)
class Profile:
    """The profile of one kind of request: CPU microseconds and function calls by stage, and statements."""

    title: str
    work: float
    """CPU microseconds of this process, without a profiler."""
    stages: Mapping[str, float]
    calls: Mapping[str, int]
    waiting: float
    """Microseconds in which this process waited for PostgreSQL and did nothing."""
    statements: float
    round_trips: float
    unmapped: frozenset[str]

    def share(self, stage: str) -> float:
        """Return the share of a stage in the CPU time, in percent."""
        return 100 * self.stages[stage] / self.work


def prepare_database(database_url: str) -> None:
    """Create the schema and the rows of the benchmark, and set the password of the first account."""
    upgrade(database_url)
    # This role owns the tables. With the option of a migration, it can read and write all rows.
    owner = sqlalchemy.make_url(database_url).update_query_dict({"options": f"-c {MIGRATING}=on"})
    create_rows(owner.render_as_string(hide_password=False), SCALE)
    engine = build_engine(owner.render_as_string(hide_password=False), pool_size=1)
    with engine.begin() as connection:
        values = {"hashed": hash_password(PASSWORD), "email": EMAIL}
        connection.execute(
            sqlalchemy.text("UPDATE users SET hashed_password = :hashed WHERE email = :email"), values
        )
    engine.dispose()


def _sign_in_requests() -> Iterator[bytes]:
    body = urlencode({"username": EMAIL, "password": PASSWORD})
    head = (
        f"POST /api/v1/login/access-token HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    while True:
        yield (head + body).encode()


def _build_requests(server: InProcessServer, name: str, times: int) -> tuple[str, int, Iterator[bytes]]:
    """Return the title, the expected status and the requests of one kind, which repeat."""
    if name == SIGN_IN:
        return "sign in", 200, _sign_in_requests()
    operation = OPERATIONS_BY_NAME[name]
    requests = operation.requests(server.client(), SCALE)
    # An ETag is valid for one update, so each of those requests is sent once.
    repeated = requests if operation.changes_etag else requests[:times]
    return operation.title, operation.status, encode_requests(repeated, HOST)


def profile_operation(server: InProcessServer, name: str, times: int) -> Profile:
    """Send one kind of request `times` times each to warm up, without a profiler and with a profiler."""
    title, status, requests = _build_requests(server, name, times)
    for request in islice(requests, times):
        response = server.send(request)
        if not response.startswith(f"HTTP/1.1 {status} ".encode()):
            raise RuntimeError(f"{title}: unexpected response {response[:300]!r}")
    work = 1e6 * median(server.measure_cpu_seconds(request) for request in islice(requests, times))
    profiles = [server.profile(request) for request in islice(requests, times)]
    raw = {stage: median(each.nanoseconds[stage] for each in profiles) / 1000 for stage in (*STAGES, REST)}
    waiting_work = median(each.waiting_work for each in profiles) / 1000
    waiting = max(0.0, raw[WAITING] - waiting_work)
    raw[WAITING] = waiting_work
    scale = work / sum(raw.values())
    return Profile(
        title,
        work,
        {stage: scale * spent for stage, spent in raw.items()},
        _median_calls(profiles),
        waiting,
        median(each.statements for each in profiles),
        median(each.statements + 2 * each.ends + each.messages for each in profiles),
        frozenset().union(*(each.unmapped for each in profiles)),
    )


def _median_calls(profiles: list[RequestProfile]) -> dict[str, int]:
    return {stage: int(median(each.calls[stage] for each in profiles)) for stage in (*STAGES, REST)}


def profile_operations(times: int) -> list[Profile]:
    """Profile each kind of request on a new database.

    Raises:
        OperationalError: PostgreSQL is not available.
    """
    with tempfile.TemporaryDirectory() as name, create_database() as url:
        prepare_database(url)
        with run_in_process_server(Path(name), url) as server:
            # Password hashes are slow by design, so there are fewer sign-ins.
            return [
                profile_operation(server, kind, 5 if kind == SIGN_IN else times)
                for kind in (*OPERATIONS, SIGN_IN)
            ]


def format_table(profiles: list[Profile]) -> Iterator[str]:
    """Yield the lines of the table: microseconds, percent and function calls by stage and kind of request."""
    yield f"| stage | {' | '.join(each.title for each in profiles)} |"
    yield f"|---|{'---:|' * len(profiles)}"
    for stage in (*STAGES, REST):
        if any(each.calls[stage] for each in profiles):
            cells = [
                f"{one.stages[stage]:.0f} ({one.share(stage):.0f} %), {one.calls[stage]}" for one in profiles
            ]
            yield f"| {stage} | {' | '.join(cells)} |"
    yield _row("**CPU time, µs**", [each.work for each in profiles])
    yield _row("**function calls**", [sum(each.calls.values()) for each in profiles])
    yield _row(
        "waiting for PostgreSQL, µs (grows with other load on the machine)",
        [each.waiting for each in profiles],
    )
    yield _row("statements", [each.statements for each in profiles])
    yield _row("round trips, with begin and end of transactions", [each.round_trips for each in profiles])


def _row(title: str, values: list[float]) -> str:
    return f"| {title} | {' | '.join(f'{value:,.0f}' for value in values)} |"


def format_report(profiles: list[Profile], times: int) -> str:
    """Return the report as Markdown."""
    python = ".".join(map(str, sys.version_info[:2]))
    head = (
        "# Profile of a request by stage\n\n"
        f"Written by `make bench-profile` with Python {python} on a shared machine with two cores. Compare "
        "shares and calls; times are not comparable with those of another machine. Each cell holds CPU "
        "microseconds of the server's process, their share, and function calls: the medians of "
        f"{times} requests. Server, parser and threads are as shipped; only the socket is missing.\n\n"
    )
    return head + "\n".join(format_table(profiles)) + "\n"


def main() -> int:
    """Profile, print, and write the report if `--write` is given."""
    parser = argparse.ArgumentParser(prog="make bench-profile ARGS=...", description=__doc__)
    parser.add_argument("--times", type=int, default=60, help="number of requests of each kind")
    parser.add_argument("--write", action="store_true", help=f"write tools/bench/{RESULTS.name}")
    options = parser.parse_args()
    try:
        profiles = profile_operations(options.times)
    except OperationalError as error:
        print(f"Not measured: PostgreSQL (TEST_POSTGRESQL_URL) is missing: {error.orig}", file=sys.stderr)
        return 2
    text = format_report(profiles, options.times)
    print(text)
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
