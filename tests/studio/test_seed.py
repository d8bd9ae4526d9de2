"""The seed: what every installation has, the demonstration, and two processes that seed at once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select, update

from db.base import utc_now
from db.engine import build_engine
from db.migrations import downgrade, upgrade
from db.models import (
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
from studio.media.storage import LocalDisk, media_key
from studio.providers.local import RenderedImage
from studio.seed import seed_database
from studio.seed.images.packshots import load_packshots
from studio.seed.rows import KINDS, build_seed_id
from studio.settings import Settings
from tests.support.sample_media import open_image
from tests.tools.sample_images.packshots import render_samples

FIRST_NUMBERS = {**KINDS, Generation: 0x12, Prediction: 0x13, Upload: 0x15}


@pytest.fixture
def fresh_database(empty_database_url: str) -> Iterator[Database]:
    """A database of its own with the newest schema, which commits for real."""
    upgrade(empty_database_url)
    database = Database(build_engine(empty_database_url, pool_size=6))
    yield database
    database.dispose()
    downgrade(empty_database_url)


def build_settings(tmp_path: Path, environment: str = "development", name: str = "demo") -> Settings:
    return Settings(environment=environment, seed=name, media_dir=tmp_path / "media")


def count_seeded_rows() -> dict[str, int]:
    """How many rows each table of interest has; every table is the whole story here."""
    return {
        # unscoped: the database of this test belongs to nobody
        model.__name__: current_session().scalar(select(func.count()).select_from(model)) or 0
        for model in (*FIRST_NUMBERS, Membership)
    }


def count_rows_shown(database: Database) -> dict[str, int]:
    with database.transaction(write=False):
        return count_seeded_rows()


def test_a_production_gets_the_system_rows_and_nobody_can_sign_in(
    fresh_database: Database, tmp_path: Path
) -> None:
    seed_database(fresh_database, build_settings(tmp_path, "production"))
    there = {name: count for name, count in count_rows_shown(fresh_database).items() if count}
    assert there == {
        "ShotType": 10,
        "BackgroundPreset": 7,
        "ResolutionPreset": 6,
        "Style": 6,
        "GenerationModel": 2,
        "Subject": 1,
        "SubjectBaseImage": 3,
        "MediaResource": 2,
    }
    with fresh_database.transaction(write=False):
        public = current_session().scalars(select(Subject))  # unscoped: what the system ships with
        assert [(row.name, row.owner_id, row.public) for row in public] == [("Mara", None, True)]


def test_the_rows_of_the_examples_are_there_with_accounts_and_pictures(
    fresh_database: Database, tmp_path: Path
) -> None:
    settings = build_settings(tmp_path)
    seed_database(fresh_database, settings)
    check_accounts(fresh_database)
    storage = LocalDisk(settings.media_dir)
    with fresh_database.transaction(write=False) as reading:
        for model, kind in FIRST_NUMBERS.items():
            # unscoped: the examples of the contract name these rows
            assert reading.get(model, build_seed_id(kind, 1)) is not None, model.__name__
        for media in reading.scalars(select(MediaResource)):  # unscoped: all of them are the seed's
            data = storage.read(media_key(media.id, media.extension))
            assert len(data) == media.file_size
            assert Image.open(io.BytesIO(data)).size == (media.width, media.height)
        house = reading.get(Organization, build_seed_id(KINDS[Organization], 1))
        assert house is not None
        assert house.name == "Maison Demo"
        generation = reading.scalars(select(Generation)).one()  # unscoped: there is one
        assert (generation.status, generation.progress, generation.cost_credits) == ("completed", 100, 2)
        shots = reading.scalars(select(Shot).order_by(Shot.id)).all()  # unscoped: both are the seed's
        assert [shot.status for shot in shots] == ["pending_review", "pending"]
        made = reading.scalars(select(Prediction).order_by(Prediction.index)).all()  # unscoped: the seed's
        assert [row.id for row in made] == [build_seed_id(0x13, 1), build_seed_id(0x13, 2)]
        assert len({row.content_hash for row in made}) == 2
    before = count_rows_shown(fresh_database)
    seed_database(fresh_database, settings)
    assert count_rows_shown(fresh_database) == before


def test_pictures_that_a_dying_seed_left_to_the_workers_are_those_of_the_examples(
    fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    settings = build_settings(tmp_path)
    monkeypatch.setattr("studio.seed._complete_generations", die)
    with pytest.raises(KeyboardInterrupt):
        seed_database(fresh_database, settings)
    with fresh_database.transaction(write=True):
        # unscoped: there is one; its lease is over
        current_session().execute(update(Generation).values(lease_expires_at=utc_now()))
    claim = queue.lease_next(fresh_database, "a worker", timedelta(seconds=60))
    assert claim is not None
    storage = LocalDisk(settings.media_dir)
    with ThreadPoolExecutor(1) as painters:
        made = RenderJob(fresh_database, storage, painters, claim, timedelta(seconds=60), lambda: False).run()
    assert queue.try_complete(fresh_database, storage, claim, made)
    with fresh_database.transaction(write=False) as reading:
        ids = reading.scalars(select(Prediction.id).order_by(Prediction.index)).all()  # unscoped: the seed's
    assert ids == [build_seed_id(0x13, 1), build_seed_id(0x13, 2)]


def test_the_pictures_that_come_with_the_seed_are_what_the_studio_makes_of_its_order(
    fresh_database: Database, tmp_path: Path
) -> None:
    settings = build_settings(tmp_path)
    seed_database(fresh_database, settings)
    for made, kept in zip(render_samples(fresh_database, settings), load_packshots(), strict=True):
        # Another processor may round differently; another light, crop or shadow is far beyond this.
        difference = np.asarray(open_image(made.image), int) - np.asarray(open_image(kept.image), int)
        assert np.abs(difference).mean() < 0.5
        assert made.quality == pytest.approx(kept.quality, abs=0.02)
        assert image_facts(made) == image_facts(kept)


def image_facts(picture: RenderedImage) -> tuple[object, ...]:
    """What is told of a picture and does not depend on how a processor rounds."""
    size, set_up = (picture.width, picture.height), picture.settings
    look = [set_up["light"], set_up["shadow"], set_up["pose"]]
    made_by = (picture.renderer_version, picture.seed, picture.cut_out, picture.unused)
    return size, picture.content_type, look, made_by


def check_accounts(fresh_database: Database) -> None:
    """The accounts can sign in, have credit and own their organizations."""
    with fresh_database.transaction(write=False) as reading:
        users = reading.scalars(select(User).order_by(User.id)).all()
        assert [user.email for user in users] == list(PUBLISHED_PASSWORDS)
        assert [user.is_superuser for user in users] == [False, False, True]
        assert all(verify_password(user.hashed_password, PUBLISHED_PASSWORDS[user.email]) for user in users)
        left = [row.credits_remaining for row in reading.scalars(select(Subscription))]
        assert len(left) == 3
        assert min(left) > 100_000
        owners = reading.execute(select(Membership.user_id, Membership.role)).all()
        assert {tuple(row) for row in owners} == {(users[0].id, "owner"), (users[1].id, "owner")}


def test_two_processes_may_seed_at_once_and_what_people_delete_stays_deleted(
    fresh_database: Database, tmp_path: Path
) -> None:
    settings = build_settings(tmp_path, "test", "contract")
    with ThreadPoolExecutor(2) as pool:
        for outcome in [pool.submit(seed_database, fresh_database, settings) for _ in range(2)]:
            outcome.result()
    check_fuzzer_requirements(fresh_database)
    before = count_rows_shown(fresh_database)
    assert (before["User"], before["Style"], before["Prediction"]) == (3, 6, 8)
    with fresh_database.transaction(write=True) as writing:
        for image in writing.scalars(select(ProductImage)):  # unscoped: those of the seed
            writing.delete(image)
    seed_database(fresh_database, settings)
    assert count_rows_shown(fresh_database) == before | {"ProductImage": 0}


def check_fuzzer_requirements(fresh_database: Database) -> None:
    """The fuzzer finds a finished generation in every scope, and a model that makes small pictures."""
    with fresh_database.transaction(write=False) as reading:
        generations = reading.scalars(select(Generation)).all()  # unscoped: all of them are the seed's
        assert {row.status for row in generations} == {"completed"}
        demo, second = (build_seed_id(KINDS[User], number) for number in (1, 2))
        houses = [build_seed_id(KINDS[Organization], number) for number in (1, 2)]
        assert {(row.owner_id, row.organization_id) for row in generations} == {
            (demo, houses[0]),
            (second, houses[1]),
            (demo, None),
            (second, None),
        }
        recommended = select(GenerationModel).where(GenerationModel.recommended)
        assert reading.scalars(recommended).one().max_size_pixels == 1024 * 1024
