"""Run all queues through what can happen to a worker, to the database and to the storage.

Each queue runs on PostgreSQL with connections of its own, and with the function that its worker calls.
"""

from __future__ import annotations

import errno
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from sqlalchemy import URL, Connection, QueuePool, delete, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from db.base import utc_now
from db.caller import caller_context
from db.engine import build_engine
from db.models import ProductImport, Shooting, WebhookDelivery, WebhookEndpoint
from db.session import Database, current_session
from db.tenancy import get_visible
from handlers.app import BUNDLE
from handlers.contract.body_checks import load_body_checks
from studio.account_exports.create import request_account_export
from studio.account_exports.worker import run_pending_account_exports
from studio.cutouts.queue import CUTOUTS, CutoutLease, MadeCutout
from studio.cutouts.worker import run_next_cutout
from studio.destinations.queue import DELIVERIES
from studio.destinations.targets import Outcome
from studio.destinations.worker import run_pending_deliveries
from studio.exports.create import ExportRequest, create_export
from studio.exports.queue import ACCOUNT_EXPORTS, EXPORTS
from studio.exports.worker import run_pending_exports
from studio.generations.worker.executor import GenerationExecutor, GenerationWorkers
from studio.generations.worker.queue import GENERATIONS
from studio.imports.image_queue import IMAGES
from studio.imports.image_worker import run_pending_images
from studio.imports.queue import IMPORTS
from studio.imports.worker import ImportRunner
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.storage import LocalDisk, Storage, media_key
from studio.mail.emails import Email
from studio.mail.mailer import Mailer
from studio.mail.queue import EMAILS, run_pending_emails
from studio.providers import sample
from studio.publications import worker as publications
from studio.queue import running
from studio.queue.retries import WORK
from studio.queue.row_queue import Lease, RowQueue
from studio.queue.running import Heartbeat, Worker
from studio.webhooks import dispatcher
from studio.webhooks import queue as webhooks
from tests.studio.test_destination_deliveries import FOLDER, SETTINGS
from tests.studio.test_import_images import png, store_zip
from tests.studio.test_imports import start_import
from tests.support import factories
from tests.support.concurrency import run_concurrently
from tests.support.cutouts import make_quickly
from tests.support.factories.exports import make_approved_prediction
from tests.support.queues import PAST, retry_after_seconds
from tests.support.scenarios import PhotographedProduct, create_pending_generation, make_photographed_product
from tests.support.zip_files import build_zip
from tools.servers.databases import DatabaseFactory
from tools.servers.processes import wait_until

numbers = itertools.count(1)
contents = (f"image {number}".encode() for number in numbers)
MAX_WRITES = 20
"""More than any queue makes for one row."""
LEASE = timedelta(seconds=0.6)
POOL_SIZE = 6
POOL_TIMEOUT_SECONDS = 0.05
TIMEOUT_SECONDS = 20
FAILED_EVENTS = ["export.failed", "import.failed", "generation.failed"]
CHECK = load_body_checks(BUNDLE)


@dataclass
class Studio:
    """A customer with one row in the queue of a test."""

    database: Database
    storage: LocalDisk
    scenario: PhotographedProduct
    endpoint: WebhookEndpoint
    """It receives an event if a row fails."""
    lease: timedelta = LEASE

    @cached_property
    def worker(self) -> Worker:
        """A process that runs queues."""
        return Worker(self.database, self.storage, self.lease)

    def read(self, model: Any, *names: str) -> tuple[Any, ...]:
        """Return columns of the newest row of a table."""
        with self.database.transaction(write=False) as reading:
            query = select(*(getattr(model, name) for name in names)).order_by(model.id.desc()).limit(1)
            return tuple(reading.execute(query).one())


