"""`make bench-policies`: what PostgreSQL's policies cost on pages of 50.

Two real servers, one with policies and one without, each with a database of the same rows, answer the same
requests in turns; only one works at a time. Their fastest quarters are compared, which other work on the
machine disturbs least. It ends with 1 when a page costs more than is accepted.
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

from db.engine import build_engine
from db.migrations import upgrade
from db.session import Database
from studio.accounts.identity.passwords import hash_password
from tests.e2e.demo import Api
from tests.e2e.server import running_server
from tests.support import factories
from tests.support.databases import create_database
from tests.tools.bench.feature_toggles import disable_policies

EMAIL, PASSWORD = "owner@example.com", "as good as any other"
PAGES = ("/brands/", "/products/", "/shootings/")
TENANTS, ROWS = 10, 300
BLOCK = 20
# 1.05 until a page took a third of the time: what policies take of it did not become more.
MAX_RATIO = 1.10


@dataclass
class Server:
    """One of the two, and the milliseconds that its answers took, by page."""

    api: Api
    organization_id: str
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {page: [] for page in PAGES})

    def measure_page(self, page: str) -> None:
        """Ask for one page, again and again."""
        for _ in range(BLOCK):
            began = time.perf_counter()
            rows = self.api.get(page, limit=50, organization_id=self.organization_id)["data"]
            self.milliseconds[page].append((time.perf_counter() - began) * 1000)
            assert len(rows) == 50


def create_rows(database_url: str) -> str:
    """Make tenants with rows, all alike; return the id of the first one's organization."""
    database = Database(build_engine(database_url, pool_size=1))
    scopes = []
    for number in range(TENANTS):
        with database.transaction(write=True):
            account = {"email": f"{number}-{EMAIL}", "hashed_password": hash_password(PASSWORD)}
            organization = factories.make_organization(factories.make_user(**account))
            scopes.append(str(organization.id))
            brand = factories.make_brand(organization=organization)
            for _ in range(ROWS):
                factories.make_brand(organization=organization)
                product = factories.make_product(organization=organization, brand_id=brand.id)
                factories.make_product_image(product)
                factories.make_shooting(organization=organization, brand_id=brand.id)
    database.dispose()
    engine = sqlalchemy.create_engine(database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()
    return scopes[0]


@contextlib.contextmanager
def run_server(without: str = "") -> Iterator[Server]:
    """Run one of the servers on its own database, as it is or without a part."""
    with tempfile.TemporaryDirectory() as name, create_database("postgresql", Path(name)) as url:
        upgrade(url)
        scope = create_rows(url)
        module = "handlers"
        if without:
            module = "tests.tools.bench.feature_toggles"
            disable_policies(url)
        with (
            running_server(
                Path(name), module, DATABASE_URL=url, RENDER_WORKERS="0", WITHOUT=without
            ) as server,
            Api(server.origin) as api,
        ):
            api.sign_in(f"0-{EMAIL}", PASSWORD)
            yield Server(api, scope)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds: int = parser.parse_args().rounds
    with run_server() as protected, run_server(without="policies") as unprotected:
        for number in range(rounds):
            for page in PAGES:
                both = (protected, unprotected)
                for server in both if number % 2 else both[::-1]:
                    server.measure_page(page)
    print(f"{rounds * BLOCK} pages of 50 rows each, of {TENANTS * ROWS} rows a table; milliseconds")
    print(f"{'':12} {'without':>8} {'with':>8} {'ratio':>7} {'medians':>9}")
    worst = 0.0
    for page in PAGES:
        fast, middle, _ = statistics.quantiles(protected.milliseconds[page], n=4)
        fast_without, middle_without, _ = statistics.quantiles(unprotected.milliseconds[page], n=4)
        ratio = fast / fast_without
        print(f"{page:12} {fast_without:8.2f} {fast:8.2f} {ratio:7.3f} {middle / middle_without:9.3f}")
        worst = max(worst, ratio)
    return int(worst > MAX_RATIO)


if __name__ == "__main__":
    sys.exit(main())
