"""Test that garbage collection looks at a bounded part per run, and continues where the last one ended."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, select, text, update

from db.base import utc_now
from db.models import Brand, MediaCheck, MediaResource
from db.session import Database
from studio.infrastructure.storage import LocalDisk, StoredFile, media_folder, media_key
from studio.media import garbage_collection
from studio.media.garbage_collection import GRACE_PERIOD, delete_unreferenced
from tests.support import factories

MAX_GROWTH = 20_000_000
"""Statements leave cycles, which Python collects after some 80 pages; the names of all files take 50 MB."""


class ManyFiles(LocalDisk):
    """A storage with many old images without a row, which exist only as keys."""

    def __init__(self, root: Path, count: int) -> None:
        super().__init__(root)
        self.count, self.deleted = count, 0

    def list_files(self, prefix: str, after: str = "") -> Iterator[StoredFile]:
        """Yield the keys of the images."""
        if prefix == "media":
            old = utc_now() - 1.5 * GRACE_PERIOD
            yield from (StoredFile(media_key(UUID(int=number), "jpg"), old) for number in range(self.count))

    def delete_folder(self, _folder: str) -> None:
        """Count the folder."""
        self.deleted += 1


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at four files, or at two rows, in a run."""
    monkeypatch.setattr(garbage_collection, "MAX_FILES", 4)
    monkeypatch.setattr(garbage_collection, "PAGE_FILES", 2)
    monkeypatch.setattr(garbage_collection, "SAVED_FILES", 2)
    monkeypatch.setattr(garbage_collection, "MIN_ROWS", 2)


def store_old_file(storage: LocalDisk, resource_id: UUID) -> str:
    """Store a file that is old enough to be deleted, and return its key."""
    key = media_key(resource_id, "jpg")
    storage.write(key, b"a file")
    os.utime(storage.path(key), (1_000_000_000, 1_000_000_000))
    return key


def list_keys(storage: LocalDisk) -> list[str]:
    return [file.key for file in storage.list_files("media")]


def test_the_names_of_all_files_are_never_in_memory(database: Database, tmp_path: Path) -> None:
    peaks = []
    # The first run compiles the statements.
    for count in (2_000, 2_000, 200_000):
        storage = ManyFiles(tmp_path, count)
        tracemalloc.start()
        try:
            assert delete_unreferenced(database, storage, utc_now()) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert storage.deleted == count
    assert peaks[2] < peaks[1] + MAX_GROWTH, peaks


def test_a_run_looks_at_a_part_of_the_files_and_the_next_one_continues(
    database: Database, storage: LocalDisk, small_parts: None
) -> None:
    kept = store_old_file(
        storage, factories.make_brand(logo_media_id=factories.make_media().id).logo_media_id
    )
    for _ in range(9):
        store_old_file(storage, uuid4())
    counts = [delete_unreferenced(database, storage, utc_now()) for _ in range(3)]
    # Four, four and two of the ten files were looked at.
    assert sum(counts) == 9
    assert max(counts) <= 4
    assert list_keys(storage) == [kept]
    # From the beginning again.
    store_old_file(storage, UUID(int=0))
    assert delete_unreferenced(database, storage, utc_now()) == 1
    assert list_keys(storage) == [kept]


