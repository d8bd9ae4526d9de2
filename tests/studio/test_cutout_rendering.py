"""Test what the renderer cuts out: inside a region, by a mask, and from a stored cut-out."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sqlalchemy import QueuePool, delete, select, update
from sqlalchemy.orm import joinedload

from db.caller import caller_context
from db.models import (
    CutoutStatus,
    Generation,
    MediaResource,
    Prediction,
    ProductImage,
    ProductImageCutout,
)
from db.session import Database
from studio.cutouts import photos
from studio.cutouts.making import make_cutout
from studio.cutouts.queue import CUTOUTS, MadeCutout
from studio.cutouts.requests import request_cutout
from studio.cutouts.worker import make_or_await
from studio.generations.worker.executor import GenerationExecutor
from studio.generations.worker.queue import INPUT_ERROR
from studio.infrastructure.mask_models import MaskModel, choose_mask_model
from studio.infrastructure.storage import LocalDisk, media_folder, media_key
from studio.queue.row_queue import Interrupted
from studio.queue.running import Worker
from studio.rendering import RENDERER_VERSION, CutOut
from studio.rendering.cut_out.selection import EmptyMask, cut_out_selection
from studio.rendering.cut_out.stored_cut_out import describe_cut_out, encode_cut_out, restore_cut_out
from studio.rendering.model import FRAMED_CROP, Mask, Pixels
from tests.support import factories
from tests.support.concurrency import run_concurrently
from tests.support.cutouts import box_of, build_mask, make_cutouts
from tests.support.queues import LEASE, PAST, build_worker
from tests.support.sample_media import encode_image
from tests.support.scenarios import (
    PhotographedProduct,
    make_photographed_product,
    make_stored_image,
    request_generation,
    run_pending_generations,
)

# The tests are about regions, given masks and stored cut-outs, not about how a product is found.
pytestmark = pytest.mark.usefixtures("color_masks")

LEFT, RIGHT = box_of(0.05, 0.1, 0.4, 0.8), box_of(0.55, 0.1, 0.4, 0.8)


def draw_two_products() -> Image.Image:
    """Return a photo of a red product on the left and a blue one on the right."""
    photo = Image.new("RGB", (800, 600), "#dddddd")
    draw = ImageDraw.Draw(photo)
    draw.rectangle((120, 150, 280, 450), fill="#c02020")
    draw.ellipse((500, 150, 660, 450), fill="#2030c0")
    return photo


def find_dark(pixels: Pixels) -> Mask:
    """Find everything that is darker than the paper, as a mask provider does."""
    values = (pixels.min(axis=2) < 150).astype(np.float32)
    height, width = values.shape
    return Mask(values, (0, 0, width, height), "test", 0.9, is_usable=bool(values.any()))


def mean_color(cut_out: CutOut) -> list[int]:
    """Return the mean color of the opaque pixels."""
    return [round(value) for value in cut_out.product[cut_out.alpha > 250].mean(axis=0)]


def open_mask(*box: int) -> Image.Image:
    return Image.open(io.BytesIO(build_mask(400, 300, (box[0], box[1], box[2], box[3]))))


def test_only_the_product_inside_the_region_is_cut_out() -> None:
    both = cut_out_selection(draw_two_products(), 2048, find_mask=find_dark)
    left = cut_out_selection(draw_two_products(), 2048, LEFT, find_mask=find_dark)
    right = cut_out_selection(draw_two_products(), 2048, RIGHT, find_mask=find_dark)
    assert both.alpha.shape[1] > 500
    assert mean_color(left) == [192, 32, 32]
    assert mean_color(right) == [32, 48, 192]
    # The box of the product in the stored photo.
    placement = describe_cut_out(left, LEFT)["placement"]
    expected = box_of(120 / 800, 150 / 600, 161 / 800, 301 / 600)
    assert placement == pytest.approx(expected, abs=0.02)


def test_a_product_that_the_region_cuts_is_shown_up_to_its_edge() -> None:
    cut_out = cut_out_selection(draw_two_products(), 2048, box_of(0.05, 0.1, 0.2, 0.8), find_mask=find_dark)
    placement = describe_cut_out(cut_out, box_of(0.05, 0.1, 0.2, 0.8))["placement"]
    assert placement["x"] + placement["width"] <= 0.25 + 0.005
    assert "touches_edge" not in cut_out.warnings


def test_a_region_without_a_product_is_shown_as_it_is() -> None:
    region = box_of(0.4, 0.1, 0.1, 0.5)
    cut_out = cut_out_selection(draw_two_products(), 2048, region, find_mask=find_dark)
    assert (cut_out.method, cut_out.is_trusted) == (FRAMED_CROP, False)
    assert "not_cut_out" in cut_out.warnings
    assert cut_out.product.shape[:2] == (300, 80)
    assert describe_cut_out(cut_out, region)["placement"] == region


def test_a_given_mask_replaces_the_mask_of_the_renderer() -> None:
    def find_mask(_: Pixels) -> Mask:
        raise AssertionError("the renderer looks for the product although there is a mask")

    # In half the size of the photo: scaled to it.
    cut_out = cut_out_selection(draw_two_products(), 2048, None, open_mask(50, 60, 150, 240), find_mask)
    assert (cut_out.method, cut_out.confidence) == ("given", 1.0)
    placement = describe_cut_out(cut_out, None)["placement"]
    assert placement == pytest.approx(box_of(0.125, 0.2, 0.25, 0.6), abs=0.02)
    assert {"mask_uncertain", "not_cut_out"}.isdisjoint(cut_out.warnings)


def test_the_alpha_channel_of_a_mask_counts_before_its_brightness() -> None:
    mask = Image.new("RGBA", (800, 600), (255, 255, 255, 0))
    # Black, but opaque.
    mask.paste((0, 0, 0, 255), (480, 100, 700, 500))
    cut_out = cut_out_selection(draw_two_products(), 2048, None, mask)
    placement = describe_cut_out(cut_out, None)["placement"]
    assert placement == pytest.approx(box_of(0.6, 1 / 6, 0.275, 2 / 3), abs=0.02)


def test_a_mask_replaces_the_transparency_of_a_photo() -> None:
    photo = draw_two_products().convert("RGBA")
    photo.putalpha(Image.open(io.BytesIO(build_mask(800, 600, (500, 150, 660, 450)))))
    cut_out = cut_out_selection(photo, 2048, None, open_mask(50, 60, 150, 240))
    assert cut_out.method == "given"
    assert describe_cut_out(cut_out, None)["placement"]["x"] < 0.2


def test_a_mask_counts_inside_the_region_and_must_show_something_there() -> None:
    mask = open_mask(50, 60, 150, 240)
    cut_out = cut_out_selection(draw_two_products(), 2048, box_of(0, 0, 0.2, 1), mask)
    placement = describe_cut_out(cut_out, box_of(0, 0, 0.2, 1))["placement"]
    assert placement["x"] + placement["width"] == pytest.approx(0.2, abs=0.005)
    with pytest.raises(EmptyMask):
        cut_out_selection(draw_two_products(), 2048, RIGHT, mask)


@pytest.mark.parametrize("region", [None, LEFT, box_of(0.4, 0.1, 0.1, 0.5)])
def test_a_stored_cut_out_is_restored_exactly(region: dict[str, float] | None) -> None:
    cut_out = cut_out_selection(draw_two_products(), 2048, region, find_mask=find_dark)
    facts = json.loads(json.dumps(describe_cut_out(cut_out, region)))
    with Image.open(io.BytesIO(encode_cut_out(cut_out))) as product:
        restored = restore_cut_out(draw_two_products(), product, facts, 2048, region)
    for part in fields(CutOut):
        before, after = getattr(cut_out, part.name), getattr(restored, part.name)
        same = np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after
        assert same, part.name


def test_a_stored_cut_out_is_reduced_for_small_predictions() -> None:
    cut_out = cut_out_selection(draw_two_products(), 2048, None, find_mask=find_dark)
    facts = describe_cut_out(cut_out, None)
    with Image.open(io.BytesIO(encode_cut_out(cut_out))) as product:
        restored = restore_cut_out(draw_two_products(), product, facts, 100, None)
    assert max(restored.photo.shape) == 400
    assert restored.alpha.shape == tuple(round(side / 2) for side in cut_out.alpha.shape)


@pytest.fixture
def image(database: Database, storage: LocalDisk, scenario: PhotographedProduct) -> ProductImage:
    """Return the photo of the scenario's product, which shows two products; its cut-out is queued."""
    file = io.BytesIO()
    draw_two_products().resize((400, 300)).save(file, "PNG")
    media = make_stored_image(storage, database, scenario.ownership, file.getvalue())
    with database.transaction(write=True) as writing:
        photo = writing.scalars(select(ProductImage)).one()  # unscoped: the photo of this test
        photo.media_id = media.id
        writing.flush()
        factories.make_product_image_cutout(photo)
        return photo


