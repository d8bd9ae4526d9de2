"""Test that a process continues the work of one that was killed: nothing is lost, repeated or left over.

`test_queues` runs every queue through a lost lease. Here a real process dies in the middle of its work.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from db.models import Export, Product, ProductImage, ProductImageCutout, ProductImportResult
from db.session import Database, current_session
from studio.exports.create import ExportRequest, create_export
from studio.exports.worker import run_pending_exports
from studio.infrastructure.storage import LocalDisk, export_folder, export_key
from tests.studio.test_destination_deliveries import SETTINGS, deliver, get_export, list_log, make_export
from tests.studio.test_import_images import Shop, add_images, count_images, shop
from tests.studio.test_imports import get_import, run_imports, start_import
from tests.support import factories
from tests.support.concurrency import wait_for
from tests.support.cutouts import make_cutouts
from tests.support.factories.exports import make_approved_prediction, unpack_archive
from tests.support.queues import build_worker
from tests.support.scenarios import make_photographed_product
from tests.support.servers.buckets import Bucket
from tools.servers.server import ROOT

__all__ = ["shop"]

pytestmark = pytest.mark.slow("it kills processes and waits until their leases have expired")

LEASE_SECONDS = 1
START = f"""
import sys, time
from datetime import timedelta
from pathlib import Path
from db.engine import build_engine
from db.session import Database
from studio.infrastructure.storage import LocalDisk
from studio.queue.running import Worker

database = Database(build_engine(sys.argv[1], pool_size=4))
process = Worker(database, LocalDisk(Path(sys.argv[2])), timedelta(seconds={LEASE_SECONDS}))

def hang():
    print("hanging", flush=True)
    time.sleep(60)

def hang_in_third(work):
    calls = []
    def work_and_hang(*arguments):
        work(*arguments)
        calls.append(1)
        if len(calls) == 3:
            hang()
    return work_and_hang
"""
# Writes the first half of the archive, and hangs with the file open.
WRITE_EXPORT = """
from studio.exports import worker

def write_half(file, *rest):
    file.write(b"PK" * 1000)
    file.flush()
    hang()

worker.write_archive = write_half
worker.run_pending_exports(process)
"""
# Hangs while it makes the cut-out, after more time than a lease lasts. The lease is renewed.
MAKE_CUTOUT = f"""
from studio.cutouts.worker import run_next_cutout

def make(*_):
    time.sleep({2 * LEASE_SECONDS})
    hang()

run_next_cutout(process, make)
"""
# Imports groups of ten rows, and hangs within the transaction of the third one.
IMPORT_ROWS = """
from handlers.app import BUNDLE
from handlers.contract.body_checks import load_body_checks
from studio.imports import worker

worker.record_results = hang_in_third(worker.record_results)
worker.GROUP_ROWS = 10
worker.ImportRunner(process, load_body_checks(BUNDLE)).run_pending()
"""
# Adds images one by one, and hangs within the transaction of the third one.
IMPORT_IMAGES = """
from studio.imports import image_queue, image_worker
from studio.infrastructure.http_client import SafeHttpClient

image_queue._end = hang_in_third(image_queue._end)
image_worker.THREADS = 1
image_worker.run_pending_images(process, SafeHttpClient([sys.argv[3]]))
"""
# Sends two files, and hangs when the server has accepted the second one, before it is recorded.
DELIVER_EXPORT = """
from studio.destinations import targets
from studio.destinations.worker import run_pending_deliveries
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.settings import Settings

client, sent = SafeHttpClient([sys.argv[3]]), []

def put(*arguments):
    outcome = targets.put_file(client, *arguments)
    sent.append(outcome)
    if len(sent) == 2:
        assert outcome.error is None, outcome
        hang()
    return outcome

