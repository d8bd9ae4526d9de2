"""Measure images against the rules of marketplaces: for each rule one that meets it and one that does not."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from studio.catalog.marketplaces import MARKETPLACES, ImageRules
from studio.providers import sample
from studio.rendering import (
    Background,
    CutOut,
    RenderRequest,
    adjust,
    cut_out_product,
    downscale,
    get_mask_provider,
    render,
)
from studio.rendering.compose.compliance import measure_compliance
from studio.rendering.model import Grade
from tests.architecture.sources import ROOT
from tools.sample_images.photograph import load_phone_photo, open_small_photo

RULES = ImageRules(
    formats=("PNG", "JPEG"),
    size=(200, 200),
    min_longer_side=200,
    min_shorter_side=150,
    max_side=400,
    max_file_size=1_000_000,
    aspect_ratio=1.0,
    white_share=1.0,
    fill=(0.85, 0.95),
)
WHITE = Background("SOLID", "#FFFFFF", shadow="NONE")


def draw(side: int = 200, fill: float = 0.9, height: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a white canvas with a dark square in its middle, and the opacity of the square."""
    pixels = np.full((height or side, side, 3), 255, dtype=np.uint8)
    product = np.zeros(pixels.shape[:2], dtype=np.uint8)
    first = round(side * (1 - fill) / 2)
    product[first : side - first, first : side - first] = 255
    pixels[product > 0] = (90, 60, 40)
    return pixels, product


def measure(
    pixels: np.ndarray, product: np.ndarray, file_format: str = "PNG", is_framed: bool = False, **rules: Any
) -> dict[str, dict[str, Any]]:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, file_format)
    results = measure_compliance(target.getvalue(), product, is_framed, replace(RULES, **rules))
    return {result["rule"]: result for result in results}


def list_failed(results: dict[str, dict[str, Any]]) -> list[str]:
    return [rule for rule, result in results.items() if not result["passed"]]


def test_an_image_that_meets_all_rules_passes_each_of_them() -> None:
    results = measure(*draw())
    assert list(results) == [
        "background_white", "border", "fill", "min_side", "max_side", "aspect_ratio", "format", "file_size",
    ]  # fmt: skip
    assert list_failed(results) == []
    assert results["fill"] == {
        "rule": "fill", "required": "0.85 to 0.95", "measured": "0.9000", "passed": True
    }  # fmt: skip
    assert results["background_white"]["measured"] == "1.0000"


def test_one_background_pixel_of_254_fails_only_the_white_background() -> None:
    pixels, product = draw(400, 0.88)
    pixels[4, 4] = (255, 255, 254)
    results = measure(pixels, product)
    assert list_failed(results) == ["background_white"]
    assert results["background_white"]["measured"] == "0.9999"


def test_pixels_beside_the_product_belong_to_its_rim() -> None:
    pixels, product = draw(400, 0.88)
    pixels[24 - 16, 200] = (240, 240, 240)
    assert list_failed(measure(pixels, product)) == []
    pixels[24 - 17, 200] = (240, 240, 240)
    assert list_failed(measure(pixels, product)) == ["background_white"]


def test_a_line_around_the_image_is_a_border() -> None:
    pixels, product = draw()
    pixels[[0, -1]] = pixels[:, [0, -1]] = 0
    results = measure(pixels, product, white_share=0.5)
    assert list_failed(results) == ["border"]
    assert results["border"]["measured"] == "0.5025"


def test_a_product_that_the_image_cuts_off_covers_its_rim() -> None:
    pixels, product = draw()
    product[100:, 80:120] = 255
    pixels[product > 0] = (90, 60, 40)
    assert list_failed(measure(pixels, product, fill=(0.85, 1.0))) == ["border"]


def test_a_photo_in_a_white_frame_has_a_border() -> None:
    results = measure(*draw(), is_framed=True)
    assert list_failed(results) == ["border"]
    assert results["border"]["measured"] == "1.0000"


@pytest.mark.parametrize(("fill", "measured"), [(0.80, "0.8000"), (0.97, "0.9700")])
def test_a_product_that_is_too_small_or_too_large_fails_the_fill(fill: float, measured: str) -> None:
    results = measure(*draw(fill=fill), white_share=None)
    assert list_failed(results) == ["fill"]
    assert results["fill"]["measured"] == measured


def test_an_image_without_a_product_fills_nothing() -> None:
    pixels, product = draw()
    assert measure(pixels, np.zeros_like(product))["fill"]["measured"] == "0.0000"


@pytest.mark.parametrize(("width", "height"), [(190, 190), (201, 149)])
def test_a_side_below_the_minimum_fails(width: int, height: int) -> None:
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    results = measure(pixels, pixels[..., 0], white_share=None, fill=None, aspect_ratio=None)
    assert list_failed(results) == ["min_side"]
    assert results["min_side"]["measured"] == f"{width} x {height}"


def test_a_side_above_the_maximum_fails() -> None:
    assert list_failed(measure(*draw(401))) == ["max_side"]


