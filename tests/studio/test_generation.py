"""Test the inputs of generations (from request, shot, guidelines and brand) and the rendering strategies."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from db.base import new_id
from db.caller import caller_context
from db.errors import NotFound, ScopeMismatch
from db.models import Generation, GenerationModel, Prediction, Product, ResolutionPreset, Shooting, Shot
from db.session import Database, current_session
from studio.generations.inputs import NothingToGenerate, StrategyNotSupported
from studio.generations.snapshot import ResolutionNotSupported
from studio.infrastructure.storage import LocalDisk, media_key
from tests.support import factories, scenarios
from tests.support.scenarios import HEIGHT, WIDTH, PhotographedProduct, run_pending_generations

pytestmark = pytest.mark.usefixtures("color_masks")


@pytest.fixture
def request_generation(database: Database, scenario: PhotographedProduct) -> Any:
    """Return a function that creates a generation as the owner, for the shot of the scenario by default."""
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})

    def request(**params: Any) -> Generation:
        with database.transaction(write=True), caller_context(caller, None):
            params = {"shot_id": scenario.shot.id, "seed": 7, **params}
            shot = None
            if params["shot_id"] is not None:
                shot = current_session().scalars(select(Shot).where(Shot.id == params["shot_id"])).one()
            return scenarios.request_generation(params, scenario.organization.id, shot, scenario.media)

    return request


@pytest.fixture
def generate(database: Database, storage: LocalDisk, request_generation: Any) -> Any:
    """Return a function that creates a generation and returns its predictions."""

    def run(**params: Any) -> list[Prediction]:
        generation_id = request_generation(**params).id
        run_pending_generations(database, storage)
        with database.transaction(write=False) as reading:
            query = select(Prediction).where(Prediction.generation_id == generation_id)
            query = query.options(joinedload(Prediction.media)).order_by(Prediction.index)
            return list(reading.scalars(query))

    return run


def open_prediction(storage: LocalDisk, prediction: Prediction) -> Image.Image:
    media = prediction.media
    return Image.open(io.BytesIO(storage.read(media_key(media.id, media.extension))))


def update_row(database: Database, model: type[Any], row_id: Any, **values: Any) -> None:
    with database.transaction(write=True) as writing:
        row = writing.scalars(select(model).where(model.id == row_id)).one()
        for name, value in values.items():
            setattr(row, name, value)


def test_the_shot_provides_the_inputs_that_the_request_omits(
    request_generation: Any, scenario: PhotographedProduct
) -> None:
    generation = request_generation()
    scene = generation.inputs["scene"]
    assert (scene["width"], scene["height"]) == (WIDTH, HEIGHT)
    assert scene["product"]["media_id"] == str(scenario.media.id)
    kinds = {row["kind"] for row in generation.inputs["rows"]}
    assert kinds >= {"product", "product_image", "shot_type", "guidelines", "resolution_preset"}
    assert generation.inputs["asked"]["shot_type_id"] == str(scenario.shot_type.id)


def test_the_brand_provides_the_inputs_that_shooting_and_look_omit(
    request_generation: Any, database: Database, scenario: PhotographedProduct
) -> None:
    style = factories.make_style(**scenario.ownership, contrast=33)
    background = factories.make_background_preset(**scenario.ownership, kind="SOLID", color="#112233")
    resolution = factories.make_resolution_preset(**scenario.ownership, width=300, height=200)
    brand = factories.make_brand(
        **scenario.ownership,
        default_style_id=style.id,
        default_background_preset_id=background.id,
        default_resolution_preset_id=resolution.id,
    )
    update_row(database, Shooting, scenario.shooting.id, brand_id=brand.id, default_guidelines_id=None)
    scene = request_generation().inputs["scene"]
    assert (scene["width"], scene["height"]) == (300, 200)
    assert scene["grade"]["contrast"] == 33
    assert (scene["background"]["kind"], scene["background"]["color"]) == ("SOLID", "#112233")


def test_the_guidelines_of_the_look_override_those_of_the_shooting(
    request_generation: Any, scenario: PhotographedProduct
) -> None:
    guidelines = factories.make_guidelines(**scenario.ownership, file_format="PNG", margin_percent=3)
    look = factories.make_look(
        scenario.shooting, main_product_id=scenario.product.id, guidelines_ids=[guidelines.id]
    )
    scene = request_generation(shot_id=factories.make_shot(look).id).inputs["scene"]
    assert (scene["file_format"], scene["margin_percent"]) == ("PNG", 3)


@pytest.mark.parametrize(
    ("params", "size"),
    [
        ({"width": 96, "height": 70}, (96, 70)),
        ({"width": 96}, (96, 128)),
        ({"height": 512}, (384, 512)),
        ({}, (WIDTH, HEIGHT)),
    ],
)
def test_a_request_with_one_side_keeps_the_ratio_of_the_guidelines(
    request_generation: Any, params: dict[str, int], size: tuple[int, int]
) -> None:
    scene = request_generation(**params).inputs["scene"]
    assert (scene["width"], scene["height"]) == size


def test_a_size_above_the_limit_of_the_model_is_rejected(
    request_generation: Any, database: Database, scenario: PhotographedProduct
) -> None:
    with pytest.raises(ResolutionNotSupported):
        request_generation(width=4100, height=4000)
    update_row(database, GenerationModel, scenario.model.id, max_size_pixels=WIDTH * HEIGHT - 1)
    with pytest.raises(ResolutionNotSupported):
        request_generation()


def test_a_default_size_is_reduced_to_the_limit_of_the_model(
    request_generation: Any, database: Database, scenario: PhotographedProduct
) -> None:
    update_row(database, GenerationModel, scenario.model.id, max_size_pixels=1_000_000)
    update_row(database, Shooting, scenario.shooting.id, default_guidelines_id=None)
    scene = request_generation().inputs["scene"]
    assert 990_000 < scene["width"] * scene["height"] <= 1_000_000


@pytest.mark.parametrize("strategy", ["EDITING", "VIDEO", "FACE_FIXING"])
def test_a_strategy_that_no_model_supports_is_rejected(request_generation: Any, strategy: str) -> None:
    with pytest.raises(StrategyNotSupported):
        request_generation(generation_strategy=strategy)


def test_a_tool_that_the_model_lacks_is_rejected(
    request_generation: Any, scenario: PhotographedProduct
) -> None:
    plain = factories.make_generation_model(tool_types=["BASE_GENERATION"])
    with pytest.raises(StrategyNotSupported):
        request_generation(model_id=plain.id, generation_strategy="REFINE")
    with pytest.raises(StrategyNotSupported):
        request_generation(tool="VIDEO")


@pytest.mark.parametrize("strategy", ["GENERATE", "REFINE", "BACKGROUND_FIXING", "IMAGE_ADJUSTING"])
def test_a_request_without_a_photo_or_a_source_has_nothing_to_generate(
    request_generation: Any, strategy: str
) -> None:
    with pytest.raises(NothingToGenerate):
        request_generation(shot_id=None, generation_strategy=strategy)


@pytest.mark.parametrize(
    "name", ["subject_slug", "product_slug", "product2_slug", "style_slug", "shot_type_string"]
)
def test_an_unknown_name_is_not_found(request_generation: Any, name: str) -> None:
    with pytest.raises(NotFound):
        request_generation(**{name: "no-such-slug"})


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
def test_an_unknown_id_is_not_found(request_generation: Any, name: str) -> None:
    with pytest.raises(NotFound):
        request_generation(**{name: new_id()})


def test_a_row_of_another_tenant_of_the_caller_is_rejected(
    request_generation: Any, scenario: PhotographedProduct
) -> None:
    personal = factories.make_product(owner=scenario.owner)
    with pytest.raises(ScopeMismatch):
        request_generation(product_id=personal.id)


def test_a_product_is_found_by_its_sku_before_its_name(
    request_generation: Any, database: Database, scenario: PhotographedProduct
) -> None:
    factories.make_product(**scenario.ownership, name="AN-2041")
    update_row(database, Product, scenario.product.id, sku="AN-2041")
    generation = request_generation(shot_id=None, product_slug="AN-2041")
    assert generation.inputs["asked"]["product_id"] == str(scenario.product.id)


def test_only_given_inputs_without_an_effect_are_listed_as_ignored(
    generate: Any, scenario: PhotographedProduct
) -> None:
    style = factories.make_style(**scenario.ownership, tone="an unknown word")
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
    prediction = generate(**given)[0]
    assert sorted(prediction.provenance["ignored_inputs"]) == [
        "background",
        "extra_prompt",
        "pose",
        "steps",
        "tone",
    ]
    assert "background_not_used" in prediction.warnings


def test_a_background_that_is_used_has_no_warning(generate: Any) -> None:
    for background in ("#2040c0", "rebeccapurple", None):
        assert "background_not_used" not in generate(background=background, width=96)[0].warnings


@pytest.mark.slow("it renders three large images")
def test_a_seed_determines_the_image(generate: Any, scenario: PhotographedProduct) -> None:
    hashes = [
        prediction.content_hash
        for seed in (7, 7, 8)
        for prediction in generate(shot_id=None, product_id=scenario.product.id, seed=seed)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow("it renders two images more than the test of the seed")
@pytest.mark.usefixtures("real_cut_outs")
def test_the_seed_of_a_prediction_renders_the_same_image_again(
    generate: Any, scenario: PhotographedProduct
) -> None:
    product_id = scenario.product.id
    third = generate(shot_id=None, product_id=product_id, seed=7, batch_size=3)[2]
    again = generate(shot_id=None, product_id=product_id, seed=third.seed)[0]
    assert again.content_hash == third.content_hash


@pytest.mark.slow("it renders a large image")
def test_a_refined_image_is_larger_and_has_the_same_content(
    generate: Any, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    source = generate()[0]
    params = {"shot_id": None, "source_prediction_id": source.id, "generation_strategy": "REFINE"}
    doubled = generate(**params)[0]
    assert (doubled.width, doubled.height) == (2 * WIDTH, 2 * HEIGHT)
    with open_prediction(storage, source) as before, open_prediction(storage, doubled) as after:
        assert after.size == (2 * WIDTH, 2 * HEIGHT)
        smaller = after.convert("RGB").resize(before.size, Image.Resampling.BOX)
        difference = np.abs(
            np.asarray(before.convert("RGB"), dtype=np.int16) - np.asarray(smaller, dtype=np.int16)
        )
        assert difference.mean() < 6
    exact = generate(**params, target_width=300, target_height=300)[0]
    assert (exact.width, exact.height) == (300, 300)
    factor = generate(**params, scale_factor=1.5)[0]
    assert (factor.width, factor.height) == (WIDTH * 3 // 2, HEIGHT * 3 // 2)


def test_background_fixing_uses_the_requested_background(
    generate: Any, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    source = generate()[0]
    fixed = generate(
        shot_id=None,
        source_prediction_id=source.id,
        generation_strategy="BACKGROUND_FIXING",
        background="#2040c0",
    )[0]
    assert fixed.provenance["ignored_inputs"] == []
    with open_prediction(storage, fixed) as after:
        corner = np.asarray(after.convert("RGB"))[4, 4].astype(int)
    assert np.abs(corner - [0x20, 0x40, 0xC0]).max() < 12


def test_image_adjusting_applies_the_grade_of_the_style(
    generate: Any, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    source = generate()[0]
    style = factories.make_style(**scenario.ownership, saturation=-100)
    adjusted = generate(
        shot_id=None,
        source_prediction_id=source.id,
        generation_strategy="IMAGE_ADJUSTING",
        style_id=style.id,
    )[0]
    assert (adjusted.width, adjusted.height) == (WIDTH, HEIGHT)
    with open_prediction(storage, adjusted) as after:
        pixels = np.asarray(after.convert("RGB")).astype(int)
    assert (pixels.max(axis=2) - pixels.min(axis=2)).mean() < 6


def test_an_agentic_generation_uses_all_attempts_and_keeps_the_best(generate: Any) -> None:
    hopeless = generate(generation_type="AGENTIC", max_attempts=3, min_confidence_score=1.0)[0]
    settings = hopeless.provenance["settings"]
    assert (settings["tries"], len(settings["scores"])) == (3, 3)
    assert hopeless.quality["score"] == max(settings["scores"])


def test_an_agentic_generation_stops_at_the_first_image_that_is_good_enough(generate: Any) -> None:
    easy = generate(generation_type="AGENTIC", max_attempts=3, min_confidence_score=0.0)[0]
    assert easy.provenance["settings"]["tries"] == 1


def test_a_side_that_follows_from_a_ratio_has_at_least_one_pixel(
    request_generation: Any, database: Database, scenario: PhotographedProduct
) -> None:
    preset_id = scenario.guidelines.resolution_preset_id
    update_row(database, ResolutionPreset, preset_id, width=8192, height=64)
    scene = request_generation(width=64).inputs["scene"]
    assert (scene["width"], scene["height"]) == (64, 1)