@dataclass(frozen=True)
class Queue:
    """A queue: how a row is added, and how a worker runs it."""

    name: str
    rows: RowQueue[Any, Any]
    add_row: Callable[[Studio], object]
    run: Callable[[Studio], object]
    completed: str = "completed"
    state_model: Any = None
    """The model with the status and the attempts, if the leased row has none."""
    attempts: str = "attempts"
    uses_files: bool = True
    """Whether the work reads or writes files."""
    progress_resets_attempts: bool = False
    takes_turns: bool = True

    def __str__(self) -> str:
        return self.name

    def read(self, studio: Studio) -> tuple[str, int, bool]:
        """Return the status of the newest row, the attempts that it has used up, and whether it is leased."""
        model = self.state_model or self.rows.model
        status, attempts = studio.read(
            model, self.rows.status or "status", self.rows.attempts or self.attempts
        )
        (owner,) = studio.read(self.rows.model, "lease_owner")
        return str(status), attempts, owner is not None

    @property
    def attempts_at_end(self) -> int:
        """The attempts of a row that was completed at its first attempt."""
        return int(not self.rows.counts_failures_only)

    @property
    def max_attempts(self) -> int:
        """After so many failed attempts a row fails."""
        return self.rows.retries.max_attempts


def add_export(studio: Studio, **request: Any) -> None:
    scenario = studio.scenario
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with studio.database.transaction(write=True):
        make_approved_prediction(studio.storage, scenario, next(contents))
        with caller_context(caller, None):
            create_export(get_visible(Shooting, scenario.shooting.id), ExportRequest(**request))


def run_exports(studio: Studio) -> None:
    run_pending_exports(studio.worker)