def test_another_aspect_ratio_fails() -> None:
    results = measure(*draw(height=204), fill=None)
    assert list_failed(results) == ["aspect_ratio"]
    assert results["aspect_ratio"]["measured"] == "0.9804"


def test_another_format_fails() -> None:
    results = measure(*draw(), file_format="WEBP", white_share=None)
    assert list_failed(results) == ["format"]
    assert results["format"] == {
        "rule": "format", "required": "PNG, JPEG", "measured": "WEBP", "passed": False
    }  # fmt: skip


def test_a_file_that_is_too_large_fails() -> None:
    results = measure(*draw(), max_file_size=100)
    assert list_failed(results) == ["file_size"]


def test_the_contract_names_every_marketplace_and_every_rule() -> None:
    contract = json.loads((ROOT / "openapi" / "openapi.json").read_text(encoding="utf-8"))
    schemas = contract["components"]["schemas"]
    assert schemas["MarketplaceInput"]["enum"] == list(MARKETPLACES)
    every_rule = measure_compliance(_encode(draw()[0]), draw()[1], False, RULES)
    assert set(schemas["ComplianceRule"]["x-extensible-enum"]) == {result["rule"] for result in every_rule}


def _encode(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


@pytest.mark.parametrize("marketplace", MARKETPLACES)
def test_the_default_size_and_format_of_a_marketplace_meet_its_rules(marketplace: str) -> None:
    rules = MARKETPLACES[marketplace]
    assert rules.accepts_size(*rules.size)
    assert rules.formats[0] == "JPEG"


@pytest.fixture(scope="module")
def cut_out() -> CutOut:
    photo = ImageOps.exif_transpose(Image.open(io.BytesIO(load_phone_photo())))
    return cut_out_product(photo, find_mask=get_mask_provider("color"))


@pytest.mark.parametrize(
    ("marketplace", "framing"),
    [
        ("AMAZON_MAIN", "STILL_LIFE"),
        ("AMAZON_MAIN", "FLAT_LAY"),
        ("GOOGLE_MERCHANT", "STILL_LIFE"),
        ("ZALANDO", "FULL_BODY"),
    ],
)
@pytest.mark.slow("it renders large images; tests/api/test_marketplaces.py renders one of them")
def test_every_prediction_of_a_packshot_meets_the_rules(
    cut_out: CutOut, marketplace: str, framing: Any
) -> None:
    width, height = MARKETPLACES[marketplace].size
    request = RenderRequest(
        cut_out, width, height, framing=framing, background=WHITE, marketplace=marketplace, seed=40
    )
    failed = []
    # The smallest and the largest zoom.
    for variant in (5, 6):
        results = render(replace(request, variant=variant)).compliance
        failed += [(variant, result) for result in results if not result["passed"]]
    assert failed == []


def test_a_shadow_fails_the_white_background_of_amazon() -> None:
    cut_out = cut_out_product(open_small_photo().resize((150, 200)), find_mask=get_mask_provider("color"))
    soft = Background("SOLID", "#FFFFFF", shadow="SOFT")
    rendering = render(RenderRequest(cut_out, 500, 500, background=soft, marketplace="AMAZON_MAIN", seed=3))
    assert "background_white" in [result["rule"] for result in rendering.compliance if not result["passed"]]


def test_white_paper_beyond_a_contact_shadow_is_exactly_white(cut_out: CutOut) -> None:
    paper = Background("SOLID", "#FFFFFF", shadow="CONTACT")
    image = render(RenderRequest(cut_out, 600, 800, "PNG", background=paper, seed=3)).image
    pixels = np.asarray(Image.open(io.BytesIO(image)))
    levels = pixels.min(axis=2)
    assert levels[:60].min() == 255
    # A shadow whose tails have no end leaves 2.5 percent of the image nearly white.
    assert np.isin(levels, (253, 254)).mean() < 0.012


@pytest.mark.slow("it renders an image of a megapixel four times")
def test_a_retouched_image_is_measured_again(cut_out: CutOut) -> None:
    request = RenderRequest(cut_out, 1000, 1000, background=WHITE, marketplace="AMAZON_MAIN", seed=3)
    source = Image.open(io.BytesIO(render(request).image))
    product = cut_out_product(downscale(source))
    adjusted = adjust(source, Grade(), cut_out=product, marketplace="AMAZON_MAIN")
    assert [result["rule"] for result in adjusted.compliance if not result["passed"]] == []
    graded = adjust(source, Grade(temperature=60), cut_out=product, marketplace="AMAZON_MAIN")
    failed = [result["rule"] for result in graded.compliance if not result["passed"]]
    assert failed == ["background_white", "border"]
    assert adjust(source, Grade(), cut_out=product).compliance == []


@pytest.mark.parametrize("marketplace", MARKETPLACES)
def test_samples_of_the_mock_server_meet_the_rules(marketplace: str) -> None:
    width, height = MARKETPLACES[marketplace].size
    inputs = {"width": width, "height": height, "file_format": "JPEG", "marketplace": marketplace}
    results = sample.render_image(inputs, 3, 1).compliance
    assert [result for result in results if not result["passed"]] == []
    assert results
