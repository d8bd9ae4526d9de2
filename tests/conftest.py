"""Fixtures for all tests: PostgreSQL databases, and a Redis broker.

The transactions of the `database` fixture are savepoints on one connection: the code under test commits as
usual, and the fixture rolls everything back. Create rows with `tests.support.factories`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cryptography  # noqa: F401 - with it, PyJWT has the algorithms with key pairs that tests forge tokens with
import pytest
from sqlalchemy import Engine, QueuePool, delete
from sqlalchemy.orm import Session

import db.base
from db.base import Base
from db.engine import build_engine
from db.models import AuditEvent, Organization, RowCount, UsageRecord, User
from db.session import Database
from studio.accounts.identity.passwords import hash_password
from studio.infrastructure.mask_models import MaskModel, choose_mask_model
from tests.support import factories
from tests.support.failing_subtests import FailingSubtests
from tests.support.passwords import ADDRESS, PASSWORD, real_hashes, use_cheap_hashes
from tests.support.prepared_statements import keep_prepared_statements
from tests.support.rejections import Rejections, record_rejections
from tests.support.requirements import skip_or_fail
from tests.support.row_level_security import disable_row_level_security
from tools.servers.databases import DatabaseFactory, create_database
from tools.servers.prepared_folder import prepared_folders_in
from tools.servers.server_databases import drop_server_databases

if TYPE_CHECKING:
    from handlers.app import Application
    from studio.infrastructure.storage import LocalDisk
    from tests.support.scenarios import PhotographedProduct
    from tests.support.servers.buckets import Bucket
    from tests.support.servers.identity_provider import HostileProvider
    from tests.support.servers.webhook_receiver import WebhookReceiver
    from tools.servers.processes import RedisServer
    from tools.servers.server import RunningServer


# jsonschema compiles the grammar of IRIs at import: a second of CPU. No value of the contract is an IRI.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type] - what marks a module as missing

# Idle threads of OpenBLAS spin, and the processes of a run share the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Servers that tests start must not read the developer's `.env` file.
os.environ.setdefault("ENV_FILE", os.devnull)


# Test modules hash passwords when they are imported, too.
use_cheap_hashes()
keep_prepared_statements()


SECONDS_TO_RETURN_CONNECTIONS = 5

pytest_plugins = ["tests.support.run_options"]


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Return whether tests that measure or repeat run in full."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def failing_subtests(subtests: pytest.Subtests) -> FailingSubtests:
    """Return subtests that are reported only if they fail."""
    return FailingSubtests(subtests)


@pytest.fixture
def rejections() -> Iterator[Rejections]:
    """Yield what the access log and the metrics say about the rejected requests of this test."""
    with record_rejections() as recorded:
        yield recorded


@pytest.fixture(autouse=True)
def _reset_id_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the clock of `new_id` after the test.

    A test that moves the time forward would otherwise leave it ahead of the real time.
    """
    monkeypatch.setattr("db.base._last_id_time", db.base._last_id_time)


@pytest.fixture(autouse=True)
def _restore_umask() -> Iterator[None]:
    """Restore the umask, which the entry points set for the whole process."""
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    os.umask(mask)


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Remove the handlers of entry points that ran in this process. Their stream is closed after the test."""
    before = [*logging.root.handlers]
    yield
    for handler in set(logging.root.handlers).difference(before):
        logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    # The processes of pytest-xdist have their folders in that of the run.
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def _prepared_server_folders(run_folder: Path, database_factory: DatabaseFactory) -> Iterator[None]:
    """Prepare the folders and databases of servers once."""
    with prepared_folders_in(run_folder / "server-folders", database_factory):
        yield


@pytest.fixture(scope="module", autouse=True)
def _server_databases() -> Iterator[None]:
    """Drop the databases of the servers of a module after it."""
    yield
    drop_server_databases()


@pytest.fixture(scope="session", autouse=True)
def _reused_network_results(request: pytest.FixtureRequest) -> Iterator[None]:
    """Cut out once per photo, unless the test uses `real_network` or `real_cut_outs`.

    `pytest --cache-clear` forgets the results of the mask network.
    """
    # Imported here because it loads OpenCV, which tests of other things do not need.
    from tests.support.mask_network import ReusedCutOuts, ReusedResults

    folder = request.config.cache.mkdir("network-results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "studio.rendering.cut_out.network_mask.open_network", ReusedResults(folder).open_network
        )
        patch.setattr("studio.rendering.cut_out.cut_out._from_photo", ReusedCutOuts().cut_out_of_photo)
        yield


@pytest.fixture
def real_cut_outs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut out each photo again, for tests that compare two renderings."""
    from tests.support.mask_network import cut_out_of_photo

    monkeypatch.setattr("studio.rendering.cut_out.cut_out._from_photo", cut_out_of_photo)


