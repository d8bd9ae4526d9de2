"""Test what stands on the ground (on a base, on legs, on its shadow) and what hangs, floats or lies."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from studio.rendering import Mask, RenderRequest, cut_out_product, render
from studio.rendering.cut_out.product_base import describe_base, has_broad_base
from studio.rendering.cut_out.standing import stands
from studio.rendering.model import Pixels

BOX = (200, 240, 400, 420)


def draw_paper(low: int = 235) -> Pixels:
    noise = np.random.default_rng(3).normal(0, 1.2, (600, 600, 3))
    falloff = np.linspace(0, 12, 600)[:, None, None]
    return np.clip(low - falloff + noise, 0, 255).astype(np.uint8)


def draw_dome() -> Pixels:
    """Return the opacity of a lampshade, which has a flat base."""
    dome = np.zeros((180, 200), np.uint8)
    cv2.ellipse(dome, (100, 179), (99, 178), 0, 180, 360, 255, -1)
    return dome


def paint(photo: Pixels, alpha: Pixels) -> Pixels:
    left, top, right, bottom = BOX
    photo[top:bottom, left:right][alpha > 127] = (120, 60, 50)
    return photo


def cast_shadow(photo: Pixels, alpha: Pixels, shift: tuple[int, int], squash: float) -> Pixels:
    whole = np.zeros(photo.shape[:2], np.float32)
    whole[BOX[1] : BOX[3], BOX[0] : BOX[2]] = alpha / 255
    move = np.array([[1, 0, shift[0]], [0, squash, shift[1] + BOX[3] * (1 - squash)]], np.float64)
    dark = cv2.GaussianBlur(cv2.warpAffine(whole, move, photo.shape[:2]), (0, 0), 5)
    return (photo * (1 - 0.35 * dark)[..., None]).astype(np.uint8)


def test_a_product_with_a_flat_base_on_plain_paper_stands() -> None:
    photo = paint(cast_shadow(draw_paper(), draw_dome(), (20, -6), 0.2), draw_dome())
    assert stands(draw_dome(), BOX, photo)


@pytest.mark.parametrize("color", [(40, 40, 40), (252, 252, 252)])
def test_a_lamp_stands_on_nothing_if_a_cord_leads_to_it(color: tuple[int, int, int]) -> None:
    photo = draw_paper(200)
    cv2.line(photo, (300, 0), (300, BOX[1] + 4), color, 3)
    assert has_broad_base(draw_dome())
    assert not stands(draw_dome(), BOX, paint(photo, draw_dome()))


def test_a_lamp_whose_mask_has_the_cord_hangs_too() -> None:
    alpha = np.zeros((400, 200), np.uint8)
    alpha[220:] = draw_dome()
    alpha[:230, 98:102] = 255
    photo = draw_paper()
    photo[20:420, 200:400][alpha > 127] = (120, 60, 50)
    assert has_broad_base(alpha)
    assert not stands(alpha, (200, 20, 400, 420), photo)


@pytest.mark.parametrize("column", [160, 300])
def test_the_edge_of_a_wall_is_no_cord(column: int) -> None:
    photo = draw_paper()
    photo[:, column:] = (photo[:, column:] * 0.8).astype(np.uint8)
    assert stands(draw_dome(), BOX, paint(photo, draw_dome()))


def test_a_line_beside_the_product_is_no_cord() -> None:
    photo = draw_paper()
    cv2.line(photo, (370, 0), (370, 500), (40, 40, 40), 3)
    assert stands(draw_dome(), BOX, paint(photo, draw_dome()))


def test_a_flat_thing_with_a_shadow_along_its_side_was_seen_from_above() -> None:
    tablet = np.full((180, 200), 255, np.uint8)
    photo = paint(cast_shadow(draw_paper(), tablet, (7, 7), 1.0), tablet)
    assert has_broad_base(tablet)
    assert not stands(tablet, BOX, photo)


def test_a_flat_thing_in_soft_light_has_a_faint_shadow_on_all_sides() -> None:
    tablet = np.full((180, 200), 255, np.uint8)
    around = np.zeros((600, 600), np.float32)
    around[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    dark = 0.1 * cv2.GaussianBlur(around, (0, 0), 5)
    soft = (draw_paper() * (1 - dark)[..., None]).astype(np.uint8)
    assert not stands(tablet, BOX, paint(soft, tablet))


def test_a_photo_without_a_visible_shadow_leaves_the_decision_to_the_base() -> None:
    tablet = np.full((180, 200), 255, np.uint8)
    texture = np.random.default_rng(4).integers(60, 190, (600, 600, 3), dtype=np.uint8)
    assert stands(tablet, BOX, paint(draw_paper(), tablet))
    assert stands(tablet, BOX, paint(texture, tablet))


def draw_bottle() -> Pixels:
    """Return the opacity of a bottle whose base is a flat ellipse with round corners."""
    bottle = np.zeros((420, 120), np.uint8)
    bottle[60:400, 20:100] = 255
    bottle[:80, 48:72] = 255
    cv2.ellipse(bottle, (60, 398), (39, 20), 0, 0, 360, 255, -1)
    return bottle


def draw_chair() -> Pixels:
    """Return the opacity of a chair on four thin legs, the ones at the back higher in the photo."""
    chair = np.zeros((400, 300), np.uint8)
    chair[150:190, 20:280] = 255
    chair[:160, 20:50] = 255
    for left, bottom in ((20, 360), (70, 399), (240, 360), (268, 385)):
        chair[180:bottom, left : left + 12] = 255
    return chair


def draw_fridge() -> Pixels:
    """Return the opacity of a box at an angle: its base is a V of two straight edges."""
    fridge = np.zeros((420, 200), np.uint8)
    cv2.fillPoly(fridge, [np.array([(0, 20), (140, 0), (199, 25), (199, 385), (62, 419), (0, 395)])], 255)
    return fridge


def draw_figures() -> Pixels:
    """Return the opacity of two figures, one behind the other: the middle is above the gap between them."""
    figures = np.zeros((200, 200), np.uint8)
    cv2.ellipse(figures, (50, 100), (48, 99), 0, 0, 360, 255, -1)
    cv2.ellipse(figures, (150, 88), (48, 87), 0, 0, 360, 255, -1)
    return figures


def place(alpha: Pixels, low: int = 235) -> tuple[Pixels, tuple[int, int, int, int]]:
    """Return paper of the size of the photo, and a box of the size of the product on it."""
    photo = draw_paper(low)
    left, top = (600 - alpha.shape[1]) // 2, 520 - alpha.shape[0]
    return photo, (left, top, left + alpha.shape[1], 520)


def put(photo: Pixels, alpha: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    photo[box[1] : box[3], box[0] : box[2]][alpha > 127] = (120, 60, 50)
    return photo


def add_shadow(photo: Pixels, box: tuple[int, int, int, int], gap: int) -> Pixels:
    """Return the photo with a soft, flat shadow, as far below the product as the gap says."""
    dark = np.zeros(photo.shape[:2], np.float32)
    middle = ((box[0] + box[2]) // 2, box[3] + gap)
    cv2.ellipse(dark, middle, ((box[2] - box[0]) // 2, 8), 0, 0, 360, 1.0, -1)
    dark = cv2.GaussianBlur(dark, (0, 0), 4)
    return (photo * (1 - 0.4 * dark)[..., None]).astype(np.uint8)


@pytest.mark.parametrize("draw", [draw_bottle, draw_chair, draw_fridge])
def test_what_is_balanced_on_a_smooth_base_or_on_legs_stands_without_any_shadow(
    draw: Callable[[], Pixels],
) -> None:
    alpha = draw()
    photo, box = place(alpha)
    assert stands(alpha, box, put(photo, alpha, box))


def test_what_leans_over_its_base_does_not_stand() -> None:
    hammer = np.zeros((300, 300), np.uint8)
    cv2.line(hammer, (20, 20), (280, 280), 255, 30)
    photo, box = place(hammer)
    assert not stands(hammer, box, put(photo, hammer, box))


def test_two_things_stand_if_their_shadow_touches_them() -> None:
    figures = draw_figures()
    photo, box = place(figures)
    assert not stands(figures, box, put(photo.copy(), figures, box))
    assert stands(figures, box, put(add_shadow(photo, box, 0), figures, box))


def test_what_floats_above_its_shadow_does_not_stand() -> None:
    bottle = draw_bottle()
    photo, box = place(bottle)
    assert stands(bottle, box, put(add_shadow(photo.copy(), box, 0), bottle, box))
    assert not stands(bottle, box, put(add_shadow(photo, box, 24), bottle, box))


def test_trousers_do_not_stand_on_their_legs() -> None:
    trousers = np.zeros((400, 200), np.uint8)
    trousers[:120] = 255
    for left in (0, 120):
        trousers[100:392, left : left + 80] = 255
        for column in range(left, left + 80):
            trousers[392 : 396 + round(4 * np.sin(column / 6)), column] = 255
    photo, box = place(trousers)
    assert not stands(trousers, box, put(photo, trousers, box))


def test_an_empty_mask_has_no_base() -> None:
    assert describe_base(np.zeros((40, 30), np.uint8)) is None


@pytest.mark.parametrize(
    ("draw", "feet", "is_balanced"),
    [(draw_bottle, 1, True), (draw_chair, 4, True), (draw_figures, 2, False)],
)
def test_a_base_has_feet_and_a_middle(draw: Callable[[], Pixels], feet: int, is_balanced: bool) -> None:
    base = describe_base(draw())
    assert base is not None
    assert (base.feet, base.is_balanced, base.has_balanced_feet) == (feet, is_balanced, True)


def test_a_foot_may_end_in_a_single_column() -> None:
    stool = np.zeros((480, 300), np.uint8)
    stool[:300, 20:280] = 255
    stool[:480, 40:60] = 255
    # The mask lacks most of this leg's end: one pixel reaches the ground.
    stool[:430, 240:260] = 255
    stool[:480, 250] = 255
    base = describe_base(stool)
    assert base is not None
    assert (base.feet, base.has_narrow_feet, base.has_balanced_feet) == (2, True, True)
    photo, box = place(stool)
    assert stands(stool, box, put(photo, stool, box))


def test_a_base_that_cannot_be_measured_costs_the_shadow_on_the_ground_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Pixels) -> None:
        raise ValueError("an unexpected outline")

    alpha = draw_bottle()
    photo, box = place(alpha)
    pixels = put(photo, alpha, box)
    image = Image.fromarray(pixels)
    mask = np.zeros(pixels.shape[:2], np.float32)
    mask[box[1] : box[3], box[0] : box[2]] = alpha / 255
    found = Mask(mask, (0, 0, 600, 600), "drawn", 1.0, is_usable=True)
    assert cut_out_product(image, find_mask=lambda _: found).standing
    monkeypatch.setattr("studio.rendering.cut_out.standing.describe_base", fail)
    cut_out = cut_out_product(image, find_mask=lambda _: found)
    assert (cut_out.method, cut_out.standing) == ("drawn", False)
    assert render(RenderRequest(cut_out, 64, 80)).provenance["pose"] == "hanging"
    (record,) = caplog.records
    assert record.getMessage() == (
        "the product has no shadow on the ground, because its base could not be measured"
    )
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "an unexpected outline"


def test_a_hem_is_rougher_than_a_base() -> None:
    shirt = np.zeros((300, 240), np.uint8)
    shirt[:280] = 255
    for column in range(240):
        shirt[280 : 290 + round(8 * np.sin(column / 9)), column] = 255
    hem, base = describe_base(shirt), describe_base(draw_bottle())
    assert hem is not None
    assert base is not None
    assert hem.roughness > 4 * base.roughness