def add_account_export(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        # One account can request few copies a day, and only one at a time.
        request_account_export(factories.make_user().id)


def run_account_exports(studio: Studio) -> None:
    run_pending_account_exports(studio.worker)


def add_cutout(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        product = factories.make_product(**studio.scenario.ownership)
        image = factories.make_product_image(product, media_id=studio.scenario.media.id)
        factories.make_product_image_cutout(image)


def run_cutouts(studio: Studio) -> None:
    while run_next_cutout(studio.worker, make_from_file):
        pass


def add_import(studio: Studio, rows: str = "sku,name\nA-1,Dress\n", **columns: Any) -> None:
    with studio.database.transaction(write=True):
        start_import(studio.database, studio.storage, studio.scenario.organization, rows, **columns)


def run_imports(studio: Studio) -> None:
    ImportRunner(studio.worker, CHECK).run_pending()


def add_image_of_import(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        columns = store_zip(
            studio.storage, studio.scenario.organization, build_zip({"a.png": png(next(numbers))})
        )
    add_import(studio, "sku,name,image_url\nA-1,Dress,a.png\n", **columns)
    run_imports(studio)


def run_images_of_imports(studio: Studio) -> None:
    run_pending_images(studio.worker, SafeHttpClient())


def add_publication(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        factories.make_publication(make_approved_prediction(studio.storage, studio.scenario, next(contents)))


def run_publications(studio: Studio) -> None:
    publications.run_pending_publications(studio.worker)


def add_delivery(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        organization = studio.scenario.organization
        destination = factories.make_destination(SETTINGS, organization=organization, **FOLDER)
    add_export(studio, destination_id=destination.id)
    run_exports(studio)


def run_deliveries(studio: Studio) -> None:
    run_pending_deliveries(
        SETTINGS,
        studio.worker,
        SafeHttpClient(),
        put=lambda _target, _key, _file: Outcome(status_code=200),
    )


def add_generation(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        look = factories.make_look(studio.scenario.shooting, main_product_id=studio.scenario.product.id)
        shot = factories.make_shot(look, shot_type_id=studio.scenario.shot_type.id)
    scenario = replace(studio.scenario, shot=shot)
    create_pending_generation(studio.database, scenario, batch_size=1)


def run_generations(studio: Studio) -> None:
    executor = GenerationExecutor(studio.worker, 1, renderer=sample)
    try:
        while (lease := executor.lease_next()) is not None:
            executor.run(lease)
    finally:
        executor.close()


def add_message(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        endpoint = factories.make_webhook_endpoint(**studio.scenario.ownership)
        factories.make_webhook_delivery(endpoint, status="pending", tries=0, next_attempt_at=utc_now())


def send_messages(studio: Studio) -> None:
    deliver = partial(webhooks.Outcome, 204)
    while dispatcher.send_next(
        SETTINGS, studio.worker, SafeHttpClient(), deliver_message=lambda *_: deliver()
    ):
        pass


def add_email(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        Mailer(SETTINGS).send(
            Email("test", "dana@example.com", "Test", "Hello.", "Open", "https://example.com")
        )


def send_emails(studio: Studio) -> None:
    run_pending_emails(studio.worker, replace(SETTINGS, outbox_dir=studio.storage.root / "outbox"))


QUEUES = [
    Queue("exports", EXPORTS, add_export, run_exports),
    # An account has one open export at a time.
    Queue("account exports", ACCOUNT_EXPORTS, add_account_export, run_account_exports, takes_turns=False),
    Queue("cut-outs", CUTOUTS, add_cutout, run_cutouts),
    Queue("imports", IMPORTS, add_import, run_imports, progress_resets_attempts=True),
    # A tenant has one import at a time.
    Queue(
        "images of imports",
        IMAGES,
        add_image_of_import,
        run_images_of_imports,
        completed="added",
        takes_turns=False,
    ),
    Queue("publications", publications.PUBLICATIONS, add_publication, run_publications),
    Queue(
        "deliveries",
        DELIVERIES,
        add_delivery,
        run_deliveries,
        completed="delivered",
        progress_resets_attempts=True,
    ),
    Queue("generations", GENERATIONS, add_generation, run_generations),
    Queue(
        "webhooks",
        webhooks.MESSAGES,
        add_message,
        send_messages,
        completed="delivered",
        state_model=WebhookDelivery,
        attempts="tries",
        uses_files=False,
    ),
    Queue("e-mails", EMAILS, add_email, send_emails, completed="sent", uses_files=False, takes_turns=False),
]
all_queues = pytest.mark.parametrize("queue", QUEUES, ids=str)
file_queues = pytest.mark.parametrize("queue", [queue for queue in QUEUES if queue.uses_files], ids=str)


@pytest.fixture(scope="module")
def outage_database(database_factory: DatabaseFactory) -> Iterator[Database]:
    """Yield a database that only this module uses, because it ends all its connections.

    Its pool can be exhausted. All tests share it: a new engine compiles all statements again.
    """
    with database_factory.copy_migrated() as url:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("db.engine.POOL_TIMEOUT_SECONDS", POOL_TIMEOUT_SECONDS)
            database = Database(build_engine(url, pool_size=POOL_SIZE))
        yield database
        database.dispose()


def make_from_file(disk: Storage, lease: CutoutLease) -> MadeCutout:
    disk.read(media_key(lease.photo.media_id, lease.photo.extension))
    return make_quickly(disk, lease)


def _read_original(disk: Storage, lease: publications.PublicationLease, _heartbeat: Heartbeat) -> None:
    disk.read(media_key(lease.original.resource_id, lease.original.extension))


def make_studio(database: Database, storage: LocalDisk) -> Studio:
    with database.transaction(write=True):
        scenario = make_photographed_product(storage, None)
        endpoint = factories.make_webhook_endpoint(**scenario.ownership, event_types=FAILED_EVENTS)
    return Studio(database, storage, scenario, endpoint)


@pytest.fixture
def disk(storage: LocalDisk) -> FlakyDisk:
    """Return a storage that a test can take away."""
    return FlakyDisk(storage.root)


@pytest.fixture
def studio(outage_database: Database, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """Yield a customer with a webhook endpoint for failures."""
    retry_after_seconds(monkeypatch, 0)
    monkeypatch.setattr(running, "OUTAGE_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(publications, "_make_variants", _read_original)
    with outage_database.transaction(write=True) as session:
        # Rows of the test before.
        for queue in QUEUES:
            session.execute(delete(queue.rows.model))
    yield make_studio(outage_database, disk)
    # The renewal of a lease may still hold a connection, which the next test needs to exhaust the pool.
    pool = cast(QueuePool, outage_database.engine.pool)
    wait_until(lambda: pool.checkedout() == 0, "all connections are returned")


class FlakyDisk(LocalDisk):
    """A storage that can be away, or that has no space although a probe still fits."""

    is_away = is_full = False

    def check(self) -> None:
        """Raise if the storage is away."""
        if self.is_away:
            raise OSError(errno.EIO, "Input/output error")
        super().check()

    def read(self, key: str) -> bytes:
        """Return a file."""
        self._fail()
        return super().read(key)

    def path(self, key: str) -> Path:
        """Return the path of a file."""
        self._fail()
        return super().path(key)

    def open_writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open a new file."""
        self._fail()
        return super().open_writer(key)

    def _fail(self) -> None:
        if self.is_away or self.is_full:
            raise OSError(errno.ENOSPC if self.is_full else errno.EIO, "the disk fails")


class ExhaustedPool(logging.Handler):
    """Holds all connections of a pool; for a short time, until a worker tries again to record something."""

    def __init__(self, database: Database, is_short: bool) -> None:
        super().__init__()
        self._database, self._is_short = database, is_short
        self._connections: list[Connection] = []

    def start(self) -> None:
        """Take all connections."""
        logging.getLogger(running.__name__).addHandler(self)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(self._connections) < POOL_SIZE:
            assert time.monotonic() < deadline, "other connections stay in use"
            # The renewal of a lease may use a connection at this moment.
            with suppress(PoolTimeout):  # the loop tries again until its deadline
                self._connections.append(self._database.engine.connect())

    def emit(self, record: logging.LogRecord) -> None:
        """End a short outage."""
        if self._is_short and record.getMessage().endswith("was not recorded, retrying"):
            self.end()

    def end(self) -> None:
        """Return the connections."""
        logging.getLogger(running.__name__).removeHandler(self)
        while self._connections:
            self._connections.pop().close()


def end_connections(url: URL) -> None:
    """End the connections of all others to a database."""
    engine = build_engine(url.render_as_string(hide_password=False), pool_size=1)
    others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
    with engine.connect() as connection:
        assert connection.execute(text(f"{others} AND pid <> pg_backend_pid()")).all()
    engine.dispose()


def run_until_completed(queue: Queue, studio: Studio) -> None:
    """Run a queue until its row is completed: it may have to wait until a lease has expired."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while queue.read(studio)[0] != queue.completed:
        assert time.monotonic() < deadline, queue.read(studio)
        queue.run(studio)
        time.sleep(0.02)


class WorkStarts:
    """Calls a function in the thread of each row whose work starts, with the description of the row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.descriptions: list[str] = []
        self.call: Callable[[str], object] = lambda _description: None
        enter = Heartbeat.__enter__

        def enter_and_call(heartbeat: Heartbeat) -> Heartbeat:
            description = heartbeat._description
            self.descriptions.append(description)
            started = enter(heartbeat)
            try:
                self.call(description)
            except BaseException:
                heartbeat.__exit__()
                raise
            return started

        monkeypatch.setattr(Heartbeat, "__enter__", enter_and_call)


@pytest.fixture
def work_starts(monkeypatch: pytest.MonkeyPatch) -> WorkStarts:
    """Return what is called when work starts."""
    return WorkStarts(monkeypatch)


def list_failed_events(studio: Studio) -> list[str]:
    with studio.database.transaction(write=False) as reading:
        events = select(WebhookDelivery.event_type)
        return list(reading.scalars(events.where(WebhookDelivery.endpoint_id == studio.endpoint.id)))


@all_queues
@pytest.mark.parametrize("outage", ["ended connections", "a short pool timeout", "a long pool timeout"])
def test_an_outage_before_the_last_write_fails_no_row(
    queue: Queue, outage: str, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.add_row(studio)
    pool = ExhaustedPool(studio.database, is_short=outage == "a short pool timeout")
    record, lock, outages = running.record_leased, RowQueue.lock, list[str]()

    def record_in_outage(*arguments: Any) -> None:
        if not outages:
            outages.append(outage)
            if outage == "ended connections":
                # Within the transaction: at its begin, another thread may have noticed that they ended.
                monkeypatch.setattr(RowQueue, "lock", lock_in_outage)
            else:
                pool.start()
        record(*arguments)

    def lock_in_outage(rows: RowQueue[Any, Any], lease: Lease) -> Any:
        monkeypatch.setattr(RowQueue, "lock", lock)
        current_session().connection()
        end_connections(studio.database.engine.url)
        return lock(rows, lease)

    monkeypatch.setattr(running, "record_leased", record_in_outage)
    if outage == "a long pool timeout":
        with pytest.raises(PoolTimeout):
            queue.run(studio)
        pool.end()
        # Longer than a lease: another worker takes the row over, as that of a killed one.
        assert queue.read(studio)[1:] == (queue.attempts_at_end, True)
        run_until_completed(queue, studio)
        assert queue.read(studio) == (queue.completed, queue.attempts_at_end + 1, False)
    else:
        queue.run(studio)
        pool.end()
        assert outages == [outage]
        assert queue.read(studio) == (queue.completed, queue.attempts_at_end, False)
    assert list_failed_events(studio) == []


@all_queues
def test_connections_that_end_at_any_write_use_up_no_attempt(
    queue: Queue, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction, thread = Database.transaction, threading.get_ident()
    number, writes = 0, MAX_WRITES
    # The result is recorded again for so long, and a busy machine takes its time to end connections.
    studio.lease = timedelta(seconds=20)

    @contextmanager
    def end_connections_at_one(database: Database, write: bool, **options: Any) -> Iterator[Session]:
        nonlocal writes
        with transaction(database, write, **options) as session:
            # A renewal changes nothing that a worker relies on, and comes at any time.
            if write and (
                threading.get_ident() == thread or "lease-renewal" not in threading.current_thread().name
            ):
                writes += 1
                if writes == number:
                    session.connection()
                    end_connections(database.engine.url)
            yield session

    while writes >= number:
        number, writes = number + 1, 0
        assert number <= MAX_WRITES
        queue.add_row(studio)
        with monkeypatch.context() as patch:
            patch.setattr(Database, "transaction", end_connections_at_one)
            with suppress(OperationalError):  # the outage of this test; the row is run again below
                queue.run(studio)
        run_until_completed(queue, studio)
        assert queue.read(studio) == (queue.completed, queue.attempts_at_end, False), f"write {number}"
    # Lease and result.
    assert number > 2
    assert list_failed_events(studio) == []


@all_queues
def test_the_row_of_a_killed_worker_is_run_by_another_one(queue: Queue, studio: Studio) -> None:
    queue.add_row(studio)
    lost = queue.rows.lease_next(studio.database, PAST)
    assert lost is not None
    run_until_completed(queue, studio)
    attempts = queue.attempts_at_end + (not queue.progress_resets_attempts)
    assert queue.read(studio) == (queue.completed, attempts, False)
    # It was slow, not killed: its late writes change nothing.
    assert not queue.rows.renew(studio.database, lost, LEASE)
    assert not queue.rows.release(studio.database, lost, counts_attempt=True)
    assert not queue.rows.fail(studio.database, lost, None)
    assert queue.read(studio) == (queue.completed, attempts, False)


@all_queues
def test_a_row_whose_workers_are_killed_at_every_attempt_fails(queue: Queue, studio: Studio) -> None:
    queue.add_row(studio)
    for _ in range(queue.max_attempts):
        assert queue.rows.lease_next(studio.database, PAST) is not None
    queue.run(studio)
    assert queue.read(studio) == ("failed", queue.max_attempts, False)


@all_queues
def test_a_worker_that_another_one_has_replaced_records_nothing(
    queue: Queue, studio: Studio, work_starts: WorkStarts
) -> None:
    queue.add_row(studio)
    model: Any = queue.rows.model

    def take_over(_description: str) -> None:
        with studio.database.transaction(write=True) as session:
            later = utc_now() + timedelta(hours=1)
            taken = update(model).where(model.lease_owner.is_not(None))
            session.execute(taken.values(lease_owner="another", lease_expires_at=later))

    work_starts.descriptions.clear()
    work_starts.call = take_over
    queue.run(studio)
    assert len(work_starts.descriptions) == 1
    assert queue.read(studio)[2]
    assert queue.read(studio)[0] in ("pending", "running")
    assert studio.read(model, "lease_owner") == ("another",)


@file_queues
def test_three_outages_of_the_storage_use_up_no_attempt(
    queue: Queue, studio: Studio, disk: FlakyDisk, work_starts: WorkStarts
) -> None:
    queue.add_row(studio)
    work_starts.descriptions.clear()
    work_starts.call = lambda _description: setattr(disk, "is_away", True)
    for number in range(1, 4):
        with pytest.raises(OSError, match="disk fails"):
            queue.run(studio)
        disk.is_away = False
        assert len(work_starts.descriptions) == number
        assert queue.read(studio)[1:] == (0, False)
        assert queue.read(studio)[0] in ("pending", "running")
    work_starts.call = lambda _description: None
    run_until_completed(queue, studio)
    assert queue.read(studio) == (queue.completed, queue.attempts_at_end, False)


@file_queues
def test_a_row_whose_file_does_not_fit_fails_after_its_attempts(
    queue: Queue, studio: Studio, disk: FlakyDisk, work_starts: WorkStarts
) -> None:
    queue.add_row(studio)
    work_starts.call = lambda _description: setattr(disk, "is_full", True)
    for _ in range(queue.max_attempts):
        assert queue.read(studio)[0] in ("pending", "running")
        with pytest.raises(OSError, match="disk fails"):
            queue.run(studio)
        disk.is_full = False
    assert queue.read(studio) == ("failed", queue.max_attempts, False)


@all_queues
def test_a_row_that_raises_at_every_attempt_fails_and_delays_no_other_tenant(
    queue: Queue, studio: Studio, work_starts: WorkStarts
) -> None:
    queue.add_row(studio)
    other = make_studio(studio.database, studio.storage)
    queue.add_row(other)
    poisoned = work_starts.descriptions

    def fail_first(description: str) -> None:
        if description == poisoned[0]:
            raise RuntimeError("a defect")

    poisoned.clear()
    work_starts.call = fail_first
    for _ in range(queue.max_attempts + 1):
        queue.run(studio)
    assert poisoned.count(poisoned[0]) == queue.max_attempts
    assert len(poisoned) == queue.max_attempts + 1
    model = queue.state_model or queue.rows.model
    with studio.database.transaction(write=False) as reading:
        statuses = reading.scalars(select(getattr(model, queue.rows.status or "status"))).all()
    # The event about the failure is a row of the queue of webhooks.
    assert sorted(statuses)[-2:] == sorted([queue.completed, "failed"])[-2:]


@pytest.mark.parametrize("queue", [queue for queue in QUEUES if queue.state_model is None], ids=str)
def test_a_row_that_cannot_be_read_fails_and_delays_no_other_one(
    queue: Queue, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.add_row(studio)
    take, broken = queue.rows.take, list[Any]()

    def take_others(row: Any, token: str) -> Any:
        broken.append(row.id)
        if row.id == broken[0]:
            raise KeyError("a member that an older release did not write")
        return take(row, token)

    other = make_studio(studio.database, studio.storage)
    queue.add_row(other)
    monkeypatch.setattr(queue.rows, "take", take_others)
    queue.run(studio)
    model: Any = queue.rows.model
    status = getattr(model, queue.rows.status or "status")
    with studio.database.transaction(write=False) as reading:
        rows = {row_id: str(state) for row_id, state in reading.execute(select(model.id, status))}
    assert rows.pop(broken[0]) == "failed"
    assert broken.count(broken[0]) == queue.max_attempts
    assert set(rows.values()) == {queue.completed}


@all_queues
def test_the_end_of_a_process_uses_up_no_attempt_and_no_lease(
    queue: Queue, studio: Studio, work_starts: WorkStarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of two tenants: the second import of one would wait for the first, and have no image to lease.
    for tenant in (studio, make_studio(studio.database, studio.storage)):
        queue.add_row(tenant)
    # Two threads could lease both images before the process ends.
    monkeypatch.setattr("studio.imports.image_worker.THREADS", 1)
    work_starts.descriptions.clear()
    work_starts.call = lambda _description: GenerationWorkers(studio.worker, 0).stop()
    queue.run(studio)
    queue.run(studio)
    # Nothing else was leased, and the row has returned, unless its work was too short to stop.
    assert len(work_starts.descriptions) == 1
    model: Any = queue.rows.model
    attempts = getattr(queue.state_model or model, queue.rows.attempts or queue.attempts)
    status = getattr(queue.state_model or model, queue.rows.status or "status")
    with studio.database.transaction(write=False) as reading:
        assert not any(reading.scalars(select(model.lease_owner)))
        assert all(
            used == 0 or state == queue.completed for used, state in reading.execute(select(attempts, status))
        )


# Threads of one process share the images of imports (`run_pending_images`).
@pytest.mark.parametrize("queue", [queue for queue in QUEUES if queue.rows is not IMAGES], ids=str)
def test_concurrent_workers_run_each_row_once(queue: Queue, studio: Studio, work_starts: WorkStarts) -> None:
    # Longer than the work of a busy machine: otherwise a row is taken over, and starts twice.
    studio.lease = timedelta(seconds=20)
    rows = 5
    for _ in range(rows):
        queue.add_row(studio)
    work_starts.descriptions.clear()
    run_concurrently(*[partial(queue.run, studio)] * 2)
    run_until_completed(queue, studio)
    assert len(work_starts.descriptions) == len(set(work_starts.descriptions)) == rows


@pytest.mark.parametrize("queue", [queue for queue in QUEUES if queue.takes_turns], ids=str)
def test_tenants_take_turns(queue: Queue, studio: Studio, work_starts: WorkStarts) -> None:
    for _ in range(3):
        queue.add_row(studio)
    other = make_studio(studio.database, studio.storage)
    queue.add_row(other)
    model: Any = queue.rows.model
    with studio.database.transaction(write=False) as reading:
        late = reading.scalars(select(model.id).order_by(model.id.desc()).limit(1)).one()
    work_starts.descriptions.clear()
    run_until_completed(queue, studio)
    assert len(work_starts.descriptions) == 4
    assert any(str(late) in description for description in work_starts.descriptions[:2])


def test_an_import_that_makes_progress_survives_any_number_of_killed_workers(
    studio: Studio, work_starts: WorkStarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = WORK.max_attempts + 2
    add_import(studio, "sku,name\n" + "".join(f"A-{number},Dress\n" for number in range(rows)))
    monkeypatch.setattr("studio.imports.worker.GROUP_ROWS", 1)
    runner = ImportRunner(studio.worker, CHECK)
    import_group, killed = ImportRunner._import_group, list[int]()

    def import_and_die(self: ImportRunner, *arguments: Any) -> None:
        import_group(self, *arguments)
        killed.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(ImportRunner, "_import_group", import_and_die)
    for _ in range(rows):
        with pytest.raises(KeyboardInterrupt):
            runner.run_pending()
        with studio.database.transaction(write=True) as session:
            session.execute(update(ProductImport).values(lease_expires_at=utc_now()))
    monkeypatch.undo()
    runner.run_pending()
    status, created = studio.read(ProductImport, "status", "created_count")
    assert (status, created, len(killed)) == ("completed", rows, rows)
