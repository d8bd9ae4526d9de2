"""Test lookboards: a product stands beside a person in a sensible size, or is shown alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studio.rendering import CutOut, RenderRequest, cut_out_product, get_mask_provider, render
from studio.rendering.compose.lookboard import arrange_lookboard, settle_subject
from studio.rendering.compose.variation import sample_variation
from studio.seed import IMAGES_DIR
from tools.sample_images.photograph import open_small_photo


@pytest.fixture(scope="module")
def product() -> CutOut:
    return cut_out_product(open_small_photo().resize((150, 200)), find_mask=get_mask_provider("color"))


@pytest.fixture(scope="module")
def subject() -> CutOut:
    return cut_out_product(Image.open(IMAGES_DIR / "mannequin_front.webp").resize((300, 400)))


@pytest.fixture
def bag(product: CutOut, subject: CutOut) -> RenderRequest:
    """Return the request of a bag beside a person."""
    return RenderRequest(
        product, 300, 400, framing="FULL_BODY", subject_image=subject, product_category="bags"
    )


@pytest.mark.parametrize(("width", "height"), [(300, 400), (400, 300), (600, 200)])
@pytest.mark.parametrize(
    ("category", "size"), [("bags", 0.30), ("Women / Ankle boots", 0.26), ("Luggage", 0.42)]
)
def test_a_product_stands_beside_the_person_in_a_size_that_fits_the_person(
    bag: RenderRequest, width: int, height: int, category: str, size: float
) -> None:
    request = replace(bag, width=width, height=height, product_category=category)
    sides = set()
    for seed in range(8):
        arranged, facts = arrange_lookboard(request, sample_variation(seed))
        person, thing = (placement.box for _, placement in arranged)
        assert facts == {"composition": "lookboard", "subject_cut_out": "alpha"}
        longer_side = max(thing[2] - thing[0], thing[3] - thing[1])
        person_height = person[3] - person[1]
        assert longer_side / person_height == pytest.approx(size)
        assert 0.03 * person_height == pytest.approx(thing[3] - person[3])
        for box in (person, thing):
            assert 0.05 * min(width, height) - 0.01 <= box[0]
            assert box[2] <= width - 0.05 * min(width, height) + 0.01
            assert box[1] >= 0
            assert box[3] <= height
        assert thing[0] > person[2] or thing[2] < person[0]
        sides.add(thing[0] > person[2])
    assert sides == {True, False}


def test_a_lookboard_shows_both_and_says_so(bag: RenderRequest) -> None:
    rendering = render(bag)
    assert "subject_not_shown" not in rendering.warnings
    assert rendering.provenance["composition"] == "lookboard"
    assert "subject" in rendering.provenance["honoured_inputs"]
    assert rendering.image != render(replace(bag, subject_image=None)).image


@pytest.mark.parametrize(
    "category", [None, "", "42", "dresses", "boot-cut jeans", "shoe care", "caps", "watches", "bag charms"]
)
def test_other_products_are_shown_whole_and_alone(bag: RenderRequest, category: str | None) -> None:
    request = replace(bag, width=150, height=200, product_category=category, framing="HALF_BODY")
    alone = render(replace(request, subject_image=None, framing="STILL_LIFE"))
    rendering = render(request)
    assert rendering.image == alone.image
    assert rendering.warnings == (*alone.warnings, "subject_not_shown")
    assert "composition" not in rendering.provenance
    assert "subject" not in rendering.provenance["honoured_inputs"]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "framed_crop"},
        {"touches": frozenset(("left",))},
        {"warnings": ("mask_uncertain",)},
        {"method": "extended_photo"},
        {"alpha": np.full((400, 100), 255, dtype=np.uint8)},
    ],
    ids=["framed", "cut off by its photo", "uncertain", "extended", "as narrow as a person who carries it"],
)
def test_a_doubtful_product_is_shown_alone(bag: RenderRequest, changes: dict[str, Any]) -> None:
    assert settle_subject(replace(bag, cut_out=replace(bag.cut_out, **changes))).subject_image is None


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "framed_crop"},
        {"touches": frozenset(("bottom",))},
        {"alpha": np.full((400, 300), 255, dtype=np.uint8)},
    ],
    ids=["not cut out", "cut off by the image", "not a whole person"],
)
def test_a_subject_whose_height_is_unknown_is_not_shown(
    bag: RenderRequest, subject: CutOut, changes: dict[str, Any]
) -> None:
    assert settle_subject(replace(bag, subject_image=replace(subject, **changes))).subject_image is None


@pytest.mark.parametrize("changes", [{"framing": "DETAIL"}, {"framing": "FLAT_LAY"}, {"view_angle": "TOP"}])
def test_a_detail_and_a_flat_lay_show_no_person_and_keep_their_framing(
    bag: RenderRequest, changes: dict[str, Any]
) -> None:
    settled = settle_subject(replace(bag, **{"framing": "CLOSE_UP", **changes}))
    assert settled.subject_image is None
    assert settled.framing == changes.get("framing", "CLOSE_UP")
