"""What an order becomes: filled in by shot, guidelines and brand, frozen, sized, made by each strategy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from db.base import new_id
from db.errors import NotFound, ScopeMismatch
from db.models import Generation, GenerationModel, Prediction, Product, ResolutionPreset, Shooting, Shot
from db.session import Database, session
from db.tenancy import use_caller
from studio import generation as studio
from studio.media.storage import LocalDisk, media_key
from tests import factories
from tests.production import HEIGHT, WIDTH, Production, work_off

# One kind is enough: what an order becomes hangs on no database, and pictures take their time.
pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True, scope="session")


@pytest.fixture
def order(database: Database, production: Production) -> Any:
    """Asks for a generation as the owner, for the production's shot unless `shot_id` says otherwise."""
    caller = factories.caller_of(production.owner, {production.organization: "owner"})

    def ask(**asked: Any) -> Generation:
        with database.transaction(write=True), use_caller(caller, None):
            asked = {"shot_id": production.shot.id, "seed": 7, **asked}
            shot = None
            if asked["shot_id"] is not None:
                shot = session().scalars(select(Shot).where(Shot.id == asked["shot_id"])).one()
            return studio.request_generation(
                asked, production.organization.id, shot, lambda *_: production.media
            )

    return ask


@pytest.fixture
def make(database: Database, storage: LocalDisk, order: Any) -> Any:
    """Asks for pictures and makes them."""

    def pictures(**asked: Any) -> list[Prediction]:
        generation_id = order(**asked).id
        work_off(database, storage)
        with database.transaction(write=False) as reading:
            query = select(Prediction).where(Prediction.generation_id == generation_id)
            query = query.options(joinedload(Prediction.media)).order_by(Prediction.index)
            return list(reading.scalars(query))

    return pictures


def opened(storage: LocalDisk, prediction: Prediction) -> Image.Image:
    media = prediction.media
    return Image.open(io.BytesIO(storage.read(media_key(media.id, media.extension))))


def change(database: Database, model: type[Any], row_id: Any, **values: Any) -> None:
    with database.transaction(write=True) as writing:
        row = writing.scalars(select(model).where(model.id == row_id)).one()
        for name, value in values.items():
            setattr(row, name, value)


def test_the_shot_fills_in_what_the_order_leaves_open(order: Any, production: Production) -> None:
    generation = order()
    scene = generation.inputs["scene"]
    assert (scene["width"], scene["height"]) == (WIDTH, HEIGHT)
    assert scene["product"]["media_id"] == str(production.media.id)
    kinds = {row["kind"] for row in generation.inputs["rows"]}
    assert kinds >= {"product", "product_image", "shot_type", "guidelines", "resolution_preset"}
    assert generation.inputs["asked"]["shot_type_id"] == str(production.shot_type.id)


def test_the_brand_fills_in_what_shooting_and_look_leave_open(
    order: Any, database: Database, production: Production
) -> None:
    style = factories.make_style(**production.scope, contrast=33)
    background = factories.make_background_preset(**production.scope, kind="SOLID", color="#112233")
    resolution = factories.make_resolution_preset(**production.scope, width=300, height=200)
    brand = factories.make_brand(
        **production.scope,
        default_style_id=style.id,
        default_background_preset_id=background.id,
        default_resolution_preset_id=resolution.id,
    )
    change(database, Shooting, production.shooting.id, brand_id=brand.id, default_guidelines_id=None)
    scene = order().inputs["scene"]
    assert (scene["width"], scene["height"]) == (300, 200)
    assert scene["grade"]["contrast"] == 33
    assert (scene["background"]["kind"], scene["background"]["color"]) == ("SOLID", "#112233")


def test_the_looks_guidelines_come_before_the_shootings(order: Any, production: Production) -> None:
    mine = factories.make_guidelines(**production.scope, file_format="PNG", margin_percent=3)
    look = factories.make_look(
        production.shooting, main_product_id=production.product.id, guidelines_ids=[mine.id]
    )
    scene = order(shot_id=factories.make_shot(look).id).inputs["scene"]
    assert (scene["file_format"], scene["margin_percent"]) == ("PNG", 3)


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"width": 96, "height": 70}, (96, 70)),
        ({"width": 96}, (96, 128)),
        ({"height": 512}, (384, 512)),
        ({}, (WIDTH, HEIGHT)),
    ],
)
def test_one_side_alone_keeps_the_guidelines_ratio(
    order: Any, asked: dict[str, int], size: tuple[int, int]
) -> None:
    scene = order(**asked).inputs["scene"]
    assert (scene["width"], scene["height"]) == size


