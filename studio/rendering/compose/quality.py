"""Score the quality of a rendered image: sharpness, exposure, edge, coverage and clearance."""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import luminance, smoothstep
from studio.rendering.model import Framing, Pixels, Quality

MEASURED_SIDE = 1024
"""The longer side of the copy that the score is measured on, in pixels."""
# Exponent of the sharpness lost by enlargement, which the small copy measured below cannot show.
_SOFTENING = 0.5
# Luma of the highlights of a well-lit product.
_HIGHLIGHT = 222.0
_WEIGHTS = {"sharpness": 0.24, "exposure": 0.20, "cut_out_edge": 0.24, "coverage": 0.16, "clearance": 0.16}
# Share of the image that the product covers. The score rises from 0 to 1 between the first two values and
# falls from 1 to 0 between the last two.
_COVERAGE: dict[Framing, tuple[float, float, float, float]] = {
    "FULL_BODY": (0.04, 0.22, 0.72, 0.98),
    "THREE_QUARTER": (0.06, 0.26, 0.80, 1.02),
    "HALF_BODY": (0.08, 0.30, 0.88, 1.05),
    "CLOSE_UP": (0.12, 0.36, 1.00, 1.10),
    "DETAIL": (0.18, 0.48, 1.00, 1.10),
    "FLAT_LAY": (0.04, 0.20, 0.72, 0.98),
    "STILL_LIFE": (0.03, 0.14, 0.62, 0.95),
}


def score(
    pixels: Pixels,
    alpha: Pixels,
    framing: Framing = "STILL_LIFE",
    edge: float = 1.0,
    margin: float = 0.0,
    bleeds: frozenset[str] = frozenset(),
    enlarged: float = 1.0,
) -> Quality:
    """Return the quality of a rendered image.

    Every part is 0..1. The score is their weighted geometric mean, so that one bad part lowers it a lot.

    Args:
        alpha: Opacity of the product on the canvas, of the size of `pixels`.
        edge: Confidence in the rim of the cut-out, 0..1.
        margin: Requested clear pixels on each side.
        bleeds: Sides that cut the product off on purpose.
        enlarged: Pixels of the image per pixel of the photo.
    """
    factor = min(1.0, MEASURED_SIDE / max(alpha.shape))
    size = (max(1, round(alpha.shape[1] * factor)), max(1, round(alpha.shape[0] * factor)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    opacity = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    values = luminance(small)
    parts = {
        "sharpness": _sharpness(values, opacity) * min(1.0, max(enlarged, 1e-6) ** -_SOFTENING),
        "exposure": _exposure(values, opacity),
        "cut_out_edge": float(np.clip(edge, 0, 1)),
        "coverage": _coverage(float(opacity.mean()) / 255.0, framing),
        "clearance": _clearance(opacity, margin * factor, bleeds),
    }
    total = float(np.prod([max(parts[name], 0.01) ** weight for name, weight in _WEIGHTS.items()]))
    return Quality(score=total, **parts)


def _step(low: float, high: float, value: float) -> float:
    return float(smoothstep(low, high, np.asarray(value, dtype=np.float32)))


def _sharpness(values: np.ndarray, opacity: Pixels) -> float:
    """Score the strongest fine differences relative to the coarse ones.

    A ratio, so that a smooth cup does not count as blurred because it has no texture.
    """
    inner = cv2.erode((opacity > 250).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    if inner.sum() < 100:
        return 0.5
    fine = np.abs(values - cv2.GaussianBlur(values, (0, 0), 0.9))[inner]
    coarse = np.abs(cv2.GaussianBlur(values, (0, 0), 1.6) - cv2.GaussianBlur(values, (0, 0), 4.0))[inner]
    ratio = float(np.percentile(fine, 99)) / (float(np.percentile(coarse, 99)) + 0.8)
    return 1.0 - float(np.exp(-2.6 * ratio))


def _exposure(values: np.ndarray, opacity: Pixels) -> float:
    """Score the tones: neither clipped nor dark, and with some range between."""
    inside = values[opacity > 200]
    if inside.size < 100:
        return 0.5
    clipped = float(np.mean(inside >= 254.0)) + 0.6 * float(np.mean(inside <= 3.0))
    low, middle, high = (float(value) for value in np.percentile(inside, (2, 50, 98)))
    centered = _step(8, 80, middle) * (1 - 0.5 * _step(232, 252, middle))
    ranged = 0.55 + 0.45 * _step(15, 130, high - low)
    lit = 1 - 0.22 * min(1.0, abs(high - _HIGHLIGHT) / 80)
    return float(np.clip((1 - _step(0.01, 0.30, clipped)) * (0.4 + 0.6 * centered) * ranged * lit, 0, 1))


def _coverage(share: float, framing: Framing) -> float:
    zero_below, full_from, full_to, zero_above = _COVERAGE[framing]
    # Best in the middle of the full-score range.
    distance = abs(share - (full_from + full_to) / 2) / ((full_to - full_from) / 2)
    return (
        _step(zero_below, full_from, share)
        * (1 - _step(full_to, zero_above, share))
        * (1 - 0.2 * min(1.0, distance))
    )


def _clearance(opacity: Pixels, margin: float, bleeds: frozenset[str]) -> float:
    """Score whether the margin is clear on each side that does not bleed, and equal on the left and right."""
    solid = opacity > 128
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    if not len(rows):
        return 0.0
    gaps = {
        "left": columns[0],
        "right": solid.shape[1] - 1 - columns[-1],
        "top": rows[0],
        "bottom": solid.shape[0] - 1 - rows[-1],
    }
    # Sides that bleed are left out.
    required = max(margin, 0.015 * max(opacity.shape))
    ratios = [min(1.0, float(gap) / required) for side, gap in gaps.items() if side not in bleeds]
    if not ratios:
        return 0.9
    uneven = 0.0 if bleeds else abs(float(gaps["left"]) - float(gaps["right"])) / solid.shape[1]
    return float(np.clip((0.25 + 0.75 * min(ratios)) * (1 - 1.6 * uneven), 0, 1))