def choose(
    database: Database,
    image: ProductImage,
    region: dict[str, float] | None,
    mask: MediaResource | None = None,
) -> None:
    """Change the region and the mask of the photo, as the API does."""
    with database.transaction(write=True) as writing:
        # unscoped: the photo of this test
        query = select(ProductImage).where(ProductImage.id == image.id)  # unscoped: see above
        photo = writing.scalars(query.options(joinedload(ProductImage.cutout))).one()
        photo.region, photo.mask_media_id = region, mask.id if mask else None
        writing.flush()
        request_cutout(photo)


def queue_generation(database: Database, scenario: PhotographedProduct, **parameters: Any) -> UUID:
    """Request one small image of the scenario's product, and return the id of the generation."""
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    asked = {"product_id": scenario.product.id, "seed": 7, "width": 256, "height": 256, **parameters}
    with database.transaction(write=True), caller_context(caller, None):
        return request_generation(asked, scenario.organization.id, None).id


def read_result(database: Database, storage: LocalDisk, generation_id: UUID) -> tuple[str, bool, bool]:
    """Return the method of the cut-out, and whether the red and the blue product are in the prediction."""
    with database.transaction(write=False) as reading:
        # unscoped: the predictions of this test
        query = select(Prediction).where(Prediction.generation_id == generation_id)
        prediction = reading.scalars(query.options(joinedload(Prediction.media))).one()
    data = storage.read(media_key(prediction.media_id, prediction.media.extension))
    with Image.open(io.BytesIO(data)) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    red = (pixels[..., 0] > pixels[..., 2] + 80).mean()
    blue = (pixels[..., 2] > pixels[..., 0] + 80).mean()
    return prediction.provenance["cut_out"], bool(red > 0.02), bool(blue > 0.02)