settings = Settings(environment="test", secret_key=sys.argv[4])
run_pending_deliveries(settings, process, client, put=put)
"""


class Site(NamedTuple):
    """The database and the storage that the killed process shares with the next one."""

    database: Database
    url: str
    storage: LocalDisk

    @contextmanager
    def hanging(self, script: str, *arguments: str) -> Iterator[None]:
        """Run a script until it hangs, and kill its process at the end of the block."""
        command = [sys.executable, "-c", START + script, self.url, str(self.storage.root), *arguments]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"hanging\n"
                yield
            finally:
                process.kill()


@pytest.fixture
def site(emptied_database: Database, database_url: str, tmp_path: Path) -> Site:
    """Return a database and a storage that other processes can use."""
    return Site(emptied_database, database_url, LocalDisk(tmp_path))


def test_an_export_survives_a_killed_process(site: Site) -> None:
    storage = site.storage
    with site.database.transaction(write=True):
        scenario = make_photographed_product(storage, None)
        make_approved_prediction(storage, scenario, b"image")
        export_id = create_export(scenario.shooting, ExportRequest()).id
    with site.hanging(WRITE_EXPORT):
        pass
    keys = [file.key for file in storage.list_files(export_folder(export_id))]
    assert len(keys) == 1
    assert keys != [export_key(export_id)]

    wait_for(lambda: run_pending_exports(build_worker(site.database, storage)))
    assert [file.key for file in storage.list_files(export_folder(export_id))] == [export_key(export_id)]
    files, _ = unpack_archive(storage.read(export_key(export_id)))
    assert list(files.values()) == [b"image"]
    with site.database.transaction(write=False):
        export = current_session().get_one(Export, export_id)  # unscoped: the export of this test
        assert (export.status, export.attempts) == ("completed", 2)


def test_a_cutout_survives_a_killed_process(site: Site) -> None:
    with site.database.transaction(write=True):
        factories.make_product_image_cutout()
    with site.hanging(MAKE_CUTOUT):
        assert make_cutouts(site.database, site.storage) == 0, "the lease was not renewed"
    wait_for(lambda: make_cutouts(site.database, site.storage))
    with site.database.transaction(write=False) as reading:
        cutout = reading.scalars(select(ProductImageCutout)).one()  # unscoped: the one of this test
        assert (cutout.status, cutout.attempts) == ("completed", 2)


def test_an_import_survives_a_killed_process(site: Site) -> None:
    rows = 60
    with site.database.transaction(write=True):
        text = "sku,name\n" + "".join(f"S-{number},Dress {number}\n" for number in range(rows))
        import_id = start_import(site.database, site.storage, factories.make_organization(), text)
    with site.hanging(IMPORT_ROWS):
        pass
    # Two groups were committed, the third was not.
    killed = get_import(site.database, import_id)
    assert (killed.status, killed.created_count) == ("running", 20)

    wait_for(lambda: run_imports(site.database, site.storage))
    done = get_import(site.database, import_id)
    assert (done.status, done.created_count, done.failed_count) == ("completed", rows, 0)
    with site.database.transaction(write=False) as reading:
        skus = reading.scalars(select(Product.sku)).all()  # unscoped: all are of this test
        lines = reading.scalars(select(ProductImportResult.line)).all()
    assert sorted(str(sku) for sku in skus) == sorted(f"S-{number}" for number in range(rows))
    assert sorted(lines) == list(range(2, rows + 2))


def test_the_images_of_an_import_survive_a_killed_process(site: Site, shop: Shop) -> None:
    images = 6
    with site.database.transaction(write=True):
        urls = "|".join(shop.url(f"{number}.png") for number in range(images))
        text = f"sku,name,images\nA-1,Dress,{urls}\n"
        import_id = start_import(site.database, site.storage, factories.make_organization(), text)
    run_imports(site.database, site.storage)
    with site.hanging(IMPORT_IMAGES, shop.server.host):
        pass
    # Two images were committed, the third was not.
    killed = get_import(site.database, import_id)
    assert (killed.status, count_images(killed)) == ("running", (images, 2, 0, 0))

    def is_completed() -> bool:
        add_images(site.database, site.storage, shop)
        return get_import(site.database, import_id).status == "completed"

    wait_for(is_completed)
    assert count_images(get_import(site.database, import_id)) == (images, images, 0, 0)
    with site.database.transaction(write=False) as reading:
        query = select(ProductImage.position, ProductImage.media_id)  # unscoped: all are of this test
        added = reading.execute(query).all()
    assert sorted(image.position for image in added) == list(range(1, images + 1))
    assert len({image.media_id for image in added}) == images


def test_a_delivery_survives_a_killed_process(site: Site, bucket: Bucket) -> None:
    database, storage = site.database, site.storage
    with database.transaction(write=True):
        scenario = make_photographed_product(storage, None)
    export_id = make_export(database, storage, scenario, **bucket.columns)
    with site.hanging(DELIVER_EXPORT, urlsplit(bucket.url).netloc, SETTINGS.secret_key):
        pass
    # The server has two files, and one was recorded.
    assert get_export(database, export_id).delivery_status == "running"
    assert [row.status for row in list_log(database, export_id)] == ["delivered", *["pending"] * 3]

    wait_for(lambda: deliver(database, storage, bucket.http_client))
    log = list_log(database, export_id)
    assert [(row.status, row.attempts) for row in log] == [("delivered", 1)] * 4
    # The killed process is the only failure, and the next delivered file has reset it.
    export = get_export(database, export_id)
    assert (export.delivery_status, export.delivery_attempts, export.delivery_error) == ("delivered", 0, None)
    names = {key.rpartition("/")[2] for key in bucket.list_keys() if str(export_id) in key}
    assert names == {row.file_name for row in log}
