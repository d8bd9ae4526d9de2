"""An outage of the database fails no row of any queue, and uses up no attempt unless it outlasts the lease.

Each queue runs on PostgreSQL with connections of its own. They fail just before the write that ends the work.
"""

from __future__ import annotations

import logging
import pkgutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import pytest
from sqlalchemy import URL, Connection, QueuePool, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.caller import caller_context
from db.engine import build_engine, is_database_unavailable
from db.models import (
    AccountExport,
    Export,
    Generation,
    PredictionPublication,
    ProductImageCutout,
    ProductImport,
    ProductImportImage,
    Shooting,
    WebhookDelivery,
    WebhookEndpoint,
)
from db.session import Database, current_session
from db.tenancy import get_visible
from handlers.app import BUNDLE
from handlers.contract.body_checks import load_body_checks
from studio import leases
from studio.account_exports.create import request_account_export
from studio.account_exports.worker import run_pending_account_exports
from studio.cutouts.worker import CutoutWorker
from studio.destinations import queue as deliveries
from studio.destinations.targets import Outcome
from studio.destinations.worker import run_pending_deliveries
from studio.exports.create import ExportRequest, create_export
from studio.exports.worker import run_pending_exports
from studio.generations.worker.executor import GenerationExecutor
from studio.http_client import SafeHttpClient
from studio.imports.image_worker import run_pending_images
from studio.imports.worker import ImportRunner
from studio.media.storage import LocalDisk
from studio.providers import sample
from studio.publications import worker as publications
from studio.webhooks import dispatcher
from studio.webhooks import queue as webhooks
from tests.studio.test_destination_deliveries import FOLDER, SETTINGS
from tests.studio.test_generation_queue import create_pending_generation
from tests.studio.test_import_images import png, store_zip
from tests.studio.test_imports import start_import
from tests.support import factories
from tests.support.cutouts import make_quickly
from tests.support.factories.exports import make_approved_prediction
from tests.support.scenarios import PhotographedProduct, make_photographed_product
from tests.support.servers.webhook_receiver import publish_event
from tests.support.zip_files import build_zip
from tools.servers.databases import DatabaseFactory
from tools.servers.processes import wait_until

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

    def read(self, model: Any, *names: str) -> tuple[Any, ...]:
        """Return columns of the newest row of a table."""
        with self.database.transaction(write=False) as reading:
            query = select(*(getattr(model, name) for name in names)).order_by(model.id.desc()).limit(1)
            return tuple(reading.execute(query).one())


@dataclass(frozen=True)
class Queue:
    """A queue: its row, the worker, and the function that makes the write that ends the work."""

    name: str
    completes: str
    add_row: Callable[[Studio], object]
    run: Callable[[Studio], object]
    model: Any
    status: str = "status"
    completed: str = "completed"
    attempts: str = "attempts"
    lease_model: Any = None
    lease_owner: str = "lease_owner"
    records_again: bool = False
    """Whether the worker makes the write again during an outage, instead of doing the work again."""

    def __str__(self) -> str:
        return self.name

    def read(self, studio: Studio) -> tuple[str, int, bool]:
        """Return the status of the row, the attempts that it has used up, and whether it is leased."""
        status, attempts = studio.read(self.model, self.status, self.attempts)
        (owner,) = studio.read(self.lease_model or self.model, self.lease_owner)
        return str(status), attempts, owner is not None


def add_export(studio: Studio, **request: Any) -> None:
    scenario = studio.scenario
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with studio.database.transaction(write=True):
        make_approved_prediction(studio.storage, scenario, b"image")
        with caller_context(caller, None):
            create_export(get_visible(Shooting, scenario.shooting.id), ExportRequest(**request))


def run_exports(studio: Studio) -> None:
    run_pending_exports(studio.database, studio.storage, LEASE)


