"""Exports: what an archive holds, and that it is written once whatever happens to those who write it."""

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
from sqlalchemy import select

from db.base import new_id, utc_now
from db.models import Export, Prediction, Shooting, Shot
from db.session import Database
from db.tenancy import get_owned, use_caller
from studio import review
from studio.exports import queue, work
from studio.exports.archive import COLUMNS, Picture, PictureLost, write_archive
from studio.exports.order import MAX_PICTURES, ExportTooLarge, order_export
from studio.exports.work import work_off_exports
from studio.jobs.repeating import Repeating
from studio.jobs.signal import EXPORTS
from studio.media.storage import LocalDisk, export_folder, export_key, media_key
from studio.media.sweep import sweep
from tests import factories
from tests.exporting import approved_picture, unpacked
from tests.production import LEASE, Production, make_production
from tests.racing import at_once

PAST = timedelta(seconds=-1)
SHOOTING = {"id": "01990000-5eed-7000-8000-000700000001", "name": "Spring"}


def order(database: Database, production: Production, *pictures: Prediction, **asked: Any) -> UUID:
    """An export of these pictures, of all approved ones without any."""
    caller = factories.caller_of(production.owner, {production.organization: "owner"})
    with database.transaction(write=True), use_caller(caller, None):
        shooting = get_owned(Shooting, production.shooting.id)
        return order_export(shooting, [one.id for one in pictures] or None, **asked).id


def row(database: Database, model: type[Any], row_id: UUID) -> Any:
    with database.transaction(write=False) as reading:
        return reading.scalars(
            select(model).where(model.id == row_id).execution_options(populate_existing=True)
        ).one()


def reviewed(database: Database, production: Production, prediction: Prediction, act: Any) -> None:
    """Do something with a picture and its shot as a reviewer does."""
    caller = factories.caller_of(production.owner, {production.organization: "owner"})
    with database.transaction(write=True), use_caller(caller, None):
        shot = get_owned(Shot, prediction.shot_id, for_update=True)
        act(get_owned(Prediction, prediction.id, for_update=True), shot)


def stored(storage: LocalDisk, data: bytes, name: str = "a.webp", **facts: Any) -> Picture:
    """A picture of an archive, with its file."""
    key = media_key(new_id(), "webp")
    storage.write(key, data)
    known = {**dict.fromkeys(COLUMNS), **facts}
    known.pop("file_name")
    return Picture(key, name, hashlib.sha256(data).hexdigest(), len(data), known)


def archived(storage: LocalDisk, *pictures: Picture) -> bytes:
    target = io.BytesIO()
    write_archive(target, storage, SHOOTING, pictures, lambda done: None)
    return target.getvalue()


def test_an_archive_holds_the_originals_and_two_manifests_and_nothing_that_varies(storage: LocalDisk) -> None:
    pictures = [stored(storage, b"one", "one.webp", look=1), stored(storage, b"two" * 999, "zwei ü.webp")]
    archive = archived(storage, *pictures)
    files, manifest = unpacked(archive)
    assert files == {"one.webp": b"one", "zwei ü.webp": b"two" * 999}
    assert manifest["shooting"] == SHOOTING
    assert [entry["file_name"] for entry in manifest["files"]] == list(files)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert archived(storage, *pictures) == archive


def test_no_cell_of_the_manifest_is_a_formula_to_a_spreadsheet(storage: LocalDisk) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", 'say "hi", then\nleave', "'quoted", "plain"]
    pictures = [stored(storage, b"x", f"{n}.webp", product=text, seed=-5) for n, text in enumerate(texts)]
    with zipfile.ZipFile(io.BytesIO(archived(storage, *pictures))) as opened:
        content = opened.read("manifest.csv")
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert [row["product"] for row in rows] == [f"'{text}" for text in texts[:6]] + texts[6:]
    assert {row["seed"] for row in rows} == {"-5"}
    assert list(rows[0]) == list(COLUMNS)


def test_500_pictures_need_no_more_memory_than_one(storage: LocalDisk, tmp_path: Path) -> None:
    one = stored(storage, bytes(range(256)) * 256)
    pictures = [Picture(one.key, f"{n}.webp", one.content_hash, one.file_size, one.facts) for n in range(500)]
    tracemalloc.start()
    try:
        with (tmp_path / "archive.zip").open("x+b") as file:
            write_archive(file, storage, SHOOTING, pictures, lambda done: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "archive.zip").stat().st_size > 500 * one.file_size
    assert peak < 4_000_000