def test_a_picture_larger_than_the_model_makes_them_is_refused(
    order: Any, database: Database, production: Production
) -> None:
    with pytest.raises(studio.ResolutionNotSupported):
        order(width=4100, height=4000)
    change(database, GenerationModel, production.model.id, max_size_pixels=WIDTH * HEIGHT - 1)
    with pytest.raises(studio.ResolutionNotSupported):
        order()


def test_a_size_that_nobody_asked_for_shrinks_to_what_the_model_makes(
    order: Any, database: Database, production: Production
) -> None:
    change(database, GenerationModel, production.model.id, max_size_pixels=1_000_000)
    change(database, Shooting, production.shooting.id, default_guidelines_id=None)
    scene = order().inputs["scene"]
    assert 990_000 < scene["width"] * scene["height"] <= 1_000_000


@pytest.mark.parametrize("strategy", ["EDITING", "VIDEO", "FACE_FIXING"])
def test_what_no_model_can_do_is_refused(order: Any, strategy: str) -> None:
    with pytest.raises(studio.StrategyNotSupported):
        order(generation_strategy=strategy)


def test_a_tool_that_the_model_lacks_is_refused(order: Any, production: Production) -> None:
    plain = factories.make_generation_model(tool_types=["BASE_GENERATION"])
    with pytest.raises(studio.StrategyNotSupported):
        order(model_id=plain.id, generation_strategy="REFINE")
    with pytest.raises(studio.StrategyNotSupported):
        order(tool="VIDEO")


@pytest.mark.parametrize("strategy", ["GENERATE", "REFINE", "BACKGROUND_FIXING", "IMAGE_ADJUSTING"])
def test_without_anything_to_start_from_there_is_nothing_to_generate(order: Any, strategy: str) -> None:
    with pytest.raises(studio.NothingToGenerate):
        order(shot_id=None, generation_strategy=strategy)


@pytest.mark.parametrize(
    "name", ["subject_slug", "product_slug", "product2_slug", "style_slug", "shot_type_string"]
)
def test_a_name_that_does_not_resolve_is_told(order: Any, name: str) -> None:
    with pytest.raises(NotFound):
        order(**{name: "nobody-has-this"})


@pytest.mark.parametrize(
    "name",
    [
        "subject_id",
        "product_id",
        "product2_id",
        "style_id",
        "shot_type_id",
        "model_id",
        "source_prediction_id",
    ],
)
def test_an_id_that_does_not_resolve_is_told(order: Any, name: str) -> None:
    with pytest.raises(NotFound):
        order(**{name: new_id()})


def test_a_row_of_the_callers_other_scope_is_told(order: Any, production: Production) -> None:
    personal = factories.make_product(owner=production.owner)
    with pytest.raises(ScopeMismatch):
        order(product_id=personal.id)


def test_a_product_is_found_by_its_sku_before_its_name(
    order: Any, database: Database, production: Production
) -> None:
    factories.make_product(**production.scope, name="AN-2041")
    change(database, Product, production.product.id, sku="AN-2041")
    generation = order(shot_id=None, product_slug="AN-2041")
    assert generation.inputs["asked"]["product_id"] == str(production.product.id)


def test_only_what_was_given_and_not_used_is_listed_as_ignored(make: Any, production: Production) -> None:
    style = factories.make_style(**production.scope, tone="an unknown word")
    given = {
        "steps": 12,
        "subject_lora_weight": 0.8,
        "extra_prompt": "calm",
        "lighting": "from the left",
        "framing": "close up",
        "background": "a beach",
        "tone": "indescribable",
        "pose": "sitting",
        "style_id": style.id,
        "refine": False,
        "width": 96,
    }
    prediction = make(**given)[0]
    assert sorted(prediction.provenance["ignored_inputs"]) == [
        "background",
        "extra_prompt",
        "pose",
        "steps",
        "tone",
    ]