def test_a_run_that_was_killed_is_continued(
    database: Database, storage: LocalDisk, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [store_old_file(storage, UUID(int=number)) for number in range(8)]
    delete_folder = storage.delete_folder

    def die(folder: str) -> None:
        if folder == media_folder(UUID(int=3)):
            raise KeyboardInterrupt
        delete_folder(folder)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete_folder", die)
        with pytest.raises(KeyboardInterrupt):
            delete_unreferenced(database, storage, utc_now())
    assert list_keys(storage) == keys[3:]
    # The first page was complete: an old file that appears there waits for the next pass.
    first = store_old_file(storage, UUID(int=0))
    assert delete_unreferenced(database, storage, utc_now()) == 4
    assert list_keys(storage) == [first, keys[7]]
    for _ in range(3):
        delete_unreferenced(database, storage, utc_now())
    assert list_keys(storage) == []


def test_a_row_that_is_committed_while_the_files_are_listed_keeps_its_file(
    database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource_id = uuid4()
    key = store_old_file(storage, resource_id)
    young = media_key(uuid4(), "jpg")
    storage.write(young, b"of a transaction that has not committed yet")
    list_stored_files = storage.list_files

    def list_files(prefix: str, after: str = "") -> Iterator[StoredFile]:
        for file in list_stored_files(prefix, after):
            if file.key == key:
                with database.transaction(write=True):
                    factories.make_media(id=resource_id)
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(storage, "list_files", list_files)
        assert delete_unreferenced(database, storage, utc_now()) == 0
    assert set(list_keys(storage)) == {key, young}


def test_an_image_that_has_lost_its_last_reference_is_deleted_by_the_next_run(
    database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage_collection, "_delete_orphans", lambda *_: 0)
    with database.transaction(write=True) as session:
        images = [factories.make_media() for _ in range(4)]
        kept, replaced, of_deleted, new = [image.id for image in images]
        brand = factories.make_brand(logo_media_id=replaced)
        factories.make_brand(logo_media_id=kept)
        deleted = factories.make_brand(logo_media_id=of_deleted)
        before = update(MediaResource).where(MediaResource.id != new)  # unscoped: the images of this test
        session.execute(before.values(updated_at=utc_now() - 2 * GRACE_PERIOD))
    assert delete_unreferenced(database, storage, utc_now()) == 0
    with database.transaction(write=True) as session:
        session.execute(update(Brand).where(Brand.id == brand.id).values(logo_media_id=kept))
        session.execute(delete(Brand).where(Brand.id == deleted.id))
    assert delete_unreferenced(database, storage, utc_now()) == 2
    with database.transaction(write=True) as session:
        # unscoped: the images of this test
        assert set(session.scalars(select(MediaResource.id))) == {kept, new}
        # The new one and the kept one are checked after the grace period.
        assert session.scalar(select(func.count()).select_from(MediaCheck)) == 4
    assert delete_unreferenced(database, storage, utc_now() + GRACE_PERIOD) == 1
    with database.transaction(write=False) as session:
        assert session.scalars(select(MediaResource.id)).all() == [kept]  # unscoped: see above
        assert session.scalar(select(func.count()).select_from(MediaCheck)) == 0


def test_a_check_of_an_image_that_changed_meanwhile_is_repeated(
    database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage_collection, "_delete_orphans", lambda *_: 0)
    with database.transaction(write=True) as session:
        factories.make_media()
        # unscoped: the image of this test
        session.execute(update(MediaResource).values(updated_at=utc_now() + GRACE_PERIOD / 2))
    after = [
        delete_unreferenced(database, storage, utc_now() + count * GRACE_PERIOD) for count in (1.1, 1.4, 1.6)
    ]
    assert after == [0, 0, 1]


def test_every_reference_to_an_image_has_its_triggers(database: Database) -> None:
    named = text("SELECT tgname FROM pg_trigger WHERE tgfoid = to_regproc('sartiq_check_media')")
    with database.transaction(write=False) as session:
        triggers = set(session.scalars(named))
    columns = garbage_collection.list_referring_columns()
    for column in columns:
        name = f"{column.table.name}_{column.name}_check"
        assert {f"{name}_delete", f"{name}_update"} <= triggers
    assert len(triggers) == 2 * len(columns) + 2


def test_a_run_looks_at_a_part_of_the_rows_and_the_next_one_continues(
    database: Database, storage: LocalDisk, small_parts: None
) -> None:
    with database.transaction(write=True) as session:
        kept = factories.make_brand(logo_media_id=factories.make_media().id).logo_media_id
        for _ in range(5):
            factories.make_media()
        # unscoped: all images of this test
        session.execute(update(MediaResource).values(updated_at=utc_now() - 2 * GRACE_PERIOD))
    assert [delete_unreferenced(database, storage, utc_now()) for _ in range(4)] == [1, 2, 2, 0]
    with database.transaction(write=False) as session:
        # unscoped: all images of this test
        assert session.scalars(select(MediaResource.id)).all() == [kept]
        assert session.scalar(select(func.count()).select_from(MediaResource)) == 1  # unscoped: see above