@pytest.fixture
def real_network(real_cut_outs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the mask network for each photo again, for tests of its time or its use."""
    from studio.rendering.cut_out import inference as mask_network

    monkeypatch.setattr("studio.rendering.cut_out.network_mask.open_network", mask_network.open_network)


@pytest.fixture
def color_masks() -> Iterator[None]:
    """Find products by their colors, without the network, for tests that are not about masks."""
    choose_mask_model(MaskModel("color"))
    yield
    choose_mask_model(MaskModel())


@pytest.fixture
def real_password_hashes() -> Iterator[None]:
    """Hash passwords as the server does, for tests of the hashes and of the time that they take."""
    with real_hashes():
        yield


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """Yield the application without a database, created once per process.

    It compiles a validator at its first use, which all tests then share.
    """
    # Imported here because many tests need no application.
    from tests.support.app import create_test_app

    application = create_test_app(tmp_path_factory.mktemp("application"))
    yield application
    application.bridge.pool.shutdown()


@pytest.fixture(scope="session")
def database_factory(run_folder: Path) -> Iterator[DatabaseFactory]:
    """Yield what creates databases."""
    factory = DatabaseFactory(run_folder / "database-templates")
    yield factory
    factory.close()


@pytest.fixture(scope="session")
def empty_database_url() -> Iterator[str]:
    """Yield the URL of a database without tables. Tests that create some drop them at their end."""
    with create_database() as url:
        yield url


@pytest.fixture(scope="session")
def database_url(database_factory: DatabaseFactory) -> Iterator[str]:
    """Yield the URL of a database with the newest schema and no rows. All tests share it."""
    with database_factory.copy_migrated() as url:
        yield url


@pytest.fixture
def own_database_url(database_factory: DatabaseFactory) -> Iterator[str]:
    """Yield the URL of a database with the newest schema and no rows that only this test uses."""
    with database_factory.copy_migrated() as url:
        yield url


@pytest.fixture
def own_database(own_database_url: str) -> Iterator[Database]:
    """Yield a database with real commits that only this test uses, for threads with separate connections."""
    database = Database(build_engine(own_database_url, pool_size=8))
    yield database
    # A thread that the test has left behind first returns its connection, which `dispose` would not close.
    give_up_at = time.monotonic() + SECONDS_TO_RETURN_CONNECTIONS
    while cast("QueuePool", database.engine.pool).checkedout() and time.monotonic() < give_up_at:
        time.sleep(0.01)
    database.dispose()


@pytest.fixture(scope="module")
def broker() -> Iterator[RedisServer]:
    """Yield a Redis server that only this module uses. Its tests may stop it."""
    # Imported here because most tests start no processes.
    from tools.servers.processes import DependencyMissing, run_redis

    with ExitStack() as stack:
        try:
            running = stack.enter_context(run_redis())
        except DependencyMissing as missing:
            skip_or_fail(str(missing))
        yield running


@pytest.fixture(scope="module")
def provider_process() -> Iterator[str]:
    """Yield the URL of an OpenID provider, which runs as a process of its own."""
    from tests.support.servers.identity_provider import run_provider_process

    with run_provider_process() as url:
        yield url


@pytest.fixture
def openid_provider(provider_process: str) -> Iterator[HostileProvider]:
    """Yield a proxy of the OpenID provider, which a test can make hostile."""
    from tests.support.servers.identity_provider import run_hostile_provider

    with run_hostile_provider(provider_process) as provider:
        yield provider


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """Yield an object storage with one bucket."""
    # Imported here because most tests store no objects.
    from tests.support.servers.buckets import run_bucket

    with run_bucket() as running:
        yield running


# Not for the whole run: an idle server takes a fortieth of a core, and its start 1.5 s of CPU.
@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server process with the demo accounts, shared by the tests of a module.

    Its tests are not about masks: colors find the products, which is faster than the network.
    """
    # Imported here because most tests start no server.
    from tools.servers.server import running_server

    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, SARTIQ_ENV="development", MASK_MODEL="color") as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """Yield a running webhook receiver."""
    # Imported here because most tests receive no webhooks.
    from tests.support.servers.webhook_receiver import WebhookReceiver
    from tools.servers.http_recorder import run_http_recorder

    receiver = WebhookReceiver()
    with run_http_recorder(receiver.respond) as receiver.recorder:
        yield receiver


@pytest.fixture(scope="session")
def database_engine(database_url: str) -> Iterator[Engine]:
    """Yield the engine that all tests share."""
    engine = build_engine(database_url, pool_size=4)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def has_row_level_security(request: pytest.FixtureRequest) -> bool:
    """Return whether policies limit callers to their rows. They would hide a missing tenant filter."""
    return request.node.get_closest_marker("without_policies") is None


@pytest.fixture
def database(database_engine: Engine, has_row_level_security: bool) -> Iterator[Database]:
    """Yield a database that is rolled back after the test. Threads share its connection, one at a time."""
    with database_engine.connect() as connection:
        outer = connection.begin()
        if not has_row_level_security:
            disable_row_level_security(connection)
        bound = Database.from_connection(connection)
        with (
            Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session,
            factories.use_session(session),
        ):
            yield bound
        outer.rollback()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """Yield the session of a running transaction under the system role."""
    with database.transaction(write=True) as session:
        yield session


@pytest.fixture
def user(database: Database) -> User:
    """Return a user who can sign in with `ADDRESS` and `PASSWORD`."""
    return factories.make_user(email=ADDRESS, hashed_password=hash_password(PASSWORD))


@pytest.fixture
def organization(user: User) -> Organization:
    """Return an organization of the user."""
    return factories.make_organization(user)


@pytest.fixture
def scenario(database: Database, storage: LocalDisk) -> PhotographedProduct:
    """Return the rows of a customer with a product, a photo and a pending shot."""
    # Imported here because most tests draw no photo.
    from tests.support.scenarios import make_photographed_product

    return make_photographed_product(storage, database)


@pytest.fixture
def committing_database(database_url: str) -> Iterator[Database]:
    """Yield a database with real commits, for tests of concurrency. The test must delete its rows."""
    database = Database(build_engine(database_url, pool_size=4))
    yield database
    database.dispose()


@pytest.fixture
def emptied_database(committing_database: Database) -> Iterator[Database]:
    """Yield a database with real commits, for several connections or processes, and empty it afterwards."""
    yield committing_database
    with committing_database.transaction(write=True) as writing:
        for table in reversed(Base.metadata.sorted_tables):
            # A trigger prevents the deletion of audit events. Only requests create them.
            if table is not AuditEvent.__table__:
                writing.execute(delete(table))
        # The deletions above are counted in this table.
        writing.execute(delete(RowCount))
        writing.execute(delete(UsageRecord))
