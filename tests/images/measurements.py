"""Measure cut-outs and predictions against a known truth: overlap, color difference and ranking."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studio.rendering import Rendering, RenderRequest
from studio.rendering.color import to_lab
from studio.rendering.compose.framing import Pose, project_product
from studio.rendering.compose.render import build_layers
from studio.rendering.compose.variation import sample_variation

Array = NDArray[np.floating[Any]]
# Pixels from the rim that belong to the matting, which removes the background's color there.
_RIM = 7


def get_intersection_over_union(mask: NDArray[np.bool_], truth: Array) -> float:
    """Return the overlap of a mask with the true opacity (0..1) of the same pixels."""
    known = truth > 0.5
    return float((mask & known).sum()) / max(1.0, float((mask | known).sum()))


def get_area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Return the share of pairs in which the right mask has the higher confidence; ties count half."""
    pairs = np.subtract.outer(np.asarray(right), np.asarray(wrong))
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


@dataclass(frozen=True, eq=False)
class Comparison:
    """A prediction beside the photo that it shows."""

    photographed: Array
    """L*a*b* colors of the product in the photo, pixel by pixel, without the rim."""
    rendered: Array
    """The colors of the same pixels in the prediction."""
    white_share: float
    """Share of the background, without the surroundings of the product, that is exactly white (255)."""
    pose: Pose


def compare(request: RenderRequest, rendering: Rendering) -> Comparison:
    """Return a prediction beside its photo.

    The photo is projected like the prediction, so that only what was done to the colors differs.
    """
    cut_out = request.cut_out
    variation = sample_variation(request.seed + request.variant, request.grade.lighting)
    placement = build_layers(request, variation)[0][-1].placement
    left, top, right, bottom = cut_out.box
    photographed, alpha, (x, y) = project_product(
        np.ascontiguousarray(cut_out.photo[top:bottom, left:right]),
        cut_out.alpha,
        placement,
        request.width,
        request.height,
    )
    pixels = np.asarray(Image.open(io.BytesIO(rendering.image)).convert("RGB"))
    product = np.s_[y : y + alpha.shape[0], x : x + alpha.shape[1]]
    covered = np.zeros(pixels.shape[:2], dtype=np.uint8)
    covered[product] = alpha > 0
    # JPEG spreads the colors of the product over its blocks of 8 pixels.
    background = cv2.dilate(covered, np.ones((33, 33), np.uint8)) == 0
    inner = cv2.erode((alpha > 250).astype(np.uint8), np.ones((_RIM, _RIM), np.uint8)) > 0
    white = float((pixels[background] == 255).all(axis=1).mean()) if background.any() else 1.0
    return Comparison(to_lab(photographed)[inner], to_lab(pixels[product])[inner], white, placement.pose)


def get_color_difference(first: Array, second: Array) -> Array:
    """Return CIEDE2000 of L*a*b* colors (ISO/CIE 11664-6), after Sharma, Wu and Dalal (2005)."""
    l1, a1, b1 = np.moveaxis(np.asarray(first, dtype=np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(second, dtype=np.float64), -1, 0)
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7))
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a * stretch)) % 360 for a, b in ((a1, b1), (a2, b2)))
    gray = c1 * c2 == 0
    turn = np.where(gray, 0, (h2 - h1 + 180) % 360 - 180)
    hue_step = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    hue = np.where(np.abs(h1 - h2) <= 180, (h1 + h2) / 2, ((h1 + h2 + 360) / 2) % 360)
    hue = np.where(gray, h1 + h2, hue)
    weight = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    scale_l = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    scale_c, scale_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * weight
    rotation = (
        -2
        * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
        * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    )
    step_l, step_c, step_h = (l2 - l1) / scale_l, (c2 - c1) / scale_c, hue_step / scale_h
    return np.sqrt(np.maximum(step_l**2 + step_c**2 + step_h**2 + rotation * step_c * step_h, 0))
