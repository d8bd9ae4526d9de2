"""Masks of any shape are measured, placed and rendered: nothing raises, and no number is infinite or NaN.

The masks are random, each by its number, and small: a network, a file or a person may give any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, cast, get_args

import cv2
import numpy as np
import pytest
from PIL import Image

from studio.catalog.marketplaces import MARKETPLACES, find_rules
from studio.rendering import (
    Background,
    CutOut,
    Grade,
    Mask,
    RenderRequest,
    adjust,
    cut_out_product,
    measure_preview,
    refine,
    render,
    score,
)
from studio.rendering.compose import compliance, shadows
from studio.rendering.compose.fill import follow_fill
from studio.rendering.compose.framed_crop import crop_to_frame
from studio.rendering.compose.framing import Pose, find_most_detailed_region, place_product, project_product
from studio.rendering.compose.lookboard import arrange_lookboard, settle_subject
from studio.rendering.compose.staging import cut_out_of_stage, measure_likeness, stage_product
from studio.rendering.compose.variation import sample_variation
from studio.rendering.cut_out import network_confidence as confidence
from studio.rendering.cut_out import standing
from studio.rendering.cut_out.color_confidence import adjust_for_residual, score_confidence
from studio.rendering.cut_out.color_mask import find_color_mask
from studio.rendering.cut_out.mask_correction import compare_with_paper, correct_mask, measure_distinctness
from studio.rendering.cut_out.mask_rim import trim_rim
from studio.rendering.cut_out.matting import refine_mask
from studio.rendering.cut_out.missing_parts import measure_completeness
from studio.rendering.cut_out.network_mask import _find_box, drop_small_pieces
from studio.rendering.cut_out.product_base import describe_base, has_broad_base
from studio.rendering.cut_out.selection import EmptyMask, cut_out_selection
from studio.rendering.cut_out.stored_cut_out import describe_cut_out, encode_cut_out
from studio.rendering.geometry import drop_specks, find_touched_sides, get_bounding_box
from studio.rendering.model import Box, Floats, Framing, Pixels, ShadowKind

pytestmark = pytest.mark.usefixtures("real_cut_outs")

MASKS = 56
"""All 14 kinds before all four backgrounds. The defects that this test was written for need 42."""
SIDES = (1, 2, 3, 5, 9, 24, 40, 71)
"""The sides of masks in pixels. Photos have a margin, or none."""
LARGE_MASK = (490, 31)
"""Height and width of a few masks: outlines with more than 480 pixels are measured on a smaller copy."""
FRAMINGS: tuple[Framing, ...] = get_args(Framing)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A mask in a photo."""

    number: int
    kind: str
    alpha: Pixels
    box: Box
    photo: Pixels

    @property
    def values(self) -> Floats:
        """The mask, 0..1."""
        return (self.alpha / np.float32(255)).astype(np.float32)

    @property
    def product(self) -> Pixels:
        """The area of the mask in the photo."""
        return self.photo[self.box[1] : self.box[3], self.box[0] : self.box[2]]

    @property
    def whole(self) -> Pixels:
        """The mask in the size of the photo."""
        whole = np.zeros(self.photo.shape[:2], np.uint8)
        whole[self.box[1] : self.box[3], self.box[0] : self.box[2]] = self.alpha
        return whole

    @property
    def cut_out(self) -> CutOut:
        """The cut-out as if a mask provider had found exactly this mask."""
        touches = find_touched_sides(self.alpha, self.box, self.photo)
        is_standing = self.number % 2 == 0
        return CutOut(self.photo, self.product, self.alpha, self.box, "drawn", 0.9, touches, is_standing)

    def make_request(self, framing: Framing = "STILL_LIFE", cut_out: CutOut | None = None) -> RenderRequest:
        """Return the request for a small image of this product."""
        names = (None, *MARKETPLACES)
        return RenderRequest(
            cut_out or self.cut_out,
            width=64,
            height=80,
            framing=framing,
            view_angle="TOP" if self.number % 5 == 0 else "FRONT",
            background=Background(shadow=get_args(ShadowKind)[self.number % 3]),
            grade=Grade(lighting="hard left" if self.number % 2 else None),
            seed=self.number,
            marketplace=names[self.number % len(names)],
        )


def draw_empty(_: np.random.Generator, mask: Pixels) -> None:
    """Leave the mask empty."""


