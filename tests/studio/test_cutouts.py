"""Test that each cut-out is made once, from what its photo shows now, when workers and tenants compete."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from db.base import utc_now
from db.models import CutoutStatus, MediaResource, Organization, Product, ProductImage, ProductImageCutout
from db.session import Database
from studio.cutouts import queue
from studio.cutouts.queue import CutoutLease, MadeCutout
from studio.cutouts.requests import request_cutout
from studio.generations.worker.executor import GenerationExecutor
from studio.infrastructure.storage import LocalDisk, media_key
from studio.media.garbage_collection import GRACE_PERIOD, delete_unreferenced
from studio.media.ingest import store_image_file
from studio.queue.running import Worker
from tests.support import factories
from tests.support.concurrency import run_concurrently
from tests.support.cutouts import LEASE, box_of, make_cutouts, make_quickly
from tests.support.queues import build_worker, try_record

EXPIRED = timedelta(seconds=-1)


def make_photo(product: Product | None = None, **values: Any) -> ProductImageCutout:
    """Create a photo without a file, and its pending cut-out."""
    return factories.make_product_image_cutout(factories.make_product_image(product, **values))


def make_photos(organization: Organization, count: int) -> list[ProductImageCutout]:
    """Create photos of one product, the oldest first."""
    product = factories.make_product(organization=organization)
    return [make_photo(product, position=number) for number in range(1, count + 1)]


def read(database: Database, cutout: ProductImageCutout) -> ProductImageCutout:
    """Return the cut-out as the database has it now."""
    with database.transaction(write=False) as reading:
        # unscoped: the cut-out of this test
        query = select(ProductImageCutout).where(ProductImageCutout.id == cutout.id)
        return reading.scalars(query.execution_options(populate_existing=True)).one()


def change_region(database: Database, cutout: ProductImageCutout, region: dict[str, float] | None) -> None:
    """Change the region of a photo as the API does."""
    with database.transaction(write=True) as writing:
        image = writing.get_one(ProductImage, cutout.product_image_id)  # unscoped: the photo of this test
        image.region = region
        image.cutout = writing.get_one(ProductImageCutout, cutout.id)  # unscoped: the cut-out of this test
        writing.flush()
        request_cutout(image)


def lease_next(database: Database, duration: timedelta = LEASE) -> CutoutLease | None:
    return queue.CUTOUTS.lease_next(database, duration)


def test_a_finished_cutout_is_a_stored_image_of_the_tenant(database: Database, storage: LocalDisk) -> None:
    with database.transaction(write=True):
        cutout = make_photo()
    assert make_cutouts(database, storage) == 1
    made = read(database, cutout)
    assert (made.status, made.attempts, made.lease_owner) == (CutoutStatus.COMPLETED, 1, None)
    assert (made.method, made.confidence, made.warnings) == ("u2netp", 0.91, ["touches_edge"])
    with database.transaction(write=False) as reading:
        media = reading.get_one(MediaResource, made.media_id)  # unscoped: the image of this test
        assert (media.owner_id, media.organization_id) == (cutout.owner_id, cutout.organization_id)
        # Counted like every other stored image.
        assert media.file_size == len(storage.read(media_key(media.id, media.extension)))


def test_a_result_is_recorded_while_a_request_locks_the_photo(
    own_database: Database, storage: LocalDisk
) -> None:
    """Otherwise the worker waits for the photo, and the request for the cut-out, until one gets an error."""

    def work() -> CutoutStatus:
        make_cutouts(own_database, storage)
        return read(own_database, cutout).status

    with own_database.transaction(write=True):
        cutout = make_photo()
    with own_database.transaction(write=True) as request:
        query = select(ProductImage.id).where(ProductImage.id == cutout.product_image_id)
        assert request.scalars(query.with_for_update()).one()
        assert run_concurrently(work) == [CutoutStatus.COMPLETED]


def test_a_region_that_changes_while_its_cutout_is_made_gets_a_new_cutout(
    own_database: Database, storage: LocalDisk
) -> None:
    with own_database.transaction(write=True):
        cutout = make_photo()
    seen: list[Any] = []

    def make(disk: LocalDisk, lease: CutoutLease) -> MadeCutout:
        seen.append(lease.region)
        if len(seen) == 1:
            change_region(own_database, cutout, box_of(0, 0, 0.5, 0.5))
        return make_quickly(disk, lease)

    assert make_cutouts(own_database, storage, make) == 2
    assert seen == [None, box_of(0, 0, 0.5, 0.5)]
    made = read(own_database, cutout)
    assert (made.status, made.attempts) == (CutoutStatus.COMPLETED, 1)


def test_the_first_of_two_results_is_lost_if_the_region_changed_there_and_back(
    database: Database, storage: LocalDisk
) -> None:
    with database.transaction(write=True):
        cutout = make_photo()
    old = lease_next(database)
    assert old is not None
    change_region(database, cutout, box_of(0, 0, 0.5, 0.5))
    change_region(database, cutout, None)
    made = make_quickly(storage, old)
    stored_id = store_image_file(storage, old.tenant_id, made.image)
    assert not try_record(database, queue.complete_cutout, storage, old, made, stored_id)
    assert read(database, cutout).status == CutoutStatus.PENDING


def test_tenants_take_turns_and_the_newest_photo_of_a_tenant_comes_first(own_database: Database) -> None:
    with own_database.transaction(write=True):
        large, small = factories.make_organization(), factories.make_organization()
        many, few = make_photos(large, 5), make_photos(small, 2)
        person = factories.make_user()
        personal = make_photo(factories.make_product(owner=person))
    order = [lease.row_id for _ in range(8) if (lease := lease_next(own_database)) is not None]
    assert len(order) == 8
    # Whoever is first: the others are served before the large tenant's second photo.
    assert {many[-1].id, few[-1].id, personal.id} == set(order[:3])
    assert order[3:5] in ([many[-2].id, few[-2].id], [few[-2].id, many[-2].id])
    assert order[5:] == [many[2].id, many[1].id, many[0].id]


def test_a_worker_makes_one_cutout_after_each_generation(
    database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    executor = GenerationExecutor(build_worker(database, storage), 1)
    generations = iter([object(), object(), None])
    monkeypatch.setattr(executor, "lease_next", lambda: next(generations))
    monkeypatch.setattr(executor, "run", lambda _: done.append("generation"))
    cutouts = iter([True, True, False])

    def run_cutout(_worker: Worker) -> bool:
        done.append("cut-out")
        return next(cutouts)

    monkeypatch.setattr("studio.generations.worker.executor.run_next_cutout", run_cutout)
    assert [executor.run_next() for _ in range(3)] == [True, True, False]
    assert done == ["generation", "cut-out", "generation", "cut-out", "cut-out"]
    executor.close()


def test_garbage_collection_deletes_the_files_of_cutouts_that_nothing_refers_to(
    own_database: Database, storage: LocalDisk
) -> None:
    with own_database.transaction(write=True):
        kept, deleted = make_photo(), make_photo()
    make_cutouts(own_database, storage)
    files = {cutout.id: read(own_database, cutout).media_id for cutout in (kept, deleted)}
    with own_database.transaction(write=True) as writing:
        writing.delete(writing.get_one(ProductImage, deleted.product_image_id))  # unscoped: of this test
        old = utc_now() - GRACE_PERIOD - timedelta(hours=1)
        writing.execute(update(MediaResource).values(updated_at=old))  # unscoped: all images of this test
    assert read_ids(own_database, ProductImageCutout) == {kept.id}
    delete_unreferenced(own_database, storage, utc_now())
    remaining = read_ids(own_database, MediaResource)
    assert files[kept.id] in remaining
    deleted_file = files[deleted.id]
    assert deleted_file is not None
    assert deleted_file not in remaining
    assert not storage.exists(media_key(deleted_file, "webp"))


def read_ids(database: Database, model: Any) -> set[Any]:
    with database.transaction(write=False) as reading:
        return set(reading.scalars(select(model.id)))  # unscoped: all rows of this test


def test_a_photo_that_is_deleted_while_its_cutout_is_made_leaves_no_row(
    database: Database, storage: LocalDisk
) -> None:
    with database.transaction(write=True):
        cutout = make_photo()

    def make(disk: LocalDisk, lease: CutoutLease) -> MadeCutout:
        with database.transaction(write=True) as writing:
            writing.delete(writing.get_one(ProductImage, cutout.product_image_id))  # unscoped: of this test
        return make_quickly(disk, lease)

    assert make_cutouts(database, storage, make) == 1
    assert read_ids(database, ProductImageCutout) == set()