def add_account_export(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        request_account_export(studio.scenario.owner.id)


def run_account_exports(studio: Studio) -> None:
    run_pending_account_exports(studio.database, studio.storage, LEASE)


def add_cutout(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        product = factories.make_product(**studio.scenario.ownership)
        image = factories.make_product_image(product, media_id=studio.scenario.media.id)
        factories.make_product_image_cutout(image)


def run_cutouts(studio: Studio) -> None:
    CutoutWorker(studio.database, studio.storage, LEASE, make_quickly).run_next()


def add_import(studio: Studio, rows: str = "sku,name\nA-1,Dress\n", **columns: Any) -> None:
    with studio.database.transaction(write=True):
        start_import(studio.database, studio.storage, studio.scenario.organization, rows, **columns)


def run_imports(studio: Studio) -> None:
    ImportRunner(studio.database, studio.storage, CHECK, LEASE).run_pending()


def add_image_of_import(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        columns = store_zip(studio.storage, studio.scenario.organization, build_zip({"a.png": png(1)}))
    add_import(studio, "sku,name,image_url\nA-1,Dress,a.png\n", **columns)
    run_imports(studio)


def run_images_of_imports(studio: Studio) -> None:
    run_pending_images(studio.database, studio.storage, SafeHttpClient(), LEASE)


def add_publication(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        factories.make_publication(make_approved_prediction(studio.storage, studio.scenario, b"image"))


def run_publications(studio: Studio) -> None:
    publications.run_pending_publications(studio.database, studio.storage, LEASE)


def add_delivery(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        organization = studio.scenario.organization
        destination = factories.make_destination(SETTINGS, organization=organization, **FOLDER)
    add_export(studio, destination_id=destination.id)
    run_exports(studio)


def run_deliveries(studio: Studio) -> None:
    run_pending_deliveries(
        replace(SETTINGS, lease_seconds=LEASE.total_seconds()),
        studio.database,
        studio.storage,
        SafeHttpClient(),
        put=lambda _target, _key, _file: Outcome(status_code=200),
    )


def add_generation(studio: Studio) -> None:
    create_pending_generation(studio.database, studio.scenario, batch_size=1)


def run_generations(studio: Studio) -> None:
    executor = GenerationExecutor(studio.database, studio.storage, 1, LEASE.total_seconds(), renderer=sample)
    try:
        executor.run_next()
    finally:
        executor.close()


def add_message(studio: Studio) -> None:
    with studio.database.transaction(write=True):
        endpoint = factories.make_webhook_endpoint(**studio.scenario.ownership)
    publish_event(studio.database, endpoint)


def send_messages(studio: Studio) -> None:
    dispatcher.send_next(
        SETTINGS, studio.database, SafeHttpClient(), deliver_message=lambda *_: webhooks.Outcome(204)
    )


QUEUES = [
    Queue("exports", "studio.exports.queue.try_complete", add_export, run_exports, Export),
    Queue(
        "account exports",
        "studio.account_exports.worker._try_complete",
        add_account_export,
        run_account_exports,
        AccountExport,
    ),
    Queue("cut-outs", "studio.cutouts.queue.try_complete", add_cutout, run_cutouts, ProductImageCutout),
    Queue("imports", "studio.imports.queue.complete_rows", add_import, run_imports, ProductImport),
    Queue(
        "images of imports",
        "studio.imports.image_queue.try_add",
        add_image_of_import,
        run_images_of_imports,
        ProductImportImage,
        completed="added",
    ),
    Queue(
        "publications",
        "studio.publications.worker._record",
        add_publication,
        run_publications,
        PredictionPublication,
    ),
    Queue(
        "deliveries",
        "studio.destinations.queue.complete",
        add_delivery,
        run_deliveries,
        Export,
        status="delivery_status",
        completed="delivered",
        attempts="delivery_attempts",
    ),
    Queue(
        "generations",
        "studio.generations.worker.queue.try_complete",
        add_generation,
        run_generations,
        Generation,
        records_again=True,
    ),
    Queue(
        "webhooks",
        "studio.webhooks.queue.record_outcome",
        add_message,
        send_messages,
        WebhookDelivery,
        completed="delivered",
        lease_model=WebhookEndpoint,
        lease_owner="claimed_by",
        records_again=True,
    ),
]


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


@pytest.fixture
def studio(
    outage_database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Studio]:
    """Yield a customer with a webhook endpoint for failures."""
    monkeypatch.setattr(leases, "OUTAGE_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(webhooks, "LEASE_DURATION", LEASE)
    monkeypatch.setattr(deliveries, "RETRY_DELAYS", (timedelta(0),) * 7)
    monkeypatch.setattr(publications, "_make_variants", lambda _storage, _lease: None)
    with outage_database.transaction(write=True):
        scenario = make_photographed_product(storage, None)
        endpoint = factories.make_webhook_endpoint(**scenario.ownership, event_types=FAILED_EVENTS)
    yield Studio(outage_database, storage, scenario, endpoint)
    # The renewal of a lease may still hold a connection, which the next test needs to exhaust the pool.
    pool = cast(QueuePool, outage_database.engine.pool)
    wait_until(lambda: pool.checkedout() == 0, "all connections are returned")


class ExhaustedPool(logging.Handler):
    """Holds all connections of a pool; for a short time, until a worker tries again to record something."""

    def __init__(self, database: Database, is_short: bool) -> None:
        super().__init__()
        self._database, self._is_short = database, is_short
        self._connections: list[Connection] = []

    def start(self) -> None:
        """Take all connections."""
        logging.getLogger(leases.__name__).addHandler(self)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(self._connections) < POOL_SIZE:
            assert time.monotonic() < deadline, "other connections stay in use"
            # The renewal of a lease may use a connection at this moment.
            with suppress(PoolTimeout):
                self._connections.append(self._database.engine.connect())

    def emit(self, record: logging.LogRecord) -> None:
        """End a short outage."""
        if self._is_short and record.getMessage().endswith("was not recorded, retrying"):
            self.end()

    def end(self) -> None:
        """Return the connections."""
        logging.getLogger(leases.__name__).removeHandler(self)
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


@pytest.mark.parametrize("queue", QUEUES, ids=str)
@pytest.mark.parametrize("outage", ["ended connections", "a short pool timeout", "a long pool timeout"])
def test_an_outage_before_the_last_write_fails_no_row_and_a_second_run_completes_it(
    queue: Queue, outage: str, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.add_row(studio)
    pool = ExhaustedPool(studio.database, is_short=outage == "a short pool timeout")
    complete, lock_leased = pkgutil.resolve_name(queue.completes), leases.lock_leased
    outages: list[str] = []

    def complete_in_outage(*arguments: Any, **options: Any) -> Any:
        if not outages:
            outages.append(outage)
            if outage == "ended connections":
                # Within the transaction: at its begin, another thread may have noticed that they ended.
                monkeypatch.setattr(leases, "lock_leased", lock_in_outage)
            else:
                pool.start()
        return complete(*arguments, **options)

    def lock_in_outage(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(leases, "lock_leased", lock_leased)
        current_session().connection()
        end_connections(studio.database.engine.url)
        return lock_leased(*arguments, **options)

    monkeypatch.setattr(queue.completes, complete_in_outage)
    failure: SQLAlchemyError | None = None
    try:
        queue.run(studio)
    except SQLAlchemyError as error:
        failure = error
    finally:
        pool.end()

    is_long, used = outage == "a long pool timeout", int(outage != "a short pool timeout")
    # A delivery counts attempts when they have failed, all others when they begin.
    failed_only = queue.name == "deliveries"
    if queue.records_again and not is_long:
        assert failure is None
        assert queue.read(studio) == (queue.completed, 1, False)
    else:
        assert failure is not None
        assert is_database_unavailable(failure)
        status, attempts, is_leased = queue.read(studio)
        assert status in ("pending", "running")
        assert is_leased == is_long
        assert attempts == used - (failed_only and is_long)
    run_until_completed(queue, studio)
    attempts_in_all = used + (not failed_only)
    if queue.records_again:
        attempts_in_all = 1 + is_long
    assert queue.read(studio) == (queue.completed, attempts_in_all, False)
    with studio.database.transaction(write=False) as reading:
        events = select(WebhookDelivery.event_type)
        assert reading.scalars(events.where(WebhookDelivery.endpoint_id == studio.endpoint.id)).all() == []