def draw_full(_: np.random.Generator, mask: Pixels) -> None:
    mask[:] = 255


def draw_pixel(random: np.random.Generator, mask: Pixels) -> None:
    mask[random.integers(mask.shape[0]), random.integers(mask.shape[1])] = 255


def draw_row(random: np.random.Generator, mask: Pixels) -> None:
    mask[random.integers(mask.shape[0])] = 255


def draw_column(random: np.random.Generator, mask: Pixels) -> None:
    mask[:, random.integers(mask.shape[1])] = 255


def draw_noise(random: np.random.Generator, mask: Pixels) -> None:
    mask[:] = random.integers(0, 256, mask.shape)


def draw_specks(random: np.random.Generator, mask: Pixels) -> None:
    mask[random.random(mask.shape) < 0.04] = 255


def draw_comb(random: np.random.Generator, mask: Pixels) -> None:
    """Draw a bar with teeth of one pixel, some of which are shorter."""
    mask[: max(1, len(mask) // 3)] = 255
    mask[:, :: int(random.integers(2, 8))] = 255
    mask[int(random.integers(len(mask))) :, : int(random.integers(mask.shape[1]))] = 0


def draw_pieces(random: np.random.Generator, mask: Pixels) -> None:
    for _ in range(5):
        top, left = random.integers(mask.shape[0]), random.integers(mask.shape[1])
        mask[top : top + random.integers(1, 20), left : left + random.integers(1, 12)] = 255


def draw_legs(random: np.random.Generator, mask: Pixels) -> None:
    """Draw a seat with thin legs, of which one may end in a column of one pixel."""
    mask[: len(mask) // 2 + 1] = 255
    for left in random.integers(0, mask.shape[1], 4):
        mask[: int(len(mask) * random.uniform(0.6, 1.01)), left : left + int(random.integers(1, 4))] = 255
    left = int(random.integers(mask.shape[1]))
    mask[:, left] = 255
    mask[: len(mask) * 9 // 10, left : left + 3] = 255


def draw_line(random: np.random.Generator, mask: Pixels) -> None:
    start, end = random.integers(0, mask.shape[1], 2)
    cv2.line(mask, (int(start), 0), (int(end), len(mask) - 1), 255, int(random.integers(1, 3)))


def draw_rim(_: np.random.Generator, mask: Pixels) -> None:
    mask[:] = 255
    mask[1:-1, 1:-1] = 0


def draw_soft(random: np.random.Generator, mask: Pixels) -> None:
    mask[:] = cv2.resize(random.integers(0, 256, (4, 4), dtype=np.uint8), mask.shape[::-1])


def draw_blob(random: np.random.Generator, mask: Pixels) -> None:
    draw_soft(random, mask)
    mask[:] = np.where(mask > 110, 255, 0)


DRAWINGS = (
    draw_empty, draw_full, draw_pixel, draw_row, draw_column, draw_noise, draw_specks, draw_comb, draw_pieces,
    draw_legs, draw_line, draw_rim, draw_soft, draw_blob,
)  # fmt: skip


def paint_background(random: np.random.Generator, shape: tuple[int, int], number: int) -> Pixels:
    """Return white paper, gray paper, a texture or a dark wall."""
    if number % 4 == 2:
        return random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    level, noise = ((255, 0.0), (225, 1.0), (0, 0.0), (18, 1.0))[number % 4]
    return np.clip(random.normal(level, noise, (*shape, 3)), 0, 255).astype(np.uint8)


@cache
def draw_mask(number: int) -> Drawn:
    """Return the mask of this number: all kinds take turns, in random sizes and before all backgrounds."""
    random, draw = np.random.default_rng(number), DRAWINGS[number % len(DRAWINGS)]
    height, width = LARGE_MASK if number >= MASKS - len(DRAWINGS) else random.choice(SIDES, 2)
    alpha = np.zeros((height, width), np.uint8)
    draw(random, alpha)
    # What has no margin touches the edges of its photo.
    left, top, right, bottom = (int(side) for side in random.integers(0, 20, 4) * (number % 3 > 0))
    # The background and the kind of the mask are independent: there are 14 kinds.
    photo = paint_background(random, (height + top + bottom, width + left + right), number // len(DRAWINGS))
    box = (left, top, left + int(width), top + int(height))
    photo[top : box[3], left : box[2]][alpha > 127] = random.integers(0, 256, 3)
    return Drawn(number, draw.__name__, alpha, box, photo)


def is_finite(value: Any) -> bool:
    """Return whether all numbers in a value are finite."""
    if isinstance(value, np.ndarray):
        return bool(np.isfinite(value).all())
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    if is_dataclass(value):
        return all(is_finite(getattr(value, part.name)) for part in fields(value))
    if isinstance(value, Mapping):
        return is_finite(list(value.values()))
    return all(map(is_finite, value)) if isinstance(value, list | tuple) else True


def measure_standing(drawn: Drawn) -> list[Any]:
    solid, photo = drawn.whole > 127, drawn.photo
    found: list[Any] = [standing._decide(drawn.alpha, drawn.box, photo), standing.has_even_background(photo)]
    if solid.any():
        found += [standing.hangs_from_cord(photo, solid), standing.is_seen_from_above(photo, solid)]
        found.append(standing._look_below(photo, solid))
    return found


def measure_network_confidence(drawn: Drawn) -> list[Any]:
    mask, share = drawn.values, float((drawn.values > 0.5).mean())
    signs = (share, share, share, share)
    return [
        confidence.measure_certainty(mask),
        [confidence.score_agreement(mask, other, *signs) for other in (mask, mask[::-1], 1 - mask)],
    ]


def measure_color_confidence(drawn: Drawn) -> list[Any]:
    solid = drawn.whole > 127
    bodies = (None, ~solid, solid, np.zeros_like(solid), np.ones_like(solid))
    found = [score_confidence(drawn.photo, solid, 0.9, 0.9, body) for body in bodies]
    return [*found, *(adjust_for_residual(*each, 0.1) for each in found)]


def correct(drawn: Drawn) -> list[Any]:
    """Take the steps of `find_network_mask` after the network."""
    values = drop_small_pieces(drawn.values)
    found: list[Any] = [values, _find_box(drawn.values, drawn.photo)]
    found.append(measure_distinctness(drawn.photo, values, drawn.box))
    values, box = correct_mask(drawn.photo, values, drawn.box)
    found += [values, box, compare_with_paper(drawn.photo, values, box)]
    values, coarseness = trim_rim(drawn.photo, values, box)
    return [*found, values, coarseness, measure_completeness(drawn.photo, values, box)]


def describe_geometry(drawn: Drawn) -> list[Any]:
    kept = drop_specks(drawn.alpha)
    return [kept, get_bounding_box(kept, 4), find_touched_sides(kept, drawn.box, drawn.photo)]


def refine_edges(drawn: Drawn) -> list[Any]:
    return [refine_mask(drawn.product, drawn.values, band) for band in (3, 6, 12)]


def frame(drawn: Drawn) -> list[Any]:
    """Place the product in all framings, with the fill of a marketplace, and as a framed crop."""
    found: list[Any] = [find_most_detailed_region(drawn.product, drawn.alpha, 0.4)]
    variation, cut_out = sample_variation(drawn.number), drawn.cut_out
    for framing in FRAMINGS:
        request = drawn.make_request(framing)
        size = (request.width, request.height)
        area = (0.0, 0.0, float(request.width), float(request.height))
        placement = place_product(cut_out, area, framing, request.view_angle, 8, variation)
        filled = follow_fill(placement, cut_out, framing, find_rules(request.marketplace), size, variation)
        found += [placement, filled, project_product(cut_out.product, cut_out.alpha, filled, *size)]
    framing = FRAMINGS[drawn.number % len(FRAMINGS)]
    crop, _ = crop_to_frame(cut_out, (60.0, 76.0), framing, variation)
    return [*found, place_product(crop, area, framing, "FRONT", 2, variation, framed=True)]


def light(drawn: Drawn) -> list[Any]:
    variation, poses = sample_variation(drawn.number), cast("tuple[Pose, ...]", get_args(Pose))
    kinds = cast("tuple[ShadowKind, ...]", get_args(ShadowKind))
    found = [shadows.shadow_map(drawn.values, kind, pose, variation) for kind in kinds for pose in poses]
    return [*found, shadows.light_map(drawn.values, variation), shadows.room_light(drawn.values, variation)]


def measure_image(drawn: Drawn) -> list[Any]:
    """Measure the quality, and how the image meets the rules of marketplaces."""
    found: list[Any] = [score(drawn.product, drawn.alpha, framing) for framing in FRAMINGS]
    for rules in MARKETPLACES.values():
        found.append(compliance._measure_background(drawn.product, drawn.alpha, False, 0.9))
        found += [compliance._measure_fill(drawn.alpha, rules.fill)] if rules.fill else []
    return found


def cut_out_and_render(drawn: Drawn) -> list[Any]:
    """Cut out with the mask of a provider, the alpha channel of a file and a given mask, and render one."""
    photo, whole = Image.fromarray(drawn.photo), drawn.whole
    height, width = whole.shape
    mask = Mask(whole.astype(np.float32) / 255, (0, 0, width, height), "drawn", 0.9, is_usable=True)
    found = [
        cut_out_product(photo, find_mask=lambda _: mask),
        cut_out_product(Image.fromarray(np.dstack([drawn.photo, whole])), find_mask=lambda _: mask),
    ]
    for region in (None, {"x": 0.2, "y": 0.3, "width": 0.5, "height": 0.6}):
        with suppress(EmptyMask):  # a correct answer to a mask without a product in this region
            found.append(cut_out_selection(photo, 80, region, Image.fromarray(whole)))
    framing = FRAMINGS[drawn.number % len(FRAMINGS)]
    rendering = render(drawn.make_request(framing, found[drawn.number % len(found)]))
    return [found, rendering, [describe_cut_out(cut_out, None) for cut_out in found]]


def arrange(drawn: Drawn) -> list[Any]:
    """Arrange the product beside a tall subject, if it has the shape of a bag."""
    tall = np.full((90, 30), 255, np.uint8)
    subject = CutOut(np.dstack([tall] * 3), np.dstack([tall] * 3), tall, (0, 0, 30, 90), "drawn", 0.9)
    request = replace(
        drawn.make_request(cut_out=replace(drawn.cut_out, touches=frozenset())),
        view_angle="FRONT",
        subject_image=subject,
        product_category="bag",
    )
    settled = settle_subject(request)
    if settled.subject_image is None:
        return [settled]
    return [settled, arrange_lookboard(settled, sample_variation(drawn.number)), render(settled)]


def use_cut_out(drawn: Drawn) -> list[Any]:
    """Use a cut-out for everything else: previews, files, generative models and retouching."""
    cut_out, photo, request = drawn.cut_out, Image.fromarray(drawn.photo), drawn.make_request()
    stage = stage_product(cut_out, (64, 80), "DETAIL", "FRONT", 8, "#FFFFFF", request.marketplace)
    return [
        measure_preview(request), stage, cut_out_of_stage(stage),
        measure_likeness(stage, stage.pixels[::-1]), refine(photo, cut_out=cut_out),
        adjust(photo, Grade(), cut_out=cut_out), len(encode_cut_out(cut_out)),
    ]  # fmt: skip


def find_by_color(drawn: Drawn) -> Mask | None:
    # Smaller photos are not searched. A search takes up to a second: half of the others are enough.
    is_searched = min(drawn.photo.shape[:2]) >= 32 and drawn.number % 2 == 0
    return find_color_mask(drawn.photo) if is_searched else None


MEASURES: dict[str, Callable[[Drawn], Any]] = {
    "describe_base": lambda drawn: describe_base(drawn.alpha),
    "has_broad_base": lambda drawn: has_broad_base(drawn.alpha),
    **{
        function.__name__: function
        for function in (
            measure_standing, measure_network_confidence, measure_color_confidence, correct,
            describe_geometry, refine_edges, frame, light, measure_image, cut_out_and_render, use_cut_out,
            arrange, find_by_color,
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MEASURES)
def test_no_mask_is_too_unusual_to_be_measured(name: str, caplog: pytest.LogCaptureFixture) -> None:
    failures = {}
    for drawn in map(draw_mask, range(MASKS)):
        try:
            assert is_finite(MEASURES[name](drawn)), "a number is not finite"
        except Exception as error:  # noqa: BLE001 - reported below, with all others
            failures[drawn.number, drawn.kind, drawn.alpha.shape] = repr(error)
    assert failures == {}
    # What only decorates may fail, and says so.
    assert [record.getMessage() for record in caplog.records] == []
