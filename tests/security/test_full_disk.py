"""S42: a full disk rejects requests with 503 and keeps work for later. `tests/e2e` fills a real disk."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from db.models import Export, Generation
from db.rls.session_role import bypass_rls
from db.session import Database
from handlers.app import Application
from handlers.pipeline.admission.limits import Limit
from studio.exports.worker import run_pending_exports
from studio.generations.worker.executor import GenerationExecutor
from studio.infrastructure.storage import LocalDisk, is_storage_unavailable
from studio.queue.retries import WORK
from tests.api.test_prechecks import upload_requests
from tests.security.test_uploads import list_files
from tests.studio.test_exports import request_export
from tests.studio.test_generation_queue import credits_used
from tests.support.client import ClientResponse, status_and_code
from tests.support.factories.catalog import Customer
from tests.support.factories.exports import make_approved_prediction
from tests.support.queues import build_worker, retry_after_seconds
from tests.support.rejections import Rejections
from tests.support.scenarios import PhotographedProduct, create_pending_generation, get_row

UPLOADS = ["product", "subject", "upload"]


def raise_disk_full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class FullDisk(LocalDisk):
    """A folder on a disk that is full until `has_space` is set."""

    has_space = False

    def check(self) -> None:
        """Raise OSError while the disk is full."""
        if not self.has_space:
            raise_disk_full()

    @contextmanager
    def open_writer(self, key: str) -> Iterator[BinaryIO]:
        """Fail at the end of the file: the disk is full when it is flushed."""
        with super().open_writer(key) as file:
            yield file
            self.check()


@pytest.mark.parametrize("name", UPLOADS)
@pytest.mark.parametrize(
    ("owner", "method"), [(LocalDisk, "open_writer"), (tempfile.SpooledTemporaryFile, "write")]
)
def test_s42_an_upload_to_a_full_disk_is_503_and_can_be_repeated(
    app: Application,
    customer: Customer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    owner: type,
    method: str,
    rejections: Rejections,
) -> None:
    send = upload_requests(customer, customer.client)[name]
    before = list_files(app.settings.data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, raise_disk_full)
        response = send()
    assert status_and_code(response) == (503, "unavailable")
    assert rejections.take() == {(503, "unavailable", Limit.DISK)}
    assert int(response.headers["retry-after"]) > 0
    assert b"No space" not in response.body
    assert list_files(app.settings.data_dir) == before
    assert send().status in (201, 204)


FULL_TABLE = """
    CREATE FUNCTION pg_temp.reject() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER no_space BEFORE INSERT ON brands FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.reject()
"""


def test_s42_a_row_without_space_in_the_database_is_503_and_can_be_repeated(
    customer: Customer, database: Database, rejections: Rejections
) -> None:
    def execute(statements: str) -> None:
        with database.transaction(write=True) as writing:
            bypass_rls(writing.connection())
            writing.connection().exec_driver_sql(statements)

    def send() -> ClientResponse:
        return customer.client("POST", "/brands/", {"name": "Nord"})

    execute(FULL_TABLE)
    response = send()
    assert status_and_code(response) == (503, "unavailable")
    assert rejections.take() == {(503, "unavailable", Limit.DISK)}
    assert int(response.headers["retry-after"]) > 0
    assert b"extend" not in response.body
    execute("DROP TRIGGER no_space ON brands")
    assert send().status == 201


@pytest.mark.parametrize("full", ["media", "temporary"])
def test_s42_readiness_writes_to_the_disks_of_stored_and_received_files(
    app: Application, customer: Customer, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    folder = app.settings.media_dir if full == "media" else Path(tempfile.gettempdir())
    fsync = os.fsync

    def fail_in_folder(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent == folder:
            raise_disk_full()
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("studio.infrastructure.storage.os.fsync", fail_in_folder)
        assert status_and_code(customer.client("GET", "/utils/readiness")) == (503, "unavailable")
        assert customer.client("GET", "/utils/health-check/").status == 200
    assert list(folder.glob(".probe.*")) == []
    assert customer.client("GET", "/utils/readiness").status == 200


@pytest.mark.usefixtures("color_masks")
def test_s42_a_generation_on_a_full_disk_returns_to_the_queue_and_is_completed_later(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    generation_id = create_pending_generation(database, scenario)
    disk = FullDisk(storage.root)
    executor = GenerationExecutor(build_worker(database, disk), render_threads=2)
    for _ in range(5):  # more often than a generation may lose its worker
        with pytest.raises(OSError, match="No space left"):
            executor.run_next()
    generation = get_row(database, Generation, generation_id)
    assert (generation.status, generation.attempts, generation.error) == ("pending", 0, None)
    disk.has_space = True
    assert executor.run_next()
    generation = get_row(database, Generation, generation_id)
    assert (generation.status, generation.attempts) == ("completed", 1)
    assert credits_used(database, scenario) == 2
    executor.close()


def test_s42_an_export_on_a_full_disk_stays_pending_and_is_completed_later(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    make_approved_prediction(storage, scenario, b"image")
    export_id = request_export(database, scenario)
    disk = FullDisk(storage.root)
    with pytest.raises(OSError, match="No space left"):
        run_pending_exports(build_worker(database, disk))
    export = get_row(database, Export, export_id)
    assert (export.status, export.attempts, export.error, export.lease_owner) == ("pending", 0, None, None)
    assert run_pending_exports(build_worker(database, storage)) == 1
    assert get_row(database, Export, export_id).status == "completed"


def test_s42_an_archive_that_does_not_fit_fails_after_its_attempts_and_blocks_no_other_export(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_approved_prediction(storage, scenario, b"image")
    large_id, small_id = request_export(database, scenario), request_export(database, scenario)
    open_writer = LocalDisk.open_writer

    def open_if_small(self: LocalDisk, key: str) -> Any:
        if str(large_id) in key:
            raise_disk_full()  # there is space for the probe, but not for this archive
        return open_writer(self, key)

    monkeypatch.setattr(LocalDisk, "open_writer", open_if_small)
    retry_after_seconds(monkeypatch, 0)
    for _ in range(WORK.max_attempts):
        with pytest.raises(OSError, match="No space left"):
            run_pending_exports(build_worker(database, storage))
    assert run_pending_exports(build_worker(database, storage)) == 1
    assert get_row(database, Export, large_id).status == "failed"
    assert get_row(database, Export, small_id).status == "completed"


def test_s42_a_generation_whose_own_file_cannot_be_read_fails_after_its_attempts(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation_id = create_pending_generation(database, scenario)
    executor = GenerationExecutor(build_worker(database, storage), render_threads=2)

    def raise_bad_sector(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(LocalDisk, "read", raise_bad_sector)
        retry_after_seconds(patch, 0)
        for _ in range(WORK.max_attempts):
            with pytest.raises(OSError, match="Input/output error"):
                executor.run_next()
        executor.run_next()
    assert get_row(database, Generation, generation_id).status == "failed"
    assert credits_used(database, scenario) == 0
    executor.close()


@pytest.mark.parametrize(
    ("number", "is_unavailable"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EROFS, True),
        (errno.EIO, True),
        (errno.ENOENT, False),
    ],
)
def test_s42_only_errors_of_the_disk_can_be_retried(number: int, is_unavailable: bool) -> None:
    assert is_storage_unavailable(OSError(number, "")) == is_unavailable
