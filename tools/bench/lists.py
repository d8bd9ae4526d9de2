"""`make bench-lists`: compare the lists of a tenant with a million products and of one with a thousand.

A server on PostgreSQL receives the same requests for two organizations, a small and a large one, among ten
thousand others. First one client sends them one by one; the first quartiles of the latencies are compared,
because other work on the machine disturbs them least. Then a hundred clients send them concurrently; the
best rounds are compared. The organizations take turns.

Before that, the other lists of the large organization are measured (`large_lists.py`): imports, their
results, changes, and the pages of the review board. If the machine was steady, their times replace the table
of the page about performance. The exit status is 1 if a time or a ratio misses its target.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import sqlalchemy

from db.engine import build_engine
from db.migrations import upgrade
from db.models import Brand, ShotType
from db.rls.session_role import bypass_rls
from db.session import Database
from tools.bench import large_lists
from tools.bench.calm import measure_busy_share, wait_until_calm
from tools.bench.closed_loop import LoadResult, require_wrk, run_load
from tools.bench.environment import (
    BOTH_CORES,
    CREATE_ROLES,
    POSTGRESQL,
    BenchEnvironment,
    BenchServer,
)
from tools.bench.operations import BASE_PATH, OPERATIONS_BY_NAME, Request
from tools.bench.published_tables import publish_table
from tools.bench.rows import Scale
from tools.bench.servers import OURS
from tools.bench.statistics import percentile, rotate
from tools.bench.targets import MAX_LARGE_TENANT_RATIO
from tools.bench.tenants import add_tenant, add_user
from tools.demo import Api
from tools.servers.processes import DependencyMissing, run_postgres
from tools.servers.server import running_server

EMAIL, PASSWORD = "owner@example.com", "as good as any other"
DATABASE, LARGE = "lists", 1_000_000
SMALL, OTHER_ORGANIZATIONS, PRODUCTS_PER_OTHER = 1_000, 10_000, 5
BRANDS, LIMIT, BLOCK = 20, 20, 5
CLIENTS, SECONDS = 100, 1
LINEAR = {"skip"}
"""Pages whose cost grows with the number of skipped rows. They are reported, but have no target."""

# Ids grow with time, like those of the server. One product in forty is a draft, so that the small tenant also
# has a full page of drafts.
PRODUCTS = """
INSERT INTO products (
    id, owner_id, organization_id, name, category, brand_id, state, public, metadata, created_at, updated_at
)
SELECT
    cast(
        lpad(to_hex(1730000000000 + n), 12, '0') || '70008000'
        || substr(md5(cast(:organization AS text) || n), 1, 12) AS uuid
    ),
    :owner, :organization, 'Product ' || md5(n::text), 'category ' || n % 10, (:brands)[1 + n % 20],
    CASE WHEN n % 40 = 0 THEN 'DRAFT' WHEN n % 100 < 20 THEN 'ARCHIVED' ELSE 'READY' END, false,
    '{}', timestamptz '2026-01-01' + n * interval '1 second',
    timestamptz '2026-06-01' + (n::bigint * 7919 % :rows) * interval '1 second'
FROM generate_series(1, :rows) AS n
"""
ORGANIZATIONS = """
WITH made AS (
    INSERT INTO organizations (id, name, slug, created_at, updated_at)
    SELECT gen_random_uuid(), 'Other ' || n, 'other-' || n, now(), now()
    FROM generate_series(1, :others) AS n RETURNING id
), members AS (
    INSERT INTO memberships (id, organization_id, user_id, role, provider_only, created_at, updated_at)
    SELECT gen_random_uuid(), id, :owner, 'owner', false, now(), now() FROM made
)
INSERT INTO products (
    id, owner_id, organization_id, name, category, state, public, metadata, created_at, updated_at
)
SELECT
    gen_random_uuid(), :owner, id, 'Product ' || n, 'category ' || n, 'READY', false, '{}', now(), now()
