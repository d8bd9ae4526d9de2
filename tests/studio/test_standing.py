"""Test what stands on the ground and what does not: a lamp on its cord, and a flat thing seen from above."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from studio.rendering.geometry import is_standing
from studio.rendering.model import Pixels
from studio.rendering.standing import stands

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
    assert is_standing(draw_dome())
    assert not stands(draw_dome(), BOX, paint(photo, draw_dome()))


def test_a_lamp_whose_mask_has_the_cord_hangs_too() -> None:
    alpha = np.zeros((400, 200), np.uint8)
    alpha[220:] = draw_dome()
    alpha[:230, 98:102] = 255
    photo = draw_paper()
    photo[20:420, 200:400][alpha > 127] = (120, 60, 50)
    assert is_standing(alpha)
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
    assert is_standing(tablet)
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
