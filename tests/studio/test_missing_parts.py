"""Test that a part of the color of the paper, which a mask lacks, lowers the confidence."""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.cut_out.missing_parts import measure_completeness
from studio.rendering.cut_out.network_confidence import MIN_CONFIDENCE, score_agreement
from studio.rendering.model import Box, Floats, Pixels

WHOLE: Box = (0, 0, 480, 480)
LID = (240, 150), (110, 55)


def draw_lid() -> tuple[Pixels, Floats]:
    """Return the photo of a wooden lid on paper, and its mask."""
    noise = np.random.default_rng(5).normal(0, 1.0, (480, 480, 3))
    photo = np.clip(228 + noise, 0, 255).astype(np.uint8)
    mask = np.zeros((480, 480), np.float32)
    cv2.ellipse(photo, *LID, 0, 0, 360, (150, 100, 60), -1)
    cv2.ellipse(mask, *LID, 0, 0, 360, 1.0, -1)
    return photo, mask


def test_the_reflections_of_glass_below_a_lid_show_that_the_mask_lacks_a_part() -> None:
    photo, mask = draw_lid()
    assert measure_completeness(photo, mask, WHOLE) == 1
    cv2.ellipse(photo, (240, 290), (95, 60), 0, 0, 360, (212, 212, 214), 2, cv2.LINE_AA)
    completeness = measure_completeness(photo, mask, WHOLE)
    assert 0.4 < completeness < 0.7
    for share, is_sure in ((1.0, True), (completeness, False)):
        confidence, is_usable, signs = score_agreement(mask, mask, 0.2, 1.0, 1.0, 1.0, share)
        assert is_usable
        assert (confidence >= MIN_CONFIDENCE) == is_sure
        assert signs["completeness"] == round(share, 4)


def test_a_shadow_a_joint_of_the_wall_and_another_thing_are_no_part_of_the_product() -> None:
    photo, mask = draw_lid()
    shadow = np.zeros((480, 480), np.float32)
    cv2.ellipse(shadow, (260, 240), (110, 30), 0, 0, 360, 0.3, -1)
    photo = (photo * (1 - cv2.GaussianBlur(shadow, (0, 0), 12))[..., None]).astype(np.uint8)
    cv2.line(photo, (0, 260), (479, 262), (205, 205, 205), 2, cv2.LINE_AA)
    cv2.rectangle(photo, (200, 300), (290, 380), (60, 90, 140), -1)
    cv2.ellipse(photo, *LID, 0, 0, 360, (150, 100, 60), -1)
    assert measure_completeness(photo, mask, WHOLE) == 1


def test_without_a_product_or_plain_paper_nothing_is_said() -> None:
    photo, mask = draw_lid()
    texture = np.random.default_rng(6).integers(0, 256, (480, 480, 3), dtype=np.uint8)
    assert measure_completeness(photo, np.zeros_like(mask), WHOLE) == 1
    assert measure_completeness(texture, mask, WHOLE) == 1