def test_the_same_seed_makes_the_same_picture_and_another_one_a_different_one(
    make: Any, production: Production
) -> None:
    hashes = [
        made.content_hash
        for seed in (7, 7, 8)
        for made in make(shot_id=None, product_id=production.product.id, seed=seed)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_seed_of_a_picture_makes_that_picture_again(make: Any, production: Production) -> None:
    product_id = production.product.id
    third = make(shot_id=None, product_id=product_id, seed=7, batch_size=3)[2]
    again = make(shot_id=None, product_id=product_id, seed=third.seed)[0]
    assert again.content_hash == third.content_hash


def test_a_refined_picture_is_larger_and_shows_the_same(
    make: Any, storage: LocalDisk, production: Production
) -> None:
    source = make()[0]
    order = {"shot_id": None, "source_prediction_id": source.id, "generation_strategy": "REFINE"}
    doubled = make(**order)[0]
    assert (doubled.width, doubled.height) == (2 * WIDTH, 2 * HEIGHT)
    with opened(storage, source) as before, opened(storage, doubled) as after:
        assert after.size == (2 * WIDTH, 2 * HEIGHT)
        smaller = after.convert("RGB").resize(before.size, Image.Resampling.BOX)
        difference = np.abs(
            np.asarray(before.convert("RGB"), dtype=np.int16) - np.asarray(smaller, dtype=np.int16)
        )
        assert difference.mean() < 6
    exact = make(**order, target_width=300, target_height=300)[0]
    assert (exact.width, exact.height) == (300, 300)
    factor = make(**order, scale_factor=1.5)[0]
    assert (factor.width, factor.height) == (WIDTH * 3 // 2, HEIGHT * 3 // 2)


def test_a_fixed_background_is_the_one_asked_for(
    make: Any, storage: LocalDisk, production: Production
) -> None:
    source = make()[0]
    fixed = make(
        shot_id=None,
        source_prediction_id=source.id,
        generation_strategy="BACKGROUND_FIXING",
        background="#2040c0",
    )[0]
    assert fixed.provenance["ignored_inputs"] == []
    with opened(storage, fixed) as after:
        corner = np.asarray(after.convert("RGB"))[4, 4].astype(int)
    assert np.abs(corner - [0x20, 0x40, 0xC0]).max() < 12


def test_an_adjusted_picture_is_graded_anew(make: Any, storage: LocalDisk, production: Production) -> None:
    source = make()[0]
    style = factories.make_style(**production.scope, saturation=-100)
    adjusted = make(
        shot_id=None,
        source_prediction_id=source.id,
        generation_strategy="IMAGE_ADJUSTING",
        style_id=style.id,
    )[0]
    assert (adjusted.width, adjusted.height) == (WIDTH, HEIGHT)
    with opened(storage, adjusted) as after:
        pixels = np.asarray(after.convert("RGB")).astype(int)
    assert (pixels.max(axis=2) - pixels.min(axis=2)).mean() < 6


def test_an_agentic_generation_tries_until_it_is_good_enough_and_keeps_the_best(make: Any) -> None:
    hopeless = make(generation_type="AGENTIC", max_attempts=3, min_confidence_score=1.0)[0]
    settings = hopeless.provenance["settings"]
    assert (settings["tries"], len(settings["scores"])) == (3, 3)
    assert hopeless.quality["score"] == max(settings["scores"])


def test_an_agentic_generation_stops_at_the_first_picture_that_is_good_enough(make: Any) -> None:
    easy = make(generation_type="AGENTIC", max_attempts=3, min_confidence_score=0.0)[0]
    assert easy.provenance["settings"]["tries"] == 1


def test_a_preset_that_is_smaller_than_a_pixel_cannot_come_of_a_ratio(
    order: Any, database: Database, production: Production
) -> None:
    preset_id = production.guidelines.resolution_preset_id
    change(database, ResolutionPreset, preset_id, width=8192, height=64)
    scene = order(width=64).inputs["scene"]
    assert (scene["width"], scene["height"]) == (64, 1)
