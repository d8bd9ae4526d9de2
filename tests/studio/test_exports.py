"""Test the content of export archives, and that each archive is written once when workers fail."""

from __future__ import annotations

import csv
import hashlib
import io
import time
import tracemalloc
import zipfile
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from db.base import new_id, utc_now
from db.caller import caller_context
from db.models import Export, Prediction, Shooting, Shot
from db.session import Database
from db.tenancy import get_visible
from studio.exports import queue, worker
from studio.exports.archive import (
    COLUMNS,
    ArchiveEntry,
    SourceFileMissing,
    build_manifest_csv,
    write_archive,
)
from studio.exports.create import MAX_PREDICTIONS, ExportRequest, ExportTooLarge, create_export
from studio.exports.worker import run_pending_exports
from studio.infrastructure.pubsub import EXPORTS
from studio.infrastructure.storage import LocalDisk, export_folder, export_key, media_key
from studio.jobs.periodic import PeriodicTask
from studio.media.garbage_collection import delete_unreferenced
from studio.review import review
from tests.support import factories
from tests.support.concurrency import run_concurrently, wait_for
from tests.support.factories.exports import make_approved_prediction, unpack_archive
from tests.support.queues import LEASE, PAST, build_worker
from tests.support.scenarios import PhotographedProduct, get_row, make_photographed_product

SHOOTING = {"id": "01990000-5eed-7000-8000-000700000001", "name": "Spring"}


def request_export(
    database: Database, scenario: PhotographedProduct, *predictions: Prediction, **params: Any
) -> UUID:
    """Request an export of these predictions, or of all approved ones, and return its id."""
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with database.transaction(write=True), caller_context(caller, None):
        shooting = get_visible(Shooting, scenario.shooting.id)
        request = ExportRequest([prediction.id for prediction in predictions] or None, **params)
        return create_export(shooting, request).id


def review_prediction(
    database: Database, scenario: PhotographedProduct, prediction: Prediction, action: Any
) -> None:
    """Call `action` with a locked prediction and its locked shot, as the owner."""
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with database.transaction(write=True), caller_context(caller, None):
        shot = get_visible(Shot, prediction.shot_id, for_update=True)
        action(get_visible(Prediction, prediction.id, for_update=True), shot)


def make_stored_entry(storage: LocalDisk, data: bytes, name: str = "a.webp", **columns: Any) -> ArchiveEntry:
    """Store a file and return its archive entry."""
    key = media_key(new_id(), "webp")
    storage.write(key, data)
    facts = {**dict.fromkeys(COLUMNS), **columns}
    facts.pop("file_name")
    return ArchiveEntry(key, name, hashlib.sha256(data).hexdigest(), len(data), facts)


def build_archive(storage: LocalDisk, *entries: ArchiveEntry) -> bytes:
    target = io.BytesIO()
    write_archive(target, storage, SHOOTING, entries, lambda done: None)
    return target.getvalue()


def test_an_archive_holds_the_originals_and_two_manifests_and_is_reproducible(storage: LocalDisk) -> None:
    entries = [
        make_stored_entry(storage, b"one", "one.webp", look=1),
        make_stored_entry(storage, b"two" * 999, "zwei ü.webp"),
    ]
    archive = build_archive(storage, *entries)
    files, manifest = unpack_archive(archive)
    assert files == {"one.webp": b"one", "zwei ü.webp": b"two" * 999}
    assert manifest["shooting"] == SHOOTING
    assert [entry["file_name"] for entry in manifest["files"]] == list(files)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert build_archive(storage, *entries) == archive