def test_a_picture_beyond_4_gb_is_announced_so(storage: LocalDisk) -> None:
    """The size decides before the bytes come; writing them would take a minute."""
    one = stored(storage, b"small")
    large = Picture(one.key, "large.webp", one.content_hash, 5 << 30, one.facts)
    target = io.BytesIO()
    with pytest.raises(PictureLost):
        write_archive(target, storage, SHOOTING, [large], lambda done: None)
    with zipfile.ZipFile(target) as opened:
        assert opened.getinfo("large.webp").extract_version == zipfile.ZIP64_VERSION


@pytest.mark.parametrize("damage", ["gone", "longer", "shorter", "other"])
def test_a_picture_that_is_not_what_was_ordered_fails_the_export_and_leaves_no_file(
    database: Database, storage: LocalDisk, production: Production, damage: str
) -> None:
    prediction = approved_picture(storage, production, b"picture")
    export_id = order(database, production)
    key = media_key(prediction.media_id, "webp")
    if damage == "gone":
        storage.delete(key)
    else:
        storage.write(key, {"longer": b"pictures", "shorter": b"pic", "other": b"Picture"}[damage])
    assert work_off_exports(database, storage) == 0
    failed = row(database, Export, export_id)
    assert (failed.status, failed.error, failed.file_size) == ("failed", queue.INPUT_ERROR, None)
    assert failed.expires_at - failed.completed_at == timedelta(days=30)
    assert list(storage.files("exports")) == []
    assert row(database, Prediction, prediction.id).status == "approved"


