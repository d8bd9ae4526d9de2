"""`make bench-profile`: where the microseconds of one request go, stage by stage.

The server runs in this process, on PostgreSQL, with the rows of the benchmark. Each kind of request is first
asked as it is, for the work that it takes, and then profiled. A profiler makes small functions look dear, so
its figures are only shares: they are scaled to the work of the same request without it. Function calls are
what they are, on any machine.
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
from tests.support.databases import create_database
from tests.tools.bench.in_process import HOST, InProcessServer, run_in_process_server
from tests.tools.bench.open_loop import encode_requests
from tests.tools.bench.operations import OPERATIONS_BY_NAME
from tests.tools.bench.profiler import RequestProfile
from tests.tools.bench.rows import Scale, create_rows
from tests.tools.bench.stages import REST, STAGES, WAITING

RESULTS = Path(__file__).with_suffix(".md")
SCALE = Scale(organizations=100, products=200)
OPERATIONS = ("read", "not_modified", "list_20", "list_100", "create", "update", "invalid")
SIGN_IN = "sign_in"
EMAIL, PASSWORD = "user1@bench.example", "as good as any other"


@dataclass(frozen=True)
class Profile:
    """One kind of request: microseconds of work and function calls by stage, and the database's part."""

    title: str
    work: float
    """Microseconds in this process, without a profiler."""
    stages: Mapping[str, float]
    calls: Mapping[str, int]
    waiting: float
    """Microseconds until PostgreSQL had answered, in which this process did nothing."""
    statements: float
    round_trips: float
    unmapped: frozenset[str]

    def share(self, stage: str) -> float:
        """How much of the work is of a stage, in per cent."""
        return 100 * self.stages[stage] / self.work


def prepare_database(database_url: str) -> None:
    """Make the schema and the rows of the benchmark; the first account gets a password."""
    upgrade(database_url)
    # The login owns the tables, and may see and write all rows when it says that it migrates.
    owner = sqlalchemy.make_url(database_url).update_query_dict({"options": f"-c {MIGRATING}=on"})
    create_rows(owner.render_as_string(hide_password=False), SCALE)
    engine = build_engine(owner.render_as_string(hide_password=False), pool_size=1)
    with engine.begin() as connection:
        given = {"hashed": hash_password(PASSWORD), "email": EMAIL}
        connection.execute(
            sqlalchemy.text("UPDATE users SET hashed_password = :hashed WHERE email = :email"), given
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
    """Return the title, the status and the requests of one kind, the same few again and again."""
    if name == SIGN_IN:
        return "sign in", 200, _sign_in_requests()
    operation = OPERATIONS_BY_NAME[name]
    requests = operation.requests(server.client(), SCALE)
    # A tag is good for one change, so each of those is asked once.
    again = requests if operation.changes_etag else requests[:times]
    return operation.title, operation.status, encode_requests(again, HOST)


def profile_operation(server: InProcessServer, name: str, times: int) -> Profile:
    """Ask one kind of request so many times to warm up, as many without a profiler and with it."""
    title, status, requests = _build_requests(server, name, times)
    for wire in islice(requests, times):
        told = server.send(wire)
        if not told.startswith(f"HTTP/1.1 {status} ".encode()):
            raise RuntimeError(f"{title} was answered {told[:300]!r}")
    work = 1e6 * median(server.measure_cpu_seconds(wire) for wire in islice(requests, times))
    found = [server.profile(wire) for wire in islice(requests, times)]
    raw = {stage: median(each.nanoseconds[stage] for each in found) / 1000 for stage in (*STAGES, REST)}
    waiting_work = median(each.waiting_work for each in found) / 1000
    waiting = max(0.0, raw[WAITING] - waiting_work)
    raw[WAITING] = waiting_work
    scale = work / sum(raw.values())
    return Profile(
        title,
        work,
        {stage: scale * spent for stage, spent in raw.items()},
        _calls(found),
        waiting,
        median(each.statements for each in found),
        median(each.statements + 2 * each.ends for each in found),
        frozenset().union(*(each.unmapped for each in found)),
    )


def _calls(found: list[RequestProfile]) -> dict[str, int]:
    return {stage: int(median(each.calls[stage] for each in found)) for stage in (*STAGES, REST)}


def profile_operations(times: int) -> list[Profile]:
    """Profile each kind of request on a database of its own; OperationalError without a PostgreSQL."""
    with tempfile.TemporaryDirectory() as name, create_database("postgresql", Path(name)) as url:
        prepare_database(url)
        with run_in_process_server(Path(name), url) as server:
            # A password is meant to take its time.
            return [
                profile_operation(server, kind, 5 if kind == SIGN_IN else times)
                for kind in (*OPERATIONS, SIGN_IN)
            ]


def format_table(found: list[Profile]) -> Iterator[str]:
    """Give the table: stages by kinds of request, in microseconds, per cent and function calls."""
    yield f"| stage | {' | '.join(each.title for each in found)} |"
    yield f"|---|{'---:|' * len(found)}"
    for stage in (*STAGES, REST):
        if any(each.calls[stage] for each in found):
            cells = [
                f"{one.stages[stage]:.0f} ({one.share(stage):.0f} %), {one.calls[stage]}" for one in found
            ]
            yield f"| {stage} | {' | '.join(cells)} |"
    yield _row("**work, µs**", [each.work for each in found])
    yield _row("**function calls**", [sum(each.calls.values()) for each in found])
    yield _row(
        "waited for PostgreSQL beside, µs (grows with what else runs)", [each.waiting for each in found]
    )
    yield _row("statements", [each.statements for each in found])
    yield _row("round trips, with begin and end of transactions", [each.round_trips for each in found])


def _row(title: str, figures: list[float]) -> str:
    return f"| {title} | {' | '.join(f'{figure:,.0f}' for figure in figures)} |"


def format_report(found: list[Profile], times: int) -> str:
    """Return what is written down."""
    python = ".".join(map(str, sys.version_info[:2]))
    words = (
        "# Where the microseconds of a request go\n\n"
        f"Written by `make bench-profile` with Python {python} on a shared machine of two cores: compare "
        "shares and calls, not times with those of another one. Each cell holds microseconds of work in the "
        "server's process, their share, and function calls; the medians of "
        f"{times} requests. Server, parser and threads are as shipped, only the socket is missing.\n\n"
    )
    return words + "\n".join(format_table(found)) + "\n"


def main() -> int:
    """Profile, print, and write it down when asked to."""
    parser = argparse.ArgumentParser(prog="make bench-profile ARGS=...", description=__doc__)
    parser.add_argument("--times", type=int, default=60, help="requests of each kind")
    parser.add_argument("--write", action="store_true", help=f"write tests/tools/bench/{RESULTS.name}")
    options = parser.parse_args()
    try:
        found = profile_operations(options.times)
    except OperationalError as error:
        print(f"Not measured, for want of a PostgreSQL (TEST_POSTGRESQL_URL): {error.orig}", file=sys.stderr)
        return 2
    text = format_report(found, options.times)
    print(text)
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
