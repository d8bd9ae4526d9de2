"""Test that exports are delivered completely, in order, and again after a failure: to S3 and with PUT."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import select

from db.base import utc_now
from db.caller import caller_context
from db.models import Destination, Export, ExportDelivery, Shooting
from db.session import Database
from db.tenancy import get_visible
from studio.destinations import queue, targets, worker
from studio.destinations.changes import update_destination
from studio.destinations.worker import run_pending_deliveries
from studio.exports import queue as exports
from studio.exports.create import ExportRequest, create_export
from studio.exports.worker import run_pending_exports
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import LocalDisk, export_folder, export_key
from studio.jobs.encryption import encrypt_again
from studio.queue.retries import FILE_DELIVERIES
from tests.support import factories
from tests.support.factories.exports import make_approved_prediction
from tests.support.queues import LEASE, build_worker, try_record
from tests.support.scenarios import PhotographedProduct
from tests.support.servers.buckets import ACCESS_KEY, Bucket
from tools.servers.http_recorder import RecordedRequest, StubResponse, run_http_recorder

SETTINGS = Settings(environment="test", secret_key="a secret of this test that is long enough")
FOLDER = {"header_name": "Authorization", "credentials": {"header_value": "Bearer 2f6c1d0e9b"}}


def make_export(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images: int = 2, **columns: Any
) -> UUID:
    """Complete an export of some images to a new destination, and return its id."""
    with database.transaction(write=True):
        destination = factories.make_destination(SETTINGS, organization=scenario.organization, **columns)
        for number in range(images):
            make_approved_prediction(storage, scenario, f"image {number}".encode(), sku=f"AN 2041/{number}é")
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with database.transaction(write=True), caller_context(caller, None):
        shooting = get_visible(Shooting, scenario.shooting.id)
        export_id = create_export(shooting, ExportRequest(destination_id=destination.id)).id
    assert run_pending_exports(build_worker(database, storage)) == 1
    return export_id


def deliver(database: Database, storage: LocalDisk, client: SafeHttpClient, **options: Any) -> int:
    return run_pending_deliveries(SETTINGS, build_worker(database, storage), client, **options)


def get_export(database: Database, export_id: UUID) -> Export:
    with database.transaction(write=False) as reading:
        query = select(Export).where(Export.id == export_id)
        return reading.scalars(query.execution_options(populate_existing=True)).one()


def list_log(database: Database, export_id: UUID) -> list[ExportDelivery]:
    with database.transaction(write=False) as reading:
        query = select(ExportDelivery).where(ExportDelivery.export_id == export_id)
        query = query.order_by(ExportDelivery.id).execution_options(populate_existing=True)
        return list(reading.scalars(query))


def make_due(database: Database, export_id: UUID, **columns: Any) -> None:
    """Let the time of the next attempt pass."""
    with database.transaction(write=True) as writing:
        export = writing.get_one(Export, export_id)
        export.delivery_next_attempt_at = utc_now() - timedelta(seconds=1)
        for name, value in columns.items():
            setattr(export, name, value)


def test_an_export_is_delivered_to_a_bucket_and_the_manifest_comes_last(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, bucket: Bucket
) -> None:
    export_id = make_export(database, storage, scenario, **bucket.columns)
    assert deliver(database, storage, bucket.http_client) == 1
    export = get_export(database, export_id)
    assert (export.delivery_status, export.delivery_error) == ("delivered", None)
    assert export.delivery_ended_at is not None

    with zipfile.ZipFile(storage.path(export_key(export_id))) as archive:
        names = [entry.filename for entry in archive.infolist()]
        log = list_log(database, export_id)
        assert [row.file_name for row in log] == [*names[2:], "manifest.csv", "manifest.json"]
        assert bucket.list_keys() == sorted(f"sartiq/{export_id}/{name}" for name in names)
        for row in log:
            stored = bucket.get(f"sartiq/{export_id}/{row.file_name}")
            content = archive.read(row.file_name)
            assert stored["Body"].read() == content
            assert (row.status, row.attempts, row.last_status_code) == ("delivered", 1, 200)
            assert row.file_size == len(content)
            assert row.delivered_at is not None
    assert stored["ContentType"] == "application/json"
    assert deliver(database, storage, bucket.http_client) == 0


def test_a_folder_gets_each_file_with_its_digest_and_a_failed_one_again_later(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    statuses = [201, 503, 200, 204, 200]

    def respond(request: RecordedRequest) -> StubResponse:
        return StubResponse(statuses.pop(0), b"internal", {"Retry-After": "3000"})

    with run_http_recorder(respond) as server:
        client = SafeHttpClient([server.host])
        export_id = make_export(database, storage, scenario, url=f"{server.url}/in", **FOLDER)
        assert deliver(database, storage, client) == 0
        export = get_export(database, export_id)
        assert (export.delivery_status, export.delivery_attempts) == ("pending", 1)
        assert export.delivery_error == "refused"
        assert export.delivery_next_attempt_at is not None
        assert export.delivery_next_attempt_at > utc_now() + timedelta(seconds=2900)
        assert deliver(database, storage, client) == 0
        log = [
            (row.status, row.attempts, row.last_status_code, row.last_error)
            for row in list_log(database, export_id)
        ]
        assert log == [
            ("delivered", 1, 201, None),
            ("pending", 1, 503, "refused"),
            ("pending", 0, None, None),
            ("pending", 0, None, None),
        ]
        make_due(database, export_id)
        assert deliver(database, storage, client) == 1
    assert [row.attempts for row in list_log(database, export_id)] == [1, 2, 1, 1]
    export = get_export(database, export_id)
    assert (export.delivery_status, export.delivery_attempts) == ("delivered", 0)
    assert [request.path for request in server.requests][1] == server.requests[2].path
    for request in server.requests:
        assert request.method == "PUT"
        assert request.path.startswith(f"/in/{export_id}/")
        assert request.path.isascii()
        assert " " not in request.path
        assert request.headers["authorization"] == "Bearer 2f6c1d0e9b"
        digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        assert request.headers["content-digest"] == f"sha-256=:{digest}:"
    assert json.loads(server.requests[-1].body)["files"]


def test_a_delivery_fails_after_the_last_attempt(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    with run_http_recorder(lambda request: StubResponse(403)) as server:
        client = SafeHttpClient([server.host])
        export_id = make_export(database, storage, scenario, images=1, url=server.url, **FOLDER)
        for _ in range(FILE_DELIVERIES.max_attempts):
            make_due(database, export_id)
            deliver(database, storage, client)
    export = get_export(database, export_id)
    assert (export.delivery_status, export.delivery_error) == ("failed", "access_denied")
    assert [row.status for row in list_log(database, export_id)] == ["failed"] * 3
    assert len(server.requests) == 8


def test_a_file_that_was_sent_and_not_recorded_is_sent_again_to_the_same_key(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, bucket: Bucket
) -> None:
    export_id = make_export(database, storage, scenario, **bucket.columns)
    sent = []

    class Interrupted(BaseException):
        """Ends the run where a killed process would end (`test_killed_workers`)."""

    def put(target: targets.Target, key: str, file: targets.File) -> targets.Outcome:
        sent.append(key)
        outcome = targets.put_file(bucket.http_client, target, key, file)
        if len(sent) == 2:
            # The server has the file, and nothing was recorded.
            raise Interrupted
        return outcome

    with pytest.raises(Interrupted):
        deliver(database, storage, bucket.http_client, put=put)
    assert get_export(database, export_id).delivery_status == "running"
    assert deliver(database, storage, bucket.http_client, put=put) == 0, "another worker has the lease"
    make_due(database, export_id, lease_expires_at=utc_now() - timedelta(seconds=1))
    # The first run after the end of the lease counts an attempt and delivers at once.
    assert deliver(database, storage, bucket.http_client, put=put) == 1
    assert sent[1] == sent[2]
    assert len(sent) == 5
    assert [row.status for row in list_log(database, export_id)] == ["delivered"] * 4
    names = {key.rpartition("/")[2] for key in bucket.list_keys() if str(export_id) in key}
    assert names == {row.file_name for row in list_log(database, export_id)}


def test_a_worker_that_lost_its_lease_changes_nothing(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, bucket: Bucket
) -> None:
    export_id = make_export(database, storage, scenario, **bucket.columns)
    lost = queue.DELIVERIES.lease_next(database, timedelta(seconds=-1))
    assert lost is not None
    lease = queue.DELIVERIES.lease_next(database, LEASE)
    assert lease is not None
    files = queue.list_pending(database, lease, [("a.jpg", 1)])
    assert files is not None
    assert not try_record(database, queue.record_delivered, lost, files[0], targets.Outcome(200))
    failure = queue.Failure(targets.Outcome(500, "refused"), files[0])
    assert not queue.DELIVERIES.release(database, lost, counts_attempt=True, error=failure)
    assert get_export(database, export_id).lease_owner == lease.token
    assert list_log(database, export_id)[0].attempts == 0


def test_a_delivery_shares_its_time_with_other_tenants(
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export_id = make_export(database, storage, scenario, **bucket.columns)
    monkeypatch.setattr(worker, "SHARE_SECONDS", 0.0)
    assert deliver(database, storage, bucket.http_client, max_seconds=0.05) == 0
    export = get_export(database, export_id)
    assert (export.delivery_status, export.delivery_attempts) == ("pending", 0)


def test_an_export_that_fails_or_loses_its_archive_fails_its_delivery(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, bucket: Bucket
) -> None:
    export_id = make_export(database, storage, scenario, **bucket.columns)
    storage.delete_folder(export_folder(export_id))
    assert deliver(database, storage, bucket.http_client) == 0
    assert get_export(database, export_id).delivery_error == "archive_missing"

    with database.transaction(write=True) as writing:
        export = writing.get_one(Export, export_id)
        export.status = "pending"
    with database.transaction(write=True) as writing:
        export = writing.get_one(Export, export_id)
        export.attempts = exports.EXPORTS.retries.max_attempts
    assert exports.EXPORTS.lease_next(database, LEASE) is None
    export = get_export(database, export_id)
    assert (export.delivery_status, export.delivery_error) == ("failed", "export_failed")


def test_credentials_survive_a_rotation_of_the_key_and_are_encrypted_again(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, bucket: Bucket
) -> None:
    export_id = make_export(database, storage, scenario, **bucket.columns)
    new_key = "another secret of this test that is long enough"
    rotated = replace(SETTINGS, secret_key=new_key, secret_key_previous=SETTINGS.secret_key)
    assert encrypt_again(database, rotated) == 1
    assert encrypt_again(database, rotated) == 0
    # The old key alone no longer reads them, the new one does.
    assert deliver(database, storage, bucket.http_client) == 0
    assert get_export(database, export_id).delivery_error == "credentials_unreadable"
    make_due(database, export_id)
    final = replace(SETTINGS, secret_key=new_key)
    assert run_pending_deliveries(final, build_worker(database, storage), bucket.http_client) == 1


def test_a_changed_destination_is_attempted_at_once(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, bucket: Bucket
) -> None:
    columns = {**bucket.columns, "bucket": "no-such-bucket"}
    export_id = make_export(database, storage, scenario, **columns)
    assert deliver(database, storage, bucket.http_client) == 0
    export = get_export(database, export_id)
    assert export.delivery_error == "bucket_not_found"
    with database.transaction(write=True) as writing:
        destination = writing.get_one(Destination, export.destination_id)
        update_destination(destination, {"s3": {"bucket": bucket.name}}, SETTINGS)
    assert deliver(database, storage, bucket.http_client) == 1


def test_files_are_read_in_chunks(tmp_path: Any) -> None:
    size = 30_000_000
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive, archive.open("a.jpg", "w") as entry:
        for _ in range(30):
            entry.write(bytes(size // 30))
    received = []

    def respond(request: RecordedRequest) -> StubResponse:
        received.append(len(request.body))
        return StubResponse()

    with run_http_recorder(respond) as server, zipfile.ZipFile(path) as archive:
        target = targets.Target("s3", server.url, ACCESS_KEY, "us-east-1", "images")
        file = worker._open(archive, archive.getinfo("a.jpg"))
        client = SafeHttpClient([urlsplit(server.url).netloc])
        chunks: list[int] = []

        def count() -> Iterator[bytes]:
            for chunk in file.open_chunks():
                chunks.append(len(chunk))
                yield chunk

        outcome = targets.put_file(client, target, "a.jpg", replace(file, open_chunks=count))
    assert outcome == targets.Outcome(200)
    assert received == [size]
    # Read twice, for the hash and to send it, and never more than a chunk at once.
    assert sum(chunks) == 2 * size
    assert max(chunks) <= worker.CHUNK_BYTES
