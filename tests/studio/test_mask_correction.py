"""Test the correction of masks: holes, thin parts, and what must not be taken for either."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest

from studio.rendering.cut_out.mask_correction import compare_with_paper, correct_mask, measure_distinctness
from studio.rendering.geometry import find_touched_sides
from studio.rendering.model import Box, Floats, Pixels

WHOLE: Box = (0, 0, 600, 600)


def paper() -> Pixels:
    return _draw_paper().copy()


@cache
def _draw_paper() -> Pixels:
    down, across = np.mgrid[-1:1:600j, -1:1:600j]
    noise = np.random.default_rng(1).normal(0, 1.5, (600, 600, 3))
    return np.clip((232 - 8 * across - 5 * down)[..., None] + noise, 0, 255).astype(np.uint8)


def checks() -> Pixels:
    down, across = np.mgrid[0:600, 0:600] // 25
    tiles = np.where(((down + across) % 2)[..., None] == 0, (150, 70, 60), (90, 120, 70))
    return np.clip(tiles + np.random.default_rng(2).normal(0, 4, (600, 600, 3)), 0, 255).astype(np.uint8)


def draw_ring(image: Pixels, color: tuple[int, int, int], width: int = 50) -> np.ndarray:
    """Draw a ring and return where it is."""
    truth = np.zeros((600, 600), np.uint8)
    cv2.circle(truth, (300, 300), 170, 1, width)
    image[truth > 0] = color
    return truth > 0


def fill(radius: int = 195) -> Floats:
    mask = np.zeros((600, 600), np.float32)
    cv2.circle(mask, (300, 300), radius, 1.0, -1)
    return mask


def overlap(values: Floats, box: Box, truth: np.ndarray) -> float:
    mask = np.zeros(truth.shape, dtype=np.float32)
    mask[box[1] : box[3], box[0] : box[2]] = cv2.resize(values, (box[2] - box[0], box[3] - box[1]))
    return float(((mask > 0.5) & truth).sum() / ((mask > 0.5) | truth).sum())


def test_a_hole_that_shows_plain_paper_is_opened() -> None:
    image = paper()
    truth = draw_ring(image, (196, 160, 70))
    assert overlap(fill(), WHOLE, truth) < 0.6
    assert overlap(*correct_mask(image, fill(), WHOLE), truth) > 0.93


def test_the_shading_of_a_white_product_is_no_hole() -> None:
    image = paper()
    shading = cv2.GaussianBlur(fill(150), (0, 0), 25)[..., None]
    white = cv2.circle(np.zeros((600, 600), np.uint8), (300, 300), 195, 1, -1) > 0
    # Its middle has the color of the paper; towards its outline it becomes darker.
    image[white] = (image - 70 * (1 - shading)).clip(0, 255).astype(np.uint8)[white]
    assert overlap(*correct_mask(image, fill(), WHOLE), fill() > 0.5) > 0.99


def test_a_hole_that_shows_another_background_lowers_the_distinctness_only() -> None:
    image = checks()
    truth = draw_ring(image, (196, 160, 70))
    assert overlap(*correct_mask(image, fill(), WHOLE), fill() > 0.5) == 1
    assert measure_distinctness(image, fill(), WHOLE) < 0.7
    assert measure_distinctness(image, truth.astype(np.float32), WHOLE) > 0.99


def test_a_dark_part_before_a_dark_background_is_no_hole() -> None:
    image = (paper() * 0.1).astype(np.uint8)
    draw_ring(image, (196, 160, 70))
    assert overlap(*correct_mask(image, fill(), WHOLE), fill() > 0.5) == 1


def test_an_outline_that_is_invisible_before_a_dark_background_lowers_the_distinctness() -> None:
    image = (paper() * 0.1).astype(np.uint8)
    cv2.circle(image, (300, 300), 195, (196, 160, 70), -1)
    assert measure_distinctness(image, fill(), WHOLE) > 0.99
    # Half of the product is as dark as the background.
    image[300:] = (paper() * 0.1).astype(np.uint8)[300:]
    assert 0.4 < measure_distinctness(image, fill(), WHOLE) < 0.6
    assert measure_distinctness(paper(), fill(), WHOLE) == 1


@pytest.mark.parametrize("draw_background", [paper, checks])
def test_a_print_in_another_color_is_no_hole(draw_background: Callable[[], Pixels]) -> None:
    image = draw_background()
    draw_ring(image, (40, 60, 140))
    cv2.circle(image, (300, 300), 140, (250, 246, 236), -1)
    values, box = correct_mask(image, fill(), WHOLE)
    assert overlap(values, box, fill() > 0.5) > 0.97


def test_a_cord_on_plain_paper_is_kept_and_reaches_the_edge_of_the_photo() -> None:
    image = paper()
    cv2.circle(image, (300, 420), 110, (180, 40, 40), -1)
    cv2.line(image, (300, 0), (300, 320), (25, 25, 28), 7)
    mask = np.zeros((600, 600), np.float32)
    cv2.circle(mask, (300, 420), 110, 1.0, -1)
    values, box = correct_mask(image, mask[280:560, 160:440], (160, 280, 440, 560))
    assert box[1] == 0
    full = cv2.resize(values, (box[2] - box[0], box[3] - box[1]))
    assert (full[5:300, 300 - box[0]] > 0.5).mean() > 0.95
    assert find_touched_sides((full * 255).astype(np.uint8), box, image) == {"top"}


def test_a_shadow_on_plain_paper_is_not_added() -> None:
    image = paper().astype(np.float32)
    shadow = np.zeros((600, 600), np.float32)
    cv2.ellipse(shadow, (360, 420), (150, 40), 0, 0, 360, 1.0, -1)
    image *= 1 - 0.45 * cv2.GaussianBlur(shadow, (0, 0), 8)[..., None]
    cv2.circle(image, (300, 300), 120, (60, 90, 160), -1)
    pixels = image.astype(np.uint8)
    mask = np.zeros((600, 600), np.float32)
    cv2.circle(mask, (300, 300), 120, 1.0, -1)
    assert overlap(*correct_mask(pixels, mask, WHOLE), mask > 0.5) > 0.97


def test_a_mask_of_nothing_or_of_everything_stays() -> None:
    for value in (0.0, 1.0):
        mask = np.full((60, 60), value, np.float32)
        assert correct_mask(paper(), mask, WHOLE)[0] is mask


def test_a_dark_lace_that_leads_away_from_the_product_is_no_shadow() -> None:
    image = paper()
    cv2.circle(image, (300, 420), 110, (60, 60, 62), -1)
    cv2.line(image, (300, 320), (120, 60), (90, 90, 92), 3, cv2.LINE_AA)
    mask = np.zeros((600, 600), np.float32)
    cv2.circle(mask, (300, 420), 110, 1.0, -1)
    values, box = correct_mask(image, mask, WHOLE)
    full = cv2.resize(values, (box[2] - box[0], box[3] - box[1]))
    assert box[:2] == (0, 0)
    assert full[75, 130] > 0.5


def test_colored_paper_and_the_shadow_on_it_are_no_part_of_the_product() -> None:
    tint = np.array((0.60, 0.27, 0.68), np.float32)
    image = paper() * tint
    shadow = np.zeros((600, 600), np.float32)
    cv2.circle(shadow, (300, 300), 140, 1.0, -1)
    image *= 1 - 0.4 * cv2.GaussianBlur(shadow, (0, 0), 20)[..., None]
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    truth = draw_ring(pixels, (250, 170, 60))
    mask = truth.astype(np.float32)
    mask[260:340, 260:340] = 1
    values, box = correct_mask(pixels, mask, WHOLE)
    full = cv2.resize(values, (box[2] - box[0], box[3] - box[1]))
    assert full[270:330, 270:330].max() < 0.1
    assert overlap(values, box, truth) > 0.97
    # A product of the hue of its paper stays.
    pixels = np.clip(paper() * tint, 0, 255).astype(np.uint8)
    cv2.circle(pixels, (300, 300), 195, (80, 30, 95), -1)
    assert overlap(*correct_mask(pixels, fill(), WHOLE), fill() > 0.5) > 0.97


@pytest.mark.parametrize(("brightness", "is_filled"), [(0.1, True), (1.0, False)])
def test_a_narrow_gap_between_two_large_pieces_belongs_to_a_product_before_a_dark_background(
    brightness: float, is_filled: bool
) -> None:
    image = (paper() * brightness).astype(np.uint8)
    mask = np.zeros((600, 600), np.float32)
    for top, bottom in ((150, 280), (300, 430)):
        image[top:bottom, 150:450] = (60, 150, 200)
        mask[top:bottom, 150:450] = 1
    values, box = correct_mask(image, mask, WHOLE)
    full = cv2.resize(values, (box[2] - box[0], box[3] - box[1]))
    assert (full[290 - box[1], 160 - box[0] : 440 - box[0]] > 0.5).all() == is_filled


def test_a_mask_that_colors_on_plain_paper_confirm_is_known_to_be_right() -> None:
    image = paper()
    cv2.circle(image, (300, 300), 195, (180, 40, 40), -1)
    assert compare_with_paper(image, fill(), WHOLE) > 0.95
    assert compare_with_paper(image, fill(130), WHOLE) < 0.6
    assert compare_with_paper((image * 0.1).astype(np.uint8), fill(), WHOLE) == 0
    on_checks = checks()
    cv2.circle(on_checks, (300, 300), 195, (180, 40, 40), -1)
    assert compare_with_paper(on_checks, fill(), WHOLE) == 0