def test_an_expired_lease_is_taken_over_and_one_file_remains(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    prediction = approved_picture(storage, production, b"picture")
    export_id = order(database, production)
    lost = queue.claim_next(database, "killed", PAST)
    assert lost is not None
    half_written = storage.root / export_folder(export_id) / ".archive.zip.0123456789abcdef"
    half_written.parent.mkdir(parents=True)
    half_written.write_bytes(b"PK")

    assert work_off_exports(database, storage) == 1
    done = row(database, Export, export_id)
    assert (done.status, done.attempts, done.lease_owner, done.progress) == ("completed", 2, None, 100)
    assert [file.key for file in storage.files("exports")] == [export_key(export_id)]
    archive = storage.read(export_key(export_id))
    assert (done.file_size, done.content_hash) == (len(archive), hashlib.sha256(archive).hexdigest())

    # It was slow, not dead: what it does now changes nothing.
    assert not work.carry_out(database, storage, lost, LEASE)
    queue.fail(database, lost, queue.INTERNAL_ERROR)
    assert row(database, Export, export_id).status == "completed"
    assert storage.read(export_key(export_id)) == archive
    assert row(database, Prediction, prediction.id).status == "exported"


def test_an_export_that_kills_its_workers_three_times_fails(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    approved_picture(storage, production, b"picture")
    export_id = order(database, production)
    for number in range(queue.MAX_CLAIMS):
        assert queue.claim_next(database, f"victim {number}", PAST) is not None
    assert work_off_exports(database, storage) == 0
    failed = row(database, Export, export_id)
    assert (failed.status, failed.error) == ("failed", queue.INTERNAL_ERROR)


def test_a_worker_whose_lease_was_taken_stops_writing(
    database: Database, storage: LocalDisk, production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved_picture(storage, production, b"picture")
    order(database, production)
    lost = queue.claim_next(database, "slow", PAST)
    assert lost is not None
    assert queue.claim_next(database, "second", LEASE) is not None
    monkeypatch.setattr(work, "TELL_SECONDS", 0.0)
    assert not work.carry_out(database, storage, lost, LEASE)
    assert list(storage.files("exports")) == []


def test_what_was_withdrawn_after_the_order_is_in_the_archive_and_stays_withdrawn(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    kept = approved_picture(storage, production, b"kept", product="Kept")
    withdrawn = approved_picture(storage, production, b"withdrawn", product="Withdrawn")
    export_id = order(database, production)
    reviewed(database, production, withdrawn, review.reopen_picture)
    reviewed(database, production, withdrawn, lambda picture, shot: review.delete_picture(picture))
    # Nothing but the order refers to the file any more.
    assert sweep(database, storage, utc_now() + timedelta(days=2)) == 0
    assert storage.exists(media_key(withdrawn.media_id, "webp"))

    assert work_off_exports(database, storage) == 1
    files, _ = unpacked(storage.read(export_key(export_id)))
    assert sorted(files.values()) == [b"kept", b"withdrawn"]
    assert row(database, Shot, kept.shot_id).status == "exported"
    assert row(database, Shot, withdrawn.shot_id).status == "pending_review"


def test_a_reopened_picture_leaves_its_export_as_it_is_and_can_be_exported_again(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    picture = approved_picture(storage, production, b"picture")
    first = order(database, production)
    assert work_off_exports(database, storage) == 1
    again = order(database, production, picture)
    assert work_off_exports(database, storage) == 1
    assert storage.read(export_key(again)) == storage.read(export_key(first))
    reviewed(database, production, picture, review.reopen_picture)
    assert row(database, Shot, picture.shot_id).status == "pending_review"
    assert row(database, Export, first).status == "completed"
    assert storage.exists(export_key(first))


def test_an_export_that_is_deleted_while_it_is_written_leaves_nothing(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    approved_picture(storage, production, b"picture")
    export_id = order(database, production)
    claim = queue.claim_next(database, "writer", LEASE)
    assert claim is not None
    with database.transaction(write=True) as writing:
        writing.delete(writing.get_one(Export, export_id))
    assert not work.carry_out(database, storage, claim, LEASE)
    assert list(storage.files("exports")) == []


def test_an_archive_whose_folder_is_taken_away_meanwhile_is_no_failure(
    database: Database,
    storage: LocalDisk,
    production: Production,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    approved_picture(storage, production, b"picture")
    export_id = order(database, production)

    def write_and_lose(*arguments: Any) -> None:
        write_archive(*arguments)
        with database.transaction(write=True) as writing:
            writing.delete(writing.get_one(Export, export_id))
        storage.delete_folder(export_folder(export_id))

    monkeypatch.setattr(work, "write_archive", write_and_lose)
    assert work_off_exports(database, storage) == 0
    assert list(storage.files("exports")) == []
    assert caplog.records == []


def test_the_sweep_removes_expired_exports_and_lost_archives_and_no_other(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    approved_picture(storage, production, b"picture")
    export_id = order(database, production)
    assert work_off_exports(database, storage) == 1
    with storage.writing(export_key(new_id())) as file:
        file.write(b"of an export that is gone")
    sweep(database, storage, utc_now() + timedelta(days=29))
    assert [file.key for file in storage.files("exports")] == [export_key(export_id)]
    sweep(database, storage, utc_now() + timedelta(days=31))
    assert list(storage.files("exports")) == []
    with database.transaction(write=False) as reading:
        assert reading.get(Export, export_id) is None


def many_approved(database: Database, storage: LocalDisk, production: Production, count: int) -> None:
    """So many approved pictures that nothing but their number tells apart."""
    first = approved_picture(storage, production, b"the same", sku="AN-2041")
    own = {"id", "index", "created_at", "updated_at"}
    names = [column.key for column in Prediction.__table__.columns]
    same = {name: getattr(first, name) for name in names if name not in own}
    with database.transaction(write=True) as writing:
        writing.add_all(Prediction(**same, index=number) for number in range(1, count))


def test_500_pictures_go_into_one_archive(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    many_approved(database, storage, production, MAX_PICTURES)
    export_id = order(database, production)
    assert work_off_exports(database, storage) == 1
    files, manifest = unpacked(storage.read(export_key(export_id)))
    assert len(files) == len(manifest["files"]) == row(database, Export, export_id).predictions_count == 500
    name = f"AN-2041_{production.shot_type.slug}"
    assert {f"{name}.webp", f"{name}-2.webp", f"{name}-500.webp"} <= set(files)


def test_more_pictures_than_an_archive_holds_are_refused(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    many_approved(database, storage, production, MAX_PICTURES + 1)
    with pytest.raises(ExportTooLarge):
        order(database, production)


def test_an_order_starts_at_once_although_the_pause_is_long(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    approved_picture(storage, production, b"picture")
    exporting = Repeating("exporting", lambda: work_off_exports(database, storage), 60, EXPORTS.listen())
    exporting.start()
    export_id = order(database, production)
    deadline = time.monotonic() + 10
    while row(database, Export, export_id).status != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    began = time.monotonic()
    exporting.stop()
    assert time.monotonic() - began < 1


@pytest.fixture
def shared(emptied_database: Database, storage: LocalDisk) -> Production:
    """A production that every connection sees."""
    with emptied_database.transaction(write=True):
        return make_production(storage, None)


def test_many_workers_write_two_exports_of_the_same_pictures_once_each(
    emptied_database: Database, storage: LocalDisk, shared: Production
) -> None:
    database = emptied_database
    with database.transaction(write=True):
        pictures = [approved_picture(storage, shared, f"picture {n}".encode()) for n in range(8)]
    exports = [order(database, shared), order(database, shared, *reversed(pictures))]
    assert sum(at_once(*[partial(work_off_exports, database, storage)] * 4)) == 2
    assert {row(database, Export, one).attempts for one in exports} == {1}
    archives = {storage.read(export_key(one)) for one in exports}
    assert len(archives) == 1
    for picture in pictures:
        assert row(database, Prediction, picture.id).status == "exported"
        assert row(database, Shot, picture.shot_id).status == "exported"
