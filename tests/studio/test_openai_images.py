"""Test generations that a server with an Images API renders: requests, masks, pixels and provenance."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from db.session import Database
from studio.infrastructure.storage import LocalDisk, media_key
from studio.providers.openai_images import ImagesConfig, RequestRejected
from studio.providers.openai_images import ImagesServer as ServerSettings
from tests.studio.compute_fixtures import list_predictions, load_generation
from tests.studio.images_fixtures import load_pixels, run_generation, running_executor, use_images
from tests.support.scenarios import (
    HEIGHT,
    WIDTH,
    PhotographedProduct,
    create_pending_generation,
    make_product_photo,
)
from tests.support.servers.images import KEY, PAINT, USAGE, ImagesServer, run_images_server

pytestmark = pytest.mark.usefixtures("color_masks")


@pytest.fixture
def images_server() -> Iterator[ImagesServer]:
    """Yield a running server."""
    with run_images_server() as running:
        yield running


def test_predictions_are_made_from_one_request_with_image_mask_and_prompt(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    use_images(scenario, images_server, quality="high", sizes="")
    generation_id = run_generation(
        database, storage, scenario, images_server, extra_prompt="on a beach", negative_prompt="people"
    )
    done = load_generation(database, generation_id)
    assert (done.status, done.progress, done.attempts, done.cost_credits) == ("completed", 100, 1, 2)
    (request,) = images_server.requests
    assert request.path == "/v1/images/edits"
    assert request.headers["idempotency-key"] == f"{generation_id}:1:0"
    prompt = request.fields.pop("prompt")
    assert request.fields == {"model": "gpt-image-test", "n": "2", "size": "1024x1536", "quality": "high"}
    assert prompt.splitlines()[2] == "on a beach"
    assert prompt.endswith("\nAvoid: people")
    assert list(request.files) == ["image[]", "mask"]
    assert (request.files["image[]"].size, request.files["mask"].size) == ((1024, 1536), (1024, 1536))
    assert (request.files["image[]"].mode, request.files["mask"].mode) == ("RGB", "RGBA")
    alpha = np.asarray(request.files["mask"].getchannel("A"))
    assert (alpha[768, 512], alpha[10, 10]) == (255, 0)
    predictions = list_predictions(database, generation_id)
    assert [(one.width, one.height, one.content_type) for one in predictions] == [
        (WIDTH, HEIGHT, "image/png")
    ] * 2
    provenance = predictions[0].provenance
    assert provenance["provider"] == "OPENAI_IMAGES"
    assert provenance["cut_out"] in ("plain_background", "grabcut", "u2netp")
    # The API of this dialect takes no seed.
    assert provenance["ignored_inputs"] == ["seed"]
    settings = provenance["settings"]
    assert settings["prompt"] == prompt.removesuffix("\nAvoid: people")
    assert (settings["model"], settings["preserve_product"]) == ("gpt-image-test", True)
    assert (settings["requested_size"], settings["received_width"]) == ("1024x1536", 1024)
    assert settings["usage"] == {
        **{name: count for name, count in USAGE.items() if isinstance(count, int)},
        "images": 2,
    }
    assert provenance["digital_source_type"] == "compositeWithTrainedAlgorithmicMedia"
    assert KEY not in str(provenance)


def test_the_pixels_of_the_product_are_preserved_unless_the_request_says_otherwise(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    # The pixels can be compared because the image that is sent is much larger than the prediction.
    use_images(scenario, images_server, sizes="")
    generations = [
        run_generation(
            database, storage, scenario, images_server, batch_size=1, preserve_product=is_preserved
        )
        for is_preserved in (True, False)
    ]
    preserved, painted = (load_pixels(database, storage, generation_id) for generation_id in generations)
    assert (painted == PAINT).all()
    source_types = [
        prediction.provenance["digital_source_type"]
        for generation_id in generations
        for prediction in list_predictions(database, generation_id)
    ]
    assert source_types == ["compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicMedia"]
    sent, mask = images_server.requests[0].files.values()
    # The product fills a part of the image, the rest is what the server made.
    changed = (preserved == PAINT).all(axis=2)
    assert 0.2 < changed.mean() < 0.9
    inner = (0, (1536 - 1024 * HEIGHT // WIDTH) // 2, 1024, (1536 + 1024 * HEIGHT // WIDTH) // 2)
    kept = np.asarray(mask.getchannel("A").crop(inner).resize((WIDTH, HEIGHT), Image.Resampling.BOX)) == 255
    expected = np.asarray(sent.crop(inner).resize((WIDTH, HEIGHT), Image.Resampling.BOX)).astype(int)
    difference = np.abs(preserved.astype(int) - expected).max(axis=2)
    # All but the rim: the sent image was enlarged from the pixels that are pasted.
    assert np.percentile(difference[kept], 90) <= 6
    assert not changed[kept].any()
    # Without a part that stays, the photo is sent as it is.
    assert list(images_server.requests[1].files) == ["image[]"]
    assert images_server.requests[1].files["image[]"].size == (400, 500)
    assert "Keep the product" not in images_server.requests[1].fields["prompt"]


@pytest.mark.parametrize("strategy", ["EDITING", "BACKGROUND_FIXING"])
def test_a_prediction_is_changed_around_its_product(
    strategy: str,
    database: Database,
    storage: LocalDisk,
    scenario: PhotographedProduct,
    images_server: ImagesServer,
) -> None:
    use_images(scenario, images_server)
    first = run_generation(database, storage, scenario, images_server, batch_size=1, width=400, height=500)
    source = list_predictions(database, first)[0]
    photo = Image.open(io.BytesIO(make_product_photo()))
    photo.save(file := io.BytesIO(), "PNG")
    storage.write(media_key(source.media_id, "png"), file.getvalue())
    changed = run_generation(
        database,
        storage,
        scenario,
        images_server,
        shot_id=None,
        batch_size=1,
        source_prediction_id=source.id,
        generation_strategy=strategy,
        extra_prompt="put it on a table",
    )
    assert load_generation(database, changed).error is None
    request = images_server.requests[-1]
    assert list(request.files) == ["image[]", "mask"]
    assert request.fields["prompt"].splitlines()[2] == "put it on a table"
    pixels = load_pixels(database, storage, changed)
    assert tuple(pixels[20, 200]) == PAINT
    if strategy == "EDITING":
        # Not moved: the same pixels as in the source.
        assert np.array_equal(pixels[220:380, 150:250], np.asarray(photo)[220:380, 150:250])
    else:
        assert (pixels[250, 200] != PAINT).any()


def test_faces_are_retouched_where_there_is_skin_and_nothing_else_changes(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    use_images(scenario, images_server)
    first = run_generation(database, storage, scenario, images_server, batch_size=1)
    source = list_predictions(database, first)[0]
    portrait = Image.new("RGB", (WIDTH, HEIGHT), "#20402A")
    portrait.paste("#D9A07E", (60, 40, 130, 120))
    target = io.BytesIO()
    portrait.save(target, "PNG")
    storage.write(media_key(source.media_id, "png"), target.getvalue())
    fixed = run_generation(
        database,
        storage,
        scenario,
        images_server,
        shot_id=None,
        batch_size=1,
        source_prediction_id=source.id,
        generation_strategy="FACE_FIXING",
    )
    pixels = load_pixels(database, storage, fixed)
    assert tuple(pixels[80, 95]) == PAINT
    assert tuple(pixels[240, 10]) == (0x20, 0x40, 0x2A)


def test_each_dialect_has_its_own_fields(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    use_images(scenario, images_server, dialect="vllm_omni", max_side="512", sizes="")
    run_generation(
        database, storage, scenario, images_server, batch_size=1, negative_prompt="people", seed=77
    )
    (vllm,) = images_server.requests
    assert (vllm.path, vllm.size) == ("/v1/images/edits", (192, 256))
    assert (vllm.fields["seed"], vllm.fields["negative_prompt"]) == ("77", "people")
    assert "Avoid" not in vllm.fields["prompt"]
    assert list(vllm.files) == ["image[]", "mask_image"]
    mask = np.asarray(vllm.files["mask_image"])
    assert (mask[128, 96], mask[2, 2]) == (0, 255)
    use_images(scenario, images_server, dialect="localai", sizes="")
    run_generation(
        database, storage, scenario, images_server, batch_size=1, extra_prompt="a|b", negative_prompt="c|d"
    )
    localai = images_server.requests[1]
    assert (localai.path, localai.fields["response_format"]) == ("/v1/images/generations", "b64_json")
    # Texts of users do not become the negative prompt.
    prompt, negative = localai.fields["prompt"].split("|")
    assert "a/b" in prompt
    assert negative == "c/d"
    (reference,) = localai.fields["ref_images"]
    assert Image.open(io.BytesIO(base64.b64decode(reference))).size == (192, 256)


def test_a_server_may_make_fewer_images_than_requested(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    use_images(scenario, images_server, max_images_per_request="2")
    generation_id = run_generation(database, storage, scenario, images_server, batch_size=3)
    assert [request.fields["n"] for request in images_server.requests] == ["2", "1"]
    keys = [request.headers["idempotency-key"] for request in images_server.requests]
    assert keys == [f"{generation_id}:1:0", f"{generation_id}:1:2"]
    assert [one.index for one in list_predictions(database, generation_id)] == [0, 1, 2]


def test_the_server_of_the_settings_gets_the_key_of_the_settings_and_no_other_one_does(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct, images_server: ImagesServer
) -> None:
    settings = ServerSettings(images_server.server.url, KEY)
    assert KEY not in repr(settings)
    use_images(scenario, images_server, base_url="", api_key="")
    # The host is in no list of allowed hosts: only this provider reaches it.
    with running_executor(database, storage, images_server, settings, allowed=False) as executor:
        generation_id = create_pending_generation(database, scenario, batch_size=1)
        assert executor.run_next()
    assert load_generation(database, generation_id).status == "completed"
    own = ImagesConfig.from_config({"model": "m", "base_url": "https://images.example.com/v1"}, settings)
    assert (own.api_key, own.base_url) == (None, "https://images.example.com")


@pytest.mark.parametrize(
    "config",
    [
        None,
        {"model": "m"},
        {"base_url": "https://images.example.com"},
        {"base_url": "https://images.example.com", "model": "m", "dialect": "other"},
        {"base_url": "https://images.example.com", "model": "m", "sizes": "1024x1024,big"},
        {"base_url": "https://images.example.com", "model": "m", "sizes": "9999x1024"},
        {"base_url": "https://images.example.com", "model": "m", "max_side": "99999"},
        {"base_url": "https://images.example.com", "model": "m", "timeout_seconds": "0"},
        {"base_url": "https://images.example.com", "model": "m", "max_images_per_request": "9"},
    ],
)
def test_an_unusable_configuration_is_rejected(config: dict[str, str] | None) -> None:
    with pytest.raises(RequestRejected):
        ImagesConfig.from_config(config, ServerSettings())


@pytest.mark.parametrize(
    ("config", "size", "chosen"),
    [
        ({}, (1536, 2048), (1024, 1536)),
        ({}, (2000, 2000), (1024, 1024)),
        ({}, (1920, 1080), (1536, 1024)),
        ({"sizes": "512x512, 1024x1024"}, (600, 700), (1024, 1024)),
        ({"sizes": "any"}, (1536, 2048), (1152, 1536)),
        ({"sizes": "any", "max_side": "2048"}, (1000, 3000), (688, 2048)),
        ({"dialect": "vllm_omni"}, (300, 200), (304, 192)),
    ],
)
def test_the_requested_size_is_the_one_closest_in_shape(
    config: dict[str, str], size: tuple[int, int], chosen: tuple[int, int]
) -> None:
    base = {"base_url": "https://images.example.com", "model": "m"}
    assert ImagesConfig.from_config({**base, **config}, ServerSettings()).choose_size(*size) == chosen
