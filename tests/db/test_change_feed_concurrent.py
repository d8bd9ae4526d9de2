"""A reader of the change feed gets every committed change once, although writers commit in any order."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, select, text, update

from db.base import new_id
from db.change_feed.queries import START, ChangeRow, Position, changes_query, latest_query
from db.engine import build_engine
from db.models import Brand
from db.session import Database
from tests.support import factories as make
from tests.support.change_feed import BEHIND_ENDED, OLDEST_OF_THIS_DATABASE, pages_end_at
from tests.support.concurrency import WriterAborted

WRITERS, STEPS, PAGE = 5, 12, 7
MAX_DELAY_SECONDS = 0.02
MAX_WAIT_SECONDS = 120

Tenant = tuple[UUID, UUID]
Entry = tuple[UUID, str]


def wait_for_open_transactions(database: Database) -> None:
    """Wait until the transactions of the database that are open now have ended."""
    with database.transaction(write=False) as session:
        newest = session.scalar(text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")) or 0
    give_up_at = time.monotonic() + MAX_WAIT_SECONDS
    while True:
        with database.transaction(write=False) as session:
            if session.execute(*latest_query()).scalar_one() >= newest:
                return
        assert time.monotonic() < give_up_at, "another transaction stays open"
        time.sleep(0.05)


@dataclass
class Reader:
    """A client that pages through the feed of an organization and keeps what it got."""

    tenant: Tenant
    position: Position = START
    entries: list[Entry] = field(default_factory=list)

    def read_page(self, database: Database) -> int:
        """Read one page; return how many changes it had."""
        with database.transaction(write=False) as session:
            found = session.execute(*changes_query(*self.tenant, self.position, PAGE))
            rows = [ChangeRow(*row) for row in found]
        self.entries += [(row.resource_id, row.change) for row in rows]
        if rows:
            self.position = Position(rows[-1].xid, rows[-1].sequence)
        return len(rows)

    def read_all(self, database: Database) -> None:
        """Read pages until one is empty, after the transactions that are open now have ended."""
        with pages_end_at(OLDEST_OF_THIS_DATABASE):
            wait_for_open_transactions(database)
        with pages_end_at(BEHIND_ENDED):
            self.read_now(database)

    def read_now(self, database: Database) -> None:
        """Read pages until one is empty."""
        while self.read_page(database):
            pass

    def find_existing(self) -> set[UUID]:
        """Return the resources that exist according to the feed."""
        last = dict(self.entries)
        return {row_id for row_id, change in last.items() if change != "deleted"}


@dataclass
class Writer:
    """Creates, changes and deletes brands in transactions of random length; `committed` has their changes."""

    database: Database
    tenant: Tenant
    seed: int
    committed: list[Entry] = field(default_factory=list)

    def run(self) -> None:
        """Run `STEPS` transactions."""
        rng, mine = random.Random(self.seed), list[UUID]()
        for step in range(STEPS):
            changes, ids = list[Entry](), list(mine)
            try:
                with self.database.transaction(write=True) as session:
                    for number in range(rng.randrange(1, 4)):
                        self._change(session, rng, ids, changes, f"{self.seed}-{step}-{number}")
                        if rng.random() < 0.5:
                            time.sleep(rng.random() * MAX_DELAY_SECONDS)
                    if rng.random() < 0.2:
                        raise WriterAborted
            except WriterAborted:
                continue
            self.committed += changes
            mine = ids

    def _change(
        self, session: Any, rng: random.Random, ids: list[UUID], changes: list[Entry], name: str
    ) -> None:
        action = rng.choice(("created", "created", "updated", "deleted")) if ids else "created"
        if action == "created":
            row_id = new_id()
            organization_id, owner_id = self.tenant
            session.add(
                Brand(id=row_id, organization_id=organization_id, owner_id=owner_id, name=name, slug=name)
            )
            session.flush()
            ids.append(row_id)
        else:
            row_id = rng.choice(ids)
            of_row = Brand.id == row_id
            session.execute(
                update(Brand).where(of_row).values(name=name)
                if action == "updated"
                else delete(Brand).where(of_row)
            )
            if action == "deleted":
                ids.remove(row_id)
        changes.append((row_id, action))


@pytest.fixture
def tenant(emptied_database: Database) -> Tenant:
    """Return the ids of an organization and its owner."""
    with emptied_database.transaction(write=True):
        owner = make.make_user()
        return make.make_organization(owner).id, owner.id


@contextmanager
def open_database(url: str) -> Iterator[Database]:
    database = Database(build_engine(url, pool_size=WRITERS + 3))
    yield database
    database.dispose()


ANOTHER_SEED = pytest.mark.slow("the first seed proves the rule")


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=ANOTHER_SEED), pytest.param(3, marks=ANOTHER_SEED)]
)
def test_a_reader_gets_every_committed_change_once(database_url: str, tenant: Tenant, seed: int) -> None:
    reader, over = Reader(tenant), threading.Event()
    with open_database(database_url) as database, ThreadPoolExecutor(WRITERS + 1) as pool:
        writers = [Writer(database, tenant, seed * 1_000 + number) for number in range(WRITERS)]

        def read_repeatedly() -> None:
            # The writers sleep for some milliseconds, too.
            while not over.wait(0.001):
                reader.read_page(database)

        with pages_end_at(OLDEST_OF_THIS_DATABASE):
            reading = pool.submit(read_repeatedly)
            try:
                for running in [pool.submit(writer.run) for writer in writers]:
                    running.result()
            finally:
                over.set()
            reading.result()
        reader.read_all(database)
        with database.transaction(write=False) as session:
            stored = set(session.scalars(select(Brand.id)))
    committed = [entry for writer in writers for entry in writer.committed]
    assert Counter(reader.entries) == Counter(committed)
    for writer in writers:
        own = {row_id for row_id, _ in writer.committed}
        assert [entry for entry in reader.entries if entry[0] in own] == writer.committed
    assert reader.find_existing() == stored
    assert len(committed) > STEPS


def test_an_open_transaction_delays_the_feed_and_loses_nothing(database_url: str, tenant: Tenant) -> None:
    reader = Reader(tenant)
    with open_database(database_url) as database, open_database(database_url) as other:
        with other.transaction(write=True) as session:
            early = Writer(other, tenant, 1)
            early._change(session, random.Random(1), [], early.committed, "early")
            with ThreadPoolExecutor(1) as pool:
                late = Writer(database, tenant, 2)
                pool.submit(late.run).result()
                # They have committed, but a page ends before the transaction that is still open, whatever
                # transactions of other databases are open.
                pool.submit(reader.read_now, database).result()
                assert reader.entries == []
        reader.read_all(database)
    assert reader.entries == early.committed + late.committed


def test_a_latest_position_misses_no_transaction_that_was_open(database_url: str, tenant: Tenant) -> None:
    with open_database(database_url) as database, open_database(database_url) as other:
        Writer(database, tenant, 1).run()
        with other.transaction(write=True) as session:
            early = Writer(other, tenant, 2)
            early._change(session, random.Random(1), [], early.committed, "early")

            def find_latest() -> Position:
                with database.transaction(write=False) as reading:
                    return Position(reading.execute(*latest_query()).scalar_one(), 0)

            with pages_end_at(OLDEST_OF_THIS_DATABASE), ThreadPoolExecutor(1) as pool:
                # Its transactions end, and have later numbers than the one that is still open.
                late = Writer(database, tenant, 3)
                pool.submit(late.run).result()
                reader = Reader(tenant, pool.submit(find_latest).result())
        reader.read_all(database)
        assert reader.entries == early.committed + late.committed


def test_changes_within_a_savepoint_have_the_number_of_their_transaction(
    database_url: str, tenant: Tenant
) -> None:
    with open_database(database_url) as database:
        with database.transaction(write=True) as session:
            changes: list[Entry] = []
            writer = Writer(database, tenant, 3)
            writer._change(session, random.Random(1), [], changes, "before")
            with session.begin_nested():
                writer._change(session, random.Random(1), [], changes, "within")
            writer._change(session, random.Random(1), [], changes, "after")
        reader = Reader(tenant)
        reader.read_all(database)
        assert reader.entries == changes
        with database.transaction(write=False) as session:
            assert (
                session.scalar(text("SELECT count(DISTINCT xid) FROM changes WHERE resource_type = 'brand'"))
                == 1
            )