def generate(database: Database, storage: LocalDisk, scenario: PhotographedProduct) -> tuple[str, bool, bool]:
    """Generate one image, and return the result as `read_result`."""
    generation_id = queue_generation(database, scenario)
    assert run_pending_generations(database, storage) == 1
    return read_result(database, storage, generation_id)


def test_a_generation_shows_the_region_and_then_the_mask_that_a_person_chose(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, image: ProductImage
) -> None:
    choose(database, image, RIGHT)
    assert generate(database, storage, scenario) == ("plain_background", False, True)
    mask = make_stored_image(
        storage, database, scenario.ownership, build_mask(800, 600, (120, 150, 281, 451))
    )
    choose(database, image, None, mask)
    assert generate(database, storage, scenario) == ("given", True, False)


@pytest.mark.slow("it renders a generation; tests/studio/test_generation_snapshots.py covers snapshots")
def test_a_generation_keeps_the_region_that_was_chosen_when_it_was_requested(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, image: ProductImage
) -> None:
    choose(database, image, RIGHT)
    generation_id = queue_generation(database, scenario)
    choose(database, image, LEFT)
    # The stored cut-out shows the other product by now.
    assert make_cutouts(database, storage, make_cutout) == 1
    assert run_pending_generations(database, storage) == 1
    assert read_result(database, storage, generation_id) == ("plain_background", False, True)


