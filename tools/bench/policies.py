"""`make bench-policies`: measure the cost of PostgreSQL's row-level security on pages of 50.

Two servers, one with policies and one without, each on a database with the same rows, receive the same
requests in turns; only one of them works at a time. The first quartiles of the latencies are compared,
because other work on the machine disturbs them least. The exit status is 1 if a ratio exceeds `MAX_RATIO`.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy

from db.base import utc_now
from db.engine import build_engine
from db.migrations import upgrade
from db.models import Brand, Product, ProductImage, Shooting
from db.session import Database
from tools.bench.feature_toggles import disable_policies
from tools.bench.tenants import add_tenant, add_user
from tools.demo import Api
from tools.servers.databases import create_database
from tools.servers.server import running_server

EMAIL, PASSWORD = "owner@example.com", "as good as any other"
PAGES = ("/brands/", "/products/", "/shootings/")
TENANTS, ROWS = 10, 300
BLOCK = 20
# The limit was 1.05 while a page took three times as long. The absolute cost of the policies has not grown.
MAX_RATIO = 1.10


@dataclass
class Server:
    """One of the two servers, with its latencies in milliseconds by page."""

    api: Api
    organization_id: str
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {page: [] for page in PAGES})

    def measure_page(self, page: str) -> None:
        """Measure the latency of one page several times."""
        for _ in range(BLOCK):
            started_at = time.perf_counter()
            rows = self.api.get(page, limit=50, organization_id=self.organization_id)["data"]
            self.milliseconds[page].append((time.perf_counter() - started_at) * 1000)
            assert len(rows) == 50


def create_rows(database_url: str) -> str:
    """Create organizations with the same number of rows each; return the id of the first."""
    database = Database(build_engine(database_url, pool_size=1))
    organization_ids = []
    for number in range(TENANTS):
        with database.transaction(write=True):
            tenant = add_tenant(add_user(f"{number}-{EMAIL}", PASSWORD), f"organization-{number}")
            organization_ids.append(str(tenant.organization_id))
            for row in range(ROWS):
                brand = tenant.add(Brand, name="Atelier", slug=f"atelier-{row}")
                product = tenant.add(Product, name="Linen dress", sku=f"SKU-{row}", brand_id=brand.id)
                media = tenant.add_media()
                tenant.add(ProductImage, product_id=product.id, media_id=media.id, type="primary")
                tenant.add(Shooting, name="Spring lookbook", due_date=utc_now(), brand_id=brand.id)
    database.dispose()
    engine = sqlalchemy.create_engine(database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()
    return organization_ids[0]


@contextlib.contextmanager
def run_server(without: str = "") -> Iterator[Server]:
    """Run one of the servers on its own database, complete or without a feature."""
    with tempfile.TemporaryDirectory() as name, create_database() as url:
        upgrade(url)
        organization_id = create_rows(url)
        module = "handlers"
        if without:
            module = "tools.bench.feature_toggles"
            disable_policies(url)
        with (
            running_server(
                Path(name), module, DATABASE_URL=url, RENDER_WORKERS="0", WITHOUT=without
            ) as server,
            Api(server.origin) as api,
        ):
            api.sign_in(f"0-{EMAIL}", PASSWORD)
            yield Server(api, organization_id)


def main() -> int:
    """Measure, print and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds: int = parser.parse_args().rounds
    with run_server() as protected, run_server(without="policies") as unprotected:
        for number in range(rounds):
            for page in PAGES:
                servers = (protected, unprotected)
                for server in servers if number % 2 else servers[::-1]:
                    server.measure_page(page)
    print(f"{rounds * BLOCK} pages of 50 rows each, of {TENANTS * ROWS} rows a table; milliseconds")
    print(f"{'':12} {'without':>8} {'with':>8} {'ratio':>7} {'medians':>9}")
    worst = 0.0
    for page in PAGES:
        quartile, median, _ = statistics.quantiles(protected.milliseconds[page], n=4)
        quartile_without, median_without, _ = statistics.quantiles(unprotected.milliseconds[page], n=4)
        ratio = quartile / quartile_without
        print(
            f"{page:12} {quartile_without:8.2f} {quartile:8.2f} {ratio:7.3f} {median / median_without:9.3f}"
        )
        worst = max(worst, ratio)
    return int(worst > MAX_RATIO)


if __name__ == "__main__":
    sys.exit(main())