FROM made, generate_series(1, :of_others) AS n
"""

INDEXES = """
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY (:tables) AND starts_with(indexname, 'ix')
"""


@dataclass
class Tenant:
    """One of the two tenants, with the latencies and the results under load by page."""

    api: Api
    organization_id: str
    rows: int
    brand: str
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    loads: dict[str, list[LoadResult]] = field(default_factory=lambda: defaultdict(list))

    def pages(self) -> dict[str, dict[str, Any]]:
        """Return the query parameters of each page by its name."""
        brand = {"brand_id": self.brand}
        middle = self._cursor(skip=self.rows // 2)
        return {
            "first": {},
            "by name": {"sort": "name"},
            "by change": {"sort": "-updated_at"},
            "of a brand": brand,
            "of a category": {"category": "category 3"},
            "drafts": {"state": "DRAFT"},
            "drafts by name": {"state": "DRAFT", "sort": "name"},
            "ready by change": {"state": "READY", "sort": "updated_at"},
            "cursor": {"cursor": middle},
            "cursor by name": {"sort": "name", "cursor": self._cursor(skip=self.rows // 2, sort="name")},
            "cursor in a brand": {**brand, "cursor": self._cursor(skip=self.rows // 200, **brand)},
            "skip": {"skip": self.rows // 2},
        }

    def measure_page(self, name: str, page: dict[str, Any]) -> None:
        """Measure the latency of one page several times."""
        for _ in range(BLOCK):
            started_at = time.perf_counter()
            body = self._get(**page)
            self.milliseconds[name].append((time.perf_counter() - started_at) * 1000)
            assert body["count_exact"]
            assert len(body["data"]) == LIMIT

    def measure_page_under_load(self, server: BenchServer, name: str, page: dict[str, Any]) -> None:
        """Measure the rate of one page with all clients."""
        token = self.api.client.headers["Authorization"].removeprefix("Bearer ")
        query = urlencode({"limit": LIMIT, "organization_id": self.organization_id, **page})
        request = Request("GET", f"{BASE_PATH}?{query}", token)
        self.loads[name].append(run_load(server, OPERATIONS_BY_NAME["list_20"], [request], CLIENTS, SECONDS))

    def _cursor(self, **parameters: Any) -> str:
        return str(self._get(**parameters)["next_cursor"])

    def _get(self, **parameters: Any) -> dict[str, Any]:
        return self.api.get("/products/", limit=LIMIT, organization_id=self.organization_id, **parameters)


def create_rows(database_url: str, big: int) -> list[tuple[str, str]]:
    """Create the organizations and their rows; return the id and a brand of the small and the large one."""
    database = Database(build_engine(database_url, pool_size=1))
    created = []
    with database.transaction(write=True):
        owner, other = add_user(EMAIL, PASSWORD), add_user("other@example.com", PASSWORD)
        for name, rows in (("small", SMALL), ("large", big)):
            tenant = add_tenant(owner, name)
            brands = [
                tenant.add(Brand, name="Atelier", slug=f"atelier-{number}").id for number in range(BRANDS)
            ]
            created.append((owner.id, tenant.organization_id, brands, rows))
        others = {"owner": other.id, "others": OTHER_ORGANIZATIONS, "of_others": PRODUCTS_PER_OTHER}
        large = large_lists.LargeTenant(
            organization=tenant.organization_id,
            owner=owner.id,
            media=tenant.add_media().id,
            shot_type=tenant.add(ShotType, name="Front", slug="front", label="Front", framing="FULL_BODY").id,
            rows=big,
        )
    database.dispose()
    engine = build_engine(database_url, pool_size=1)
    with engine.begin() as connection:
        bypass_rls(connection)
        # Creating the indexes after the rows takes a tenth of the time.
        tables = ["products", *large_lists.TABLES]
        indexes = connection.execute(sqlalchemy.text(INDEXES), {"tables": tables}).all()
        for index in indexes:
            connection.exec_driver_sql(f"DROP INDEX {index.indexname}")
        connection.execute(sqlalchemy.text(ORGANIZATIONS), others)
        for owner_id, organization_id, brand_ids, rows in created:
            values = {"owner": owner_id, "organization": organization_id, "brands": brand_ids, "rows": rows}
            connection.execute(_with_types(PRODUCTS), values)
        large_lists.create_rows(connection, large)
        for index in indexes:
            connection.exec_driver_sql(index.indexdef)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()
    return [(str(organization_id), str(brands[0])) for _, organization_id, brands, _ in created]


def _with_types(statement: str) -> sqlalchemy.TextClause:
    one, many = sqlalchemy.Uuid(), sqlalchemy.ARRAY(sqlalchemy.Uuid())
    return sqlalchemy.text(statement).bindparams(
        sqlalchemy.bindparam("owner", type_=one),
        sqlalchemy.bindparam("organization", type_=one),
        sqlalchemy.bindparam("brands", type_=many),
    )


@dataclass(frozen=True)
class ListServer:
    """A server on a database server of its own, and the two tenants."""

    server: BenchServer
    database_process_id: int
    small: Tenant
    big: Tenant


@contextlib.contextmanager
def run_server(big: int) -> Iterator[ListServer]:
    """Run a server and PostgreSQL, whose files are deleted at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="sartiq-bench-") as name,
        run_postgres(Path(name) / "postgresql", **POSTGRESQL, fsync="off") as cluster,
    ):
        environment = BenchEnvironment(cluster, Path(name), Scale(1, big))
        environment.run(*CREATE_ROLES.strip().splitlines(), f"CREATE DATABASE {DATABASE} OWNER sartiq")
        url = environment.url(DATABASE)
        upgrade(url)
        (small, brand), (large, other_brand) = create_rows(url, big)
        with (
            running_server(Path(name) / "server", DATABASE_URL=url, RENDER_WORKERS="0") as server,
            Api(server.origin) as api,
        ):
            api.sign_in(EMAIL, PASSWORD)
            bench_server = BenchServer(OURS, server.origin, server.process.pid, 0.0, DATABASE)
            tenants = Tenant(api, small, SMALL, brand), Tenant(api, large, big, other_brand)
            yield ListServer(bench_server, cluster.process_id, *tenants)