def test_a_generation_uses_the_stored_cutout_instead_of_looking_for_the_product(
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    image: ProductImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose(database, image, LEFT)
    assert make_cutouts(database, storage, make_cutout) == 1

    def cut_out(*_: object) -> CutOut:
        raise AssertionError("the renderer looks for the product although a cut-out is stored")

    with monkeypatch.context() as patched:
        patched.setattr(photos, "cut_out_selection", cut_out)
        assert generate(database, storage, scenario) == ("plain_background", True, False)
    # Without its file, the renderer looks for the product.
    media_id = read_cutout(database).media_id
    assert media_id is not None
    storage.delete_folder(media_folder(media_id))
    assert generate(database, storage, scenario) == ("plain_background", True, False)


def test_a_cutout_of_another_version_of_the_renderer_is_not_used_and_is_made_again(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, image: ProductImage
) -> None:
    # `make_quickly` stores a cut-out of another version.
    assert make_cutouts(database, storage) == 1
    method, _, _ = generate(database, storage, scenario)
    assert method == "plain_background"
    cutout = read_cutout(database)
    assert (cutout.status, cutout.renderer_version) == (CutoutStatus.COMPLETED, f"{RENDERER_VERSION}-color")


class Selections:
    """Counts how often the renderer looks for a product, and calls a function each time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.call: Callable[[], object] = lambda: None

        def cut_out(*arguments: Any, **options: Any) -> CutOut:
            self.count += 1
            self.call()
            return cut_out_selection(*arguments, **options)

        monkeypatch.setattr(photos, "cut_out_selection", cut_out)


@pytest.fixture
def selections(monkeypatch: pytest.MonkeyPatch) -> Selections:
    """Return how often the renderer looks for a product."""
    return Selections(monkeypatch)


def generate_hash(database: Database, storage: LocalDisk, scenario: PhotographedProduct) -> str:
    """Generate one image, and return the hash of its file."""
    generation_id = queue_generation(database, scenario)
    assert run_pending_generations(database, storage) == 1
    with database.transaction(write=False) as reading:
        # unscoped: the prediction of this test
        query = select(MediaResource.content_hash).join(Prediction, Prediction.media_id == MediaResource.id)
        return reading.scalars(query.where(Prediction.generation_id == generation_id)).one()


def test_a_generation_makes_and_stores_the_cutout_that_waits_and_its_image_stays_the_same(
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    image: ProductImage,
    selections: Selections,
) -> None:
    first = generate_hash(database, storage, scenario)
    cutout = read_cutout(database)
    assert (cutout.status, cutout.attempts, cutout.lease_owner) == (CutoutStatus.COMPLETED, 1, None)
    assert generate_hash(database, storage, scenario) == first
    assert selections.count == 1
    with database.transaction(write=True) as writing:
        writing.execute(delete(ProductImageCutout))  # unscoped: the only one
    assert generate_hash(database, storage, scenario) == first
    assert selections.count == 2


@pytest.fixture
def waiting_photo(own_database: Database, storage: LocalDisk) -> PhotographedProduct:
    """Return a customer with a photo whose cut-out is queued, visible to all connections."""
    with own_database.transaction(write=True) as writing:
        scenario = make_photographed_product(storage, None)
        # unscoped: the photo of this test
        factories.make_product_image_cutout(writing.scalars(select(ProductImage)).one())
        return scenario


def test_a_generation_waits_for_the_worker_that_makes_the_cutout_and_holds_no_connection(
    own_database: Database,
    storage: LocalDisk,
    waiting_photo: PhotographedProduct,
    selections: Selections,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_making, is_waiting, connections = threading.Event(), threading.Event(), list[int]()
    pool = cast(QueuePool, own_database.engine.pool)

    def make_slowly() -> None:
        is_making.set()
        assert is_waiting.wait(20)

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            connections.append(pool.checkedout())
            is_waiting.set()
            return super().wait(timeout)

    def build(database: Database, disk: LocalDisk) -> Worker:
        return replace(build_worker(database, disk), stopping=Stopping())

    def make() -> int:
        return make_cutouts(own_database, storage, make_cutout)

    def generate_later() -> int:
        assert is_making.wait(20)
        return run_pending_generations(own_database, storage)

    selections.call = make_slowly
    monkeypatch.setattr("tests.support.scenarios.build_worker", build)
    generation_id = queue_generation(own_database, waiting_photo)
    assert run_concurrently(make, generate_later) == [1, 1]
    method, _, _ = read_result(own_database, storage, generation_id)
    assert (method, selections.count, connections[0]) == ("plain_background", 1, 0)


@pytest.mark.parametrize("fate", ["killed", "slow"])
def test_a_generation_does_not_wait_for_ever_for_the_worker_of_its_cutout(
    fate: str,
    own_database: Database,
    storage: LocalDisk,
    waiting_photo: PhotographedProduct,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("studio.cutouts.worker.MAX_WAIT_SECONDS", 0.3)
    lost = CUTOUTS.lease_next(own_database, PAST if fate == "killed" else LEASE)
    assert lost is not None
    queue_generation(own_database, waiting_photo)
    assert run_pending_generations(own_database, storage) == 1
    cutout = read_cutout(own_database)
    if fate == "killed":
        # Taken over: an attempt of its own.
        assert (cutout.status, cutout.attempts) == (CutoutStatus.COMPLETED, 2)
    else:
        assert (cutout.status, cutout.lease_owner) == (CutoutStatus.RUNNING, lost.token)


def test_a_canceled_generation_stops_waiting_for_its_cutout(
    own_database: Database, storage: LocalDisk, waiting_photo: PhotographedProduct
) -> None:
    assert CUTOUTS.lease_next(own_database, LEASE) is not None
    with own_database.transaction(write=False) as reading:
        cutout = reading.scalars(select(ProductImageCutout)).one()  # unscoped: the only one

    def check() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        make_or_await(
            build_worker(own_database, storage),
            cutout.product_image_id,
            cutout.input_hash,
            check,
            make_cutout,
        )


def test_a_generation_uses_no_cutout_that_failed_or_waits_for_its_next_attempt(
    own_database: Database,
    storage: LocalDisk,
    waiting_photo: PhotographedProduct,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> MadeCutout:
        raise RuntimeError("a defect")

    # Neither is waited for.
    monkeypatch.setattr("studio.cutouts.worker.MAX_WAIT_SECONDS", 3_600)
    monkeypatch.setattr("studio.generations.worker.render_job.make_with_renderer", fail)
    queue_generation(own_database, waiting_photo)
    queue_generation(own_database, waiting_photo)
    assert run_pending_generations(own_database, storage) == 2
    cutout = read_cutout(own_database)
    assert (cutout.status, cutout.attempts, cutout.lease_owner) == (CutoutStatus.PENDING, 1, None)
    with own_database.transaction(write=True) as writing:
        writing.execute(
            update(ProductImageCutout).values(status=CutoutStatus.FAILED)
        )  # unscoped: the only one
    queue_generation(own_database, waiting_photo)
    assert run_pending_generations(own_database, storage) == 1
    assert read_cutout(own_database).status == CutoutStatus.FAILED


@pytest.mark.slow("the same rule as for another version of the renderer")
def test_a_cutout_of_another_mask_model_is_not_used_and_is_made_again(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, image: ProductImage
) -> None:
    assert make_cutouts(database, storage, make_cutout) == 1
    # `color_masks` chooses the default again at the end.
    choose_mask_model(MaskModel())
    method, _, _ = generate(database, storage, scenario)
    assert method == "u2netp"
    assert read_cutout(database).renderer_version == RENDERER_VERSION


def test_a_generation_with_an_empty_mask_fails_because_of_its_inputs(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, image: ProductImage
) -> None:
    mask = make_stored_image(storage, database, scenario.ownership, build_mask(800, 600, (0, 0, 0, 0)))
    choose(database, image, None, mask)
    generation_id = queue_generation(database, scenario)
    executor = GenerationExecutor(build_worker(database, storage), 1)
    while executor.run_next():
        pass
    executor.close()
    with database.transaction(write=False) as reading:
        generation = reading.get_one(Generation, generation_id)  # unscoped: the one of this test
        assert (generation.status, generation.error) == ("failed", INPUT_ERROR)
    assert read_cutout(database).status == CutoutStatus.FAILED


def read_cutout(database: Database) -> ProductImageCutout:
    """Return the only cut-out as the database has it now."""
    with database.transaction(write=False) as reading:
        # unscoped: the cut-out of this test
        query = select(ProductImageCutout).execution_options(populate_existing=True)
        return reading.scalars(query).one()


def test_a_photo_reserves_its_memory_until_it_is_cut_out_and_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, reserved = LocalDisk(tmp_path), list[tuple[int, int]]()

    @contextmanager
    def reserve(size: tuple[int, int], _check: object) -> Iterator[None]:
        reserved.append(size)
        yield
        reserved.remove(size)

    monkeypatch.setattr(photos, "reserve_render_memory", reserve)
    file = {"media_id": str(UUID(int=1)), "extension": "png"}
    storage.write(media_key(UUID(int=1), "png"), encode_image(draw_two_products().resize((400, 300)), "PNG"))
    with photos.open_photo(storage, file, 512) as photo:
        assert reserved == [(400, 300)]
        photos.cut_out_photo(storage, file, photo, 512)
        # Its pixels would stay in memory while the network runs.
        with pytest.raises(ValueError, match="closed image"):
            photo.getpixel((0, 0))
    assert reserved == []
