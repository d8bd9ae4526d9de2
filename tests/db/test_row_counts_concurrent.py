"""Test that cached counts equal COUNT(*) in every snapshot while writers commit, roll back or are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from uuid import UUID

import pytest
from sqlalchemy import Connection, delete, select, update

from db.engine import build_engine
from db.models import Brand, Product, ProductState
from db.rls.session_role import bypass_rls
from db.row_counts.queries import compact_counts
from db.session import Database
from studio.jobs.maintenance import MAINTENANCE_TASKS
from tests.support import factories as make
from tests.support.concurrency import WriterAborted
from tests.support.row_counts import actual_counts, stored_counts
from tools.servers.server import ROOT

WRITERS, STEPS, MAX_STEPS = 4, 30, 2_000
DIFFERENT_SNAPSHOTS = 6
CATEGORIES = (None, "Coats", "Dresses")

# Writes rows, compacts the counts and then hangs before its commit.
HANGING_SCRIPT = """
import sys, time
from sqlalchemy import delete, update
from db.models import Product
from db.row_counts.queries import compact_counts
from db.engine import build_engine
from db.session import Database

database = Database(build_engine(sys.argv[1], pool_size=1))
with database.transaction(write=True) as session:
    session.execute(update(Product).where(Product.category == "Coats").values(state="ARCHIVED"))
    session.execute(delete(Product).where(Product.category == "Dresses"))
    compact_counts(session.connection())
    print("written", flush=True)
    time.sleep(60)
"""


@contextmanager
def snapshot(url: str) -> Iterator[Connection]:
    """Yield a connection with one snapshot of the rows of all tenants."""
    engine = build_engine(url, pool_size=1)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        bypass_rls(connection)
        yield connection
    engine.dispose()


def run_writer(
    database: Database, organization_id: UUID, owner_id: UUID, number: int, enough: threading.Event
) -> None:
    """Create, change and delete this writer's products in the organization that all writers share.

    It runs for at least `STEPS` transactions, until `enough` is set.
    """
    rng, sku = random.Random(number), (f"{number}-{step}" for step in count())
    mine = Product.sku.startswith(f"{number}-")
    scope = {"owner_id": owner_id, "organization_id": organization_id}
    brand_id: UUID | None = None

    def step() -> None:
        nonlocal brand_id
        with database.transaction(write=True) as session:
            match rng.randrange(6):
                case 0:
                    if brand_id is not None:
                        # The foreign key sets `brand_id` of its products to null.
                        session.execute(delete(Brand).where(Brand.id == brand_id))
                    brand_id = make.make_brand(**scope).id
                case 1 | 2:
                    for _ in range(rng.randrange(1, 6)):
                        make.make_product(
                            **scope, sku=next(sku), category=rng.choice(CATEGORIES), brand_id=brand_id
                        )
                case 3:
                    values = {"state": rng.choice(list(ProductState)), "brand_id": brand_id}
                    session.execute(update(Product).where(mine).values(values))
                case 4:
                    category = rng.choice(CATEGORIES)
                    session.execute(update(Product).where(mine).values(category=category))
                case 5:
                    state = rng.choice(list(ProductState))
                    session.execute(delete(Product).where(mine, Product.state == state))
            session.flush()
            if rng.random() < 0.2:
                raise WriterAborted

    for done in range(MAX_STEPS):
        if done >= STEPS and enough.is_set():
            break
        known = brand_id
        try:
            step()
        except WriterAborted:
            brand_id = known


@pytest.fixture
def organization(emptied_database: Database) -> tuple[UUID, UUID]:
    """Return the ids of an organization and of its owner."""
    with emptied_database.transaction(write=True):
        owner = make.make_user()
        return make.make_organization(owner).id, owner.id


@pytest.mark.slow("it writes for seconds")
def test_every_snapshot_has_correct_counts_during_writes_and_compaction(
    database_url: str, organization: tuple[UUID, UUID]
) -> None:
    database = Database(build_engine(database_url, pool_size=WRITERS + 1))
    over, enough = threading.Event(), threading.Event()
    seen: set[int] = set()

    def compact_repeatedly() -> None:
        while not over.wait(0.005):
            with database.transaction(write=True) as session:
                compact_counts(session.connection())

    def check_repeatedly() -> None:
        while not over.is_set():
            with snapshot(database_url) as connection:
                expected = actual_counts(connection)
                assert stored_counts(connection) == expected
                seen.add(expected.get(("products", "", "", organization[0]), 0))
            if len(seen) >= DIFFERENT_SNAPSHOTS:
                enough.set()

    with ThreadPoolExecutor(WRITERS + 2) as pool:
        observers = [pool.submit(compact_repeatedly), pool.submit(check_repeatedly)]
        writers = [
            pool.submit(run_writer, database, *organization, number, enough) for number in range(WRITERS)
        ]
        try:
            for writer in writers:
                writer.result()
        finally:
            over.set()
        for observer in observers:
            observer.result()
    assert len(seen) >= DIFFERENT_SNAPSHOTS
    with snapshot(database_url) as connection:
        assert stored_counts(connection) == actual_counts(connection)
        assert any(key[0] == "products" for key in stored_counts(connection))
    database.dispose()


def test_a_killed_process_does_not_change_the_counts(
    database_url: str, emptied_database: Database, organization: tuple[UUID, UUID]
) -> None:
    organization_id, owner_id = organization
    scope = {"owner_id": owner_id, "organization_id": organization_id}
    with emptied_database.transaction(write=True):
        for category in ("Coats", "Dresses"):
            make.make_product(**scope, category=category)
    with snapshot(database_url) as connection:
        before = stored_counts(connection)
    with subprocess.Popen(
        [sys.executable, "-c", HANGING_SCRIPT, database_url], cwd=ROOT, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        with snapshot(database_url) as connection:
            assert stored_counts(connection) == before
        writer.kill()
    with emptied_database.transaction(write=True):
        make.make_product(**scope, category="Coats")
    (compaction,) = [task for task in MAINTENANCE_TASKS if task.name == "compaction of row counts"]
    assert compaction.interval_seconds < 10
    with snapshot(database_url) as connection:
        found = stored_counts(connection)
        assert found == actual_counts(connection)
        assert found["products", "category", "Coats", organization_id] == 2
        assert connection.scalar(select(Product.id).where(Product.category == "Dresses"))