Comparison = dict[str, tuple[float, float]]
"""The milliseconds per response for the small and the large tenant, by page."""


def compare_sequentially(small: Tenant, big: Tenant) -> Comparison:
    """Return the first quartiles of the latencies with one client."""

    def first_quartile(tenant: Tenant, name: str) -> float:
        return statistics.quantiles(tenant.milliseconds[name], n=4)[0]

    return {name: (first_quartile(small, name), first_quartile(big, name)) for name in small.milliseconds}


def compare_concurrently(small: Tenant, big: Tenant) -> Comparison:
    """Return the mean latencies with all clients, in the best round."""

    def mean_latency(tenant: Tenant, name: str) -> float:
        return 1000 * CLIENTS / max(each.rate for each in tenant.loads[name])

    return {name: (mean_latency(small, name), mean_latency(big, name)) for name in small.loads}


def print_comparison(rows: int, more_rows: int, compared: Comparison) -> float:
    """Print a table and return the highest ratio of the large tenant's latency to the small one's."""
    print(f"{'':18} {rows:>9,} {more_rows:>9,} {'ratio':>7}")
    for name, (short, long) in compared.items():
        print(f"{name:18} {short:9.2f} {long:9.2f} {long / short:7.2f}", flush=True)
    return max(long / short for name, (short, long) in compared.items() if name not in LINEAR)


def main() -> int:
    """Measure, print and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=LARGE)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pages", type=int, default=50, help="requests for each page of the other lists")
    parser.add_argument(
        "--wait", type=float, default=60, help="the longest wait for a calm machine, in seconds"
    )
    parser.add_argument("--crowds", type=int, default=10, help="rounds with a hundred clients")
    options = parser.parse_args()
    try:
        require_wrk()
    except DependencyMissing as missing:
        print(f"Not measured: missing {missing}", file=sys.stderr)
        return 2
    with run_server(options.rows) as running:
        small, big = running.small, running.big
        is_steady = wait_until_calm(options.wait, print, lambda: measure_busy_share(BOTH_CORES))
        others = large_lists.list_pages(big.api, big.organization_id)
        process_ids = [running.server.process_id, running.database_process_id]
        latencies = large_lists.measure(big.api, others, options.pages, process_ids)
        lines = large_lists.list_lines(latencies)
        print("\n".join(lines))
        print(publish_table("bench-lists", lines, is_steady=is_steady and options.rows >= LARGE))
        slowest = max(percentile(each.elapsed, 0.95) for each in latencies.values())
        tenants = [(tenant, tenant.pages()) for tenant in (small, big)]
        for number in range(options.rounds):
            for tenant, pages in rotate(tenants, number):
                for name, page in pages.items():
                    tenant.measure_page(name, page)
        print(f"{options.rounds * BLOCK} pages of {LIMIT} rows each; milliseconds")
        worst = print_comparison(small.rows, big.rows, compare_sequentially(small, big))
        for number in range(options.crowds):
            for name in sorted(tenants[0][1].keys() - LINEAR):
                for tenant, pages in rotate(tenants, number):
                    tenant.measure_page_under_load(running.server, name, pages[name])
    errors = sum(each.errors for tenant in (small, big) for loads in tenant.loads.values() for each in loads)
    print(f"{CLIENTS} clients, {options.crowds} rounds of {SECONDS} s, {errors} errors; milliseconds")
    worst = max(worst, print_comparison(small.rows, big.rows, compare_concurrently(small, big)))
    print(f"highest ratio {worst:.2f}; target: at most {MAX_LARGE_TENANT_RATIO}")
    print(f"highest p95 {slowest:.1f} ms; target: at most {large_lists.MAX_P95_MILLISECONDS} ms")
    is_met = worst <= MAX_LARGE_TENANT_RATIO and slowest <= large_lists.MAX_P95_MILLISECONDS and not errors
    return int(not is_met)


if __name__ == "__main__":
    sys.exit(main())