def test_a_spreadsheet_reads_no_cell_of_the_manifest_as_a_formula(storage: LocalDisk) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", 'say "hi", then\nleave', "'quoted", "plain"]
    entries = [
        make_stored_entry(storage, b"x", f"{n}.webp", product=text, seed=-5) for n, text in enumerate(texts)
    ]
    with zipfile.ZipFile(io.BytesIO(build_archive(storage, *entries))) as opened:
        content = opened.read("manifest.csv")
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    start = [f"'{text}" for text in texts[:4]]
    assert [row["product"] for row in rows] == [*start, "'\tx", "'\r'=1", *texts[6:]]
    assert {row["seed"] for row in rows} == {"-5"}
    assert list(rows[0]) == list(COLUMNS)


@pytest.mark.parametrize(
    "separator", [";", "; ", ';"', "\t", "\n", "\r", "\r\n", "|", "", " ", '"', "\t;\n "]
)
def test_s39_no_locale_reads_a_part_of_a_manifest_cell_as_a_formula(
    storage: LocalDisk, separator: str
) -> None:
    """A spreadsheet splits a file at the list separator of its locale, whatever separator the file has."""
    for formula in "=+-@＝＋－＠":
        hostile = f"{separator}{formula}1+1"
        facts = {"product": f"Mug{hostile}", "sku": hostile, "provenance": {"light": hostile, "crop": [-1]}}
        content = build_manifest_csv([make_stored_entry(storage, b"x", "a.webp", **facts)]).decode(
            "utf-8-sig"
        )
        for delimiter in ",;\t|":
            rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
            cells = [cell.lstrip(' \t\r\n"') for row in rows for cell in row]
            assert not [cell for cell in cells if cell.startswith(formula)]


def test_s39_quoting_formulas_takes_linear_time(storage: LocalDisk) -> None:
    started = time.process_time()
    build_manifest_csv([make_stored_entry(storage, b"x", "a.webp", product=";\t" * 200_000)])
    assert time.process_time() - started < 1


def test_an_archive_of_500_images_needs_less_than_4_mb_of_memory(storage: LocalDisk, tmp_path: Path) -> None:
    one = make_stored_entry(storage, bytes(range(256)) * 256)
    entries = [
        ArchiveEntry(one.key, f"{n}.webp", one.content_hash, one.file_size, one.facts) for n in range(500)
    ]
    tracemalloc.start()
    try:
        with (tmp_path / "archive.zip").open("x+b") as file:
            write_archive(file, storage, SHOOTING, entries, lambda done: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "archive.zip").stat().st_size > 500 * one.file_size
    assert peak < 4_000_000


def test_a_file_of_more_than_4_gb_gets_a_zip64_header(storage: LocalDisk) -> None:
    """The header depends on the declared size, so no large file is needed."""
    one = make_stored_entry(storage, b"small")
    large = ArchiveEntry(one.key, "large.webp", one.content_hash, 5 << 30, one.facts)
    target = io.BytesIO()
    with pytest.raises(SourceFileMissing):
        write_archive(target, storage, SHOOTING, [large], lambda done: None)
    with zipfile.ZipFile(target) as opened:
        assert opened.getinfo("large.webp").extract_version == zipfile.ZIP64_VERSION


@pytest.mark.parametrize("damage", ["deleted", "longer", "shorter", "changed"])
def test_a_damaged_source_file_fails_the_export_and_leaves_no_archive(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, damage: str
) -> None:
    prediction = make_approved_prediction(storage, scenario, b"image")
    export_id = request_export(database, scenario)
    key = media_key(prediction.media_id, "webp")
    if damage == "deleted":
        storage.delete(key)
    else:
        storage.write(key, {"longer": b"images", "shorter": b"ima", "changed": b"Image"}[damage])
    assert run_pending_exports(build_worker(database, storage)) == 0
    failed = get_row(database, Export, export_id)
    assert (failed.status, failed.error, failed.file_size) == ("failed", queue.INPUT_ERROR, None)
    assert failed.expires_at - failed.completed_at == timedelta(days=30)
    assert list(storage.list_files("exports")) == []
    assert get_row(database, Prediction, prediction.id).status == "approved"


