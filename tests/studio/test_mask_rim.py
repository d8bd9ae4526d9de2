"""Test that the rim of a mask loses the background, and nothing else."""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.cut_out.mask_rim import trim_rim
from studio.rendering.geometry import drop_specks
from studio.rendering.model import Box, Floats, Pixels

WHOLE: Box = (0, 0, 640, 640)


def draw_wall(noise: float) -> Pixels:
    random = np.random.default_rng(4)
    return np.clip(np.array((10, 45, 50)) + random.normal(0, noise, (640, 640, 3)), 0, 255).astype(np.uint8)


def draw_disc(radius: int) -> Floats:
    mask = np.zeros((640, 640), np.float32)
    cv2.circle(mask, (320, 320), radius, 1.0, -1)
    return mask


def shrink(mask: Floats) -> Floats:
    """Return the mask in the size in which a network sees the photo."""
    return cv2.resize(mask, (320, 320), interpolation=cv2.INTER_AREA).astype(np.float32)


def test_a_mask_that_is_too_wide_before_an_even_wall_is_trimmed() -> None:
    image = draw_wall(1.0)
    cv2.circle(image, (320, 320), 200, (190, 220, 40), -1, cv2.LINE_AA)
    trimmed, coarseness = trim_rim(image, shrink(draw_disc(207)), WHOLE)
    assert trimmed.shape == (640, 640)
    assert coarseness == 2
    excess = (draw_disc(206) > 0) & (draw_disc(202) == 0)
    assert trimmed[excess].mean() < 0.1
    assert trimmed[draw_disc(197) > 0].min() > 0.9


def test_a_mask_that_is_right_stays() -> None:
    image = draw_wall(1.0)
    cv2.circle(image, (320, 320), 200, (190, 220, 40), -1, cv2.LINE_AA)
    trimmed, _ = trim_rim(image, shrink(draw_disc(200)), WHOLE)
    solid = cv2.resize(trimmed, (640, 640)) > 0.5
    expected = draw_disc(200) > 0
    assert (solid & expected).sum() / (solid | expected).sum() > 0.99


def test_nothing_is_trimmed_before_a_texture() -> None:
    image = draw_wall(25.0)
    cv2.circle(image, (320, 320), 200, (190, 220, 40), -1, cv2.LINE_AA)
    mask = shrink(draw_disc(207))
    trimmed, coarseness = trim_rim(image, mask, WHOLE)
    lost = cv2.resize(mask, (trimmed.shape[1], trimmed.shape[0])) - trimmed
    assert coarseness in (1, 2)
    assert lost.max() < 0.2


def test_specks_are_no_part_of_a_product() -> None:
    alpha = np.zeros((400, 400), np.uint8)
    alpha[100:300, 100:300] = 255
    alpha[10:14, 10:13] = 200
    alpha[350:370, 350:370] = 255
    cleaned = drop_specks(alpha)
    assert not cleaned[:50].any()
    assert (cleaned[90:] == alpha[90:]).all()
