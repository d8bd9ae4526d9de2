"""Test the seed: system rows, demo data, idempotence and concurrent processes."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select, update

from db.base import utc_now
from db.models import (
    Export,
    Generation,
    GenerationModel,
    MediaResource,
    Membership,
    Organization,
    Prediction,
    ProductImage,
    Shot,
    Subject,
    Subscription,
    Upload,
    User,
)
from db.session import Database, current_session
from studio.accounts.identity.passwords import PUBLISHED_PASSWORDS, verify_password
from studio.generations.worker import queue
from studio.generations.worker.render_job import RenderJob
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import LocalDisk, export_key, media_key
from studio.providers.local import RenderedImage
from studio.rendering.model import RENDERER_VERSION
from studio.seed import seed_database
from studio.seed.images.cutouts import load_cutout
from studio.seed.images.packshots import load_packshots
from studio.seed.rows import KINDS, build_seed_id
from tests.support.queues import build_worker, keep_lease, try_record
from tests.support.sample_media import open_image
from tools.sample_images.packshots import render_samples

FIRST_NUMBERS = {**KINDS, Generation: 0x12, Prediction: 0x13, Upload: 0x15}


def build_settings(tmp_path: Path, environment: str = "development", name: str = "demo") -> Settings:
    return Settings(environment=environment, seed=name, media_dir=tmp_path / "media")


def count_seeded_rows() -> dict[str, int]:
    """Return the number of rows of each seeded table. The database holds no other rows."""
    return {
        # unscoped: the test has a database of its own
        model.__name__: current_session().scalar(select(func.count()).select_from(model)) or 0
        for model in (*FIRST_NUMBERS, Membership)
    }


def count_rows(database: Database) -> dict[str, int]:
    with database.transaction(write=False):
        return count_seeded_rows()


def test_the_production_seed_has_system_rows_and_no_accounts(own_database: Database, tmp_path: Path) -> None:
    seed_database(own_database, build_settings(tmp_path, "production"))
    counts = {name: count for name, count in count_rows(own_database).items() if count}
    assert counts == {
        "ShotType": 10,
        "BackgroundPreset": 7,
        "ResolutionPreset": 6,
        "Style": 6,
        "GenerationModel": 2,
        "Subject": 1,
        "SubjectBaseImage": 3,
        "MediaResource": 2,
    }
    with own_database.transaction(write=False):
        public = current_session().scalars(select(Subject))  # unscoped: public rows of the seed
        assert [(row.name, row.owner_id, row.public) for row in public] == [("Mara", None, True)]


def test_the_demo_seed_has_the_rows_of_the_contract_examples_with_accounts_and_images(
    own_database: Database, tmp_path: Path
) -> None:
    settings = build_settings(tmp_path)
    seed_database(own_database, settings)
    check_accounts(own_database)
    storage = LocalDisk(settings.media_dir)
    with own_database.transaction(write=False) as reading:
        for model, kind in FIRST_NUMBERS.items():
            # unscoped: the examples of the contract name these rows
            assert reading.get(model, build_seed_id(kind, 1)) is not None, model.__name__
        for media in reading.scalars(select(MediaResource)):  # unscoped: all of them are the seed's
            data = storage.read(media_key(media.id, media.extension))
            assert len(data) == media.file_size
            assert Image.open(io.BytesIO(data)).size == (media.width, media.height)
        organization = reading.get(Organization, build_seed_id(KINDS[Organization], 1))
        assert organization is not None
        assert organization.name == "Maison Demo"
        generation = reading.scalars(select(Generation)).one()  # unscoped: the only one
        assert (generation.status, generation.progress, generation.cost_credits) == ("completed", 100, 2)
        shots = reading.scalars(select(Shot).order_by(Shot.id)).all()  # unscoped: both are the seed's
        assert [shot.status for shot in shots] == ["pending_review", "pending"]
        predictions = reading.scalars(
            select(Prediction).order_by(Prediction.index)  # unscoped: all of them are the seed's
        ).all()
        assert [row.id for row in predictions] == [build_seed_id(0x13, 1), build_seed_id(0x13, 2)]
        assert len({row.content_hash for row in predictions}) == 2
        export = reading.get_one(Export, build_seed_id(0x20, 1))
        assert (export.status, export.predictions_count) == ("completed", 1)
        assert len(storage.read(export_key(export.id))) == export.file_size
        assert {row.status for row in predictions} == {"pending_review"}
    before = count_rows(own_database)
    seed_database(own_database, settings)
    assert count_rows(own_database) == before


@pytest.mark.slow("it renders the demo images")
def test_workers_complete_the_generations_of_an_interrupted_seed_with_the_ids_of_the_examples(
    own_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    settings = build_settings(tmp_path)
    monkeypatch.setattr("studio.seed._complete_generations", interrupt)
    with pytest.raises(KeyboardInterrupt):
        seed_database(own_database, settings)
    with own_database.transaction(write=True):
        # unscoped: the only generation; this ends its lease
        current_session().execute(update(Generation).values(lease_expires_at=utc_now()))
    lease = queue.GENERATIONS.lease_next(own_database, timedelta(seconds=60))
    assert lease is not None
    storage = LocalDisk(settings.media_dir)
    with ThreadPoolExecutor(1) as render_pool:
        worker = build_worker(own_database, storage)
        with keep_lease(worker) as heartbeat:
            stored = RenderJob(worker, render_pool, lease, heartbeat).run()
    assert try_record(own_database, queue.complete_generation, storage, lease, stored)
    with own_database.transaction(write=False) as reading:
        ids = reading.scalars(select(Prediction.id).order_by(Prediction.index)).all()  # unscoped: the seed's
    assert ids == [build_seed_id(0x13, 1), build_seed_id(0x13, 2)]


def test_the_stored_images_of_the_seed_are_of_this_version_of_the_renderer() -> None:
    # A cut-out of another version is made again by each server with the demo data: seconds of CPU.
    versions = {image.renderer_version for image in load_packshots()} | {load_cutout()[1].renderer_version}
    assert versions == {RENDERER_VERSION}, "run `python -m tools.sample_images.packshots`"


@pytest.mark.slow("it renders the sample images again")
@pytest.mark.usefixtures("real_cut_outs")
def test_the_stored_images_of_the_seed_equal_a_new_rendering(own_database: Database, tmp_path: Path) -> None:
    settings = build_settings(tmp_path)
    seed_database(own_database, settings)
    for rendered, stored in zip(render_samples(own_database, settings), load_packshots(), strict=True):
        # Rounding depends on the processor. A change of light, crop or shadow exceeds the tolerance by far.
        difference = np.asarray(open_image(rendered.image), int) - np.asarray(open_image(stored.image), int)
        assert np.abs(difference).mean() < 0.5
        assert rendered.quality == pytest.approx(stored.quality, abs=0.02)
        assert list_exact_values(rendered) == list_exact_values(stored)


def list_exact_values(image: RenderedImage) -> tuple[object, ...]:
    """Return the values of an image that do not depend on how a processor rounds."""
    size, settings = (image.width, image.height), image.settings
    scene = [settings["light"], settings["shadow"], settings["pose"]]
    origin = (image.renderer_version, image.seed, image.cut_out, image.unused)
    return size, image.content_type, scene, origin


def check_accounts(own_database: Database) -> None:
    """Check that the accounts can sign in, have credits and own their organizations."""
    with own_database.transaction(write=False) as reading:
        users = reading.scalars(select(User).order_by(User.id)).all()
        assert [user.email for user in users] == list(PUBLISHED_PASSWORDS)
        assert [user.is_superuser for user in users] == [False, False, True]
        assert all(verify_password(user.hashed_password, PUBLISHED_PASSWORDS[user.email]) for user in users)
        credits_left = [row.credits_remaining for row in reading.scalars(select(Subscription))]
        assert len(credits_left) == 3
        assert min(credits_left) > 100_000
        owners = reading.execute(select(Membership.user_id, Membership.role)).all()
        assert {tuple(row) for row in owners} == {(users[0].id, "owner"), (users[1].id, "owner")}


def test_concurrent_seeds_create_rows_once_and_do_not_restore_deleted_rows(
    own_database: Database, tmp_path: Path
) -> None:
    settings = build_settings(tmp_path, "test", "contract")
    with ThreadPoolExecutor(2) as pool:
        for outcome in [pool.submit(seed_database, own_database, settings) for _ in range(2)]:
            outcome.result()
    check_fuzzer_requirements(own_database)
    before = count_rows(own_database)
    assert (before["User"], before["Style"], before["Prediction"]) == (3, 6, 8)
    with own_database.transaction(write=True) as writing:
        for image in writing.scalars(select(ProductImage)):  # unscoped: all of them are the seed's
            writing.delete(image)
    seed_database(own_database, settings)
    assert count_rows(own_database) == before | {"ProductImage": 0, "ProductImageCutout": 0}


def check_fuzzer_requirements(own_database: Database) -> None:
    """Check that each tenant has a completed generation and the recommended model renders small images.

    The contract fuzzer depends on both.
    """
    with own_database.transaction(write=False) as reading:
        generations = reading.scalars(select(Generation)).all()  # unscoped: all of them are the seed's
        assert {row.status for row in generations} == {"completed"}
        demo, second = (build_seed_id(KINDS[User], number) for number in (1, 2))
        organizations = [build_seed_id(KINDS[Organization], number) for number in (1, 2)]
        assert {(row.owner_id, row.organization_id) for row in generations} == {
            (demo, organizations[0]),
            (second, organizations[1]),
            (demo, None),
            (second, None),
        }
        recommended = select(GenerationModel).where(GenerationModel.recommended)
        assert reading.scalars(recommended).one().max_size_pixels == 1024 * 1024