def test_an_expired_lease_is_taken_over_and_one_archive_remains(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    prediction = make_approved_prediction(storage, scenario, b"image")
    export_id = request_export(database, scenario)
    lost = queue.EXPORTS.lease_next(database, PAST)
    assert lost is not None
    half_written = storage.root / export_folder(export_id) / ".archive.zip.0123456789abcdef"
    half_written.parent.mkdir(parents=True)
    half_written.write_bytes(b"PK")

    assert run_pending_exports(build_worker(database, storage)) == 1
    done = get_row(database, Export, export_id)
    assert (done.status, done.attempts, done.lease_owner, done.progress) == ("completed", 2, None, 100)
    assert [file.key for file in storage.list_files("exports")] == [export_key(export_id)]
    archive = storage.read(export_key(export_id))
    assert (done.file_size, done.content_hash) == (len(archive), hashlib.sha256(archive).hexdigest())

    # The first worker was slow, not killed: its late writes change nothing.
    assert not worker.run_export(build_worker(database, storage), lost)
    queue.EXPORTS.fail(database, lost, queue.INTERNAL_ERROR)
    assert get_row(database, Export, export_id).status == "completed"
    assert storage.read(export_key(export_id)) == archive
    assert get_row(database, Prediction, prediction.id).status == "exported"


def test_a_prediction_deleted_after_the_request_is_in_the_archive_and_stays_deleted(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    kept = make_approved_prediction(storage, scenario, b"kept", product="Kept")
    deleted = make_approved_prediction(storage, scenario, b"deleted", product="Deleted")
    export_id = request_export(database, scenario)
    review_prediction(database, scenario, deleted, review.reopen_prediction)
    review_prediction(database, scenario, deleted, lambda row, shot: review.delete_prediction(row))
    # Only the export still refers to the file.
    assert delete_unreferenced(database, storage, utc_now() + timedelta(days=2)) == 0
    assert storage.exists(media_key(deleted.media_id, "webp"))

    assert run_pending_exports(build_worker(database, storage)) == 1
    files, _ = unpack_archive(storage.read(export_key(export_id)))
    assert sorted(files.values()) == [b"deleted", b"kept"]
    assert get_row(database, Shot, kept.shot_id).status == "exported"
    assert get_row(database, Shot, deleted.shot_id).status == "pending_review"


def test_reopening_an_exported_prediction_does_not_change_its_exports(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    prediction = make_approved_prediction(storage, scenario, b"image")
    first = request_export(database, scenario)
    assert run_pending_exports(build_worker(database, storage)) == 1
    again = request_export(database, scenario, prediction)
    assert run_pending_exports(build_worker(database, storage)) == 1
    assert storage.read(export_key(again)) == storage.read(export_key(first))
    review_prediction(database, scenario, prediction, review.reopen_prediction)
    assert get_row(database, Shot, prediction.shot_id).status == "pending_review"
    assert get_row(database, Export, first).status == "completed"
    assert storage.exists(export_key(first))


def test_an_export_deleted_while_it_is_written_leaves_no_file(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    make_approved_prediction(storage, scenario, b"image")
    export_id = request_export(database, scenario)
    lease = queue.EXPORTS.lease_next(database, LEASE)
    assert lease is not None
    with database.transaction(write=True) as writing:
        writing.delete(writing.get_one(Export, export_id))
    assert not worker.run_export(build_worker(database, storage), lease)
    assert list(storage.list_files("exports")) == []


def test_an_export_whose_folder_is_deleted_meanwhile_ends_without_an_error(
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_approved_prediction(storage, scenario, b"image")
    export_id = request_export(database, scenario)

    def write_and_delete(*arguments: Any) -> None:
        write_archive(*arguments)
        with database.transaction(write=True) as writing:
            writing.delete(writing.get_one(Export, export_id))
        storage.delete_folder(export_folder(export_id))

    monkeypatch.setattr(worker, "write_archive", write_and_delete)
    assert run_pending_exports(build_worker(database, storage)) == 0
    assert list(storage.list_files("exports")) == []
    assert caplog.records == []


def test_garbage_collection_deletes_only_expired_exports_and_archives_without_an_export(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    make_approved_prediction(storage, scenario, b"image")
    export_id = request_export(database, scenario)
    assert run_pending_exports(build_worker(database, storage)) == 1
    with storage.open_writer(export_key(new_id())) as file:
        file.write(b"of a deleted export")
    delete_unreferenced(database, storage, utc_now() + timedelta(days=29))
    assert [file.key for file in storage.list_files("exports")] == [export_key(export_id)]
    delete_unreferenced(database, storage, utc_now() + timedelta(days=31))
    assert list(storage.list_files("exports")) == []
    with database.transaction(write=False) as reading:
        assert reading.get(Export, export_id) is None


def make_approved_predictions(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, count: int
) -> None:
    """Create approved predictions that differ only in their index."""
    first = make_approved_prediction(storage, scenario, b"the same", sku="AN-2041")
    own = {"id", "index", "created_at", "updated_at"}
    names = [column.key for column in Prediction.__table__.columns]
    same = {name: getattr(first, name) for name in names if name not in own}
    with database.transaction(write=True) as writing:
        writing.add_all(Prediction(**same, index=number) for number in range(1, count))


def test_one_archive_holds_500_images(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    make_approved_predictions(database, storage, scenario, MAX_PREDICTIONS)
    export_id = request_export(database, scenario)
    assert run_pending_exports(build_worker(database, storage)) == 1
    files, manifest = unpack_archive(storage.read(export_key(export_id)))
    assert (
        len(files) == len(manifest["files"]) == get_row(database, Export, export_id).predictions_count == 500
    )
    name = f"AN-2041_{scenario.shot_type.slug}"
    assert {f"{name}.webp", f"{name}-2.webp", f"{name}-500.webp"} <= set(files)


def test_an_export_of_more_than_500_predictions_is_rejected(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    make_approved_predictions(database, storage, scenario, MAX_PREDICTIONS + 1)
    with pytest.raises(ExportTooLarge):
        request_export(database, scenario)


def test_a_new_export_starts_before_the_interval_of_the_periodic_task_ends(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    make_approved_prediction(storage, scenario, b"image")
    exporting = PeriodicTask(
        "exporting", lambda: run_pending_exports(build_worker(database, storage)), 60, EXPORTS.listen()
    )
    exporting.start()
    export_id = request_export(database, scenario)
    wait_for(lambda: get_row(database, Export, export_id).status == "completed", 10)
    began = time.monotonic()
    exporting.stop()
    assert time.monotonic() - began < 1


@pytest.fixture
def shared_scenario(emptied_database: Database, storage: LocalDisk) -> PhotographedProduct:
    """Return a scenario whose rows are committed, so that every connection sees them."""
    with emptied_database.transaction(write=True):
        return make_photographed_product(storage, None)


def test_concurrent_workers_write_two_exports_of_the_same_predictions_once_each(
    emptied_database: Database, storage: LocalDisk, shared_scenario: PhotographedProduct
) -> None:
    database = emptied_database
    with database.transaction(write=True):
        predictions = [
            make_approved_prediction(storage, shared_scenario, f"image {n}".encode()) for n in range(8)
        ]
    exports = [
        request_export(database, shared_scenario),
        request_export(database, shared_scenario, *reversed(predictions)),
    ]
    assert sum(run_concurrently(*[partial(run_pending_exports, build_worker(database, storage))] * 4)) == 2
    assert {get_row(database, Export, one).attempts for one in exports} == {1}
    archives = {storage.read(export_key(one)) for one in exports}
    assert len(archives) == 1
    for prediction in predictions:
        assert get_row(database, Prediction, prediction.id).status == "exported"
        assert get_row(database, Shot, prediction.shot_id).status == "exported"
