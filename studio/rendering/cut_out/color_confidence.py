"""Score the confidence in a mask that color alone found, from measurable signs of a failed segmentation.

The names of the parts (`size`, `contrast`, ..., `explained`) are stored in the provenance of predictions.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import smoothstep, to_lab
from studio.rendering.model import Pixels

AGREEMENT_THRESHOLD = 0.96
"""Overlap (0..1) from which on two segmentations count as equal."""


def score_confidence(
    pixels: Pixels, mask: np.ndarray, agreement: float, plainness: float, body: np.ndarray | None
) -> tuple[float, dict[str, float]]:
    """Return the confidence in a mask and the parts of the score, each 0..1.

    Args:
        pixels: A small copy of the photo.
        mask: The product in `pixels`.
        agreement: Overlap with a second segmentation that started from other hints.
        plainness: How plain the background is, 0..1.
        body: Skin of the person who wears the product, or None.
    """
    parts = {
        "size": _size(mask),
        "inside": _inside(mask),
        "contrast": _contrast(pixels, mask),
        "wholeness": _wholeness(mask),
        "smoothness": _smoothness(mask),
        "stability": _step(0.70, AGREEMENT_THRESHOLD, agreement),
        "plainness": round(plainness, 3),
    }
    if body is not None:
        parts["wholeness"] *= _uncovered(mask, body)
    weights = {
        "size": 1.0,
        "inside": 1.5,
        "contrast": 2.0,
        "wholeness": 1.0,
        "smoothness": 1.0,
        "stability": 1.5,
    }
    total = sum(weights.values())
    score = float(np.prod([max(parts[name], 1e-3) ** (weight / total) for name, weight in weights.items()]))
    score = min(1.0, score * (0.9 + 0.1 * plainness))
    return round(score, 4), {name: round(value, 4) for name, value in parts.items()}


def adjust_for_residual(
    confidence: float, parts: dict[str, float], residual: float
) -> tuple[float, dict[str, float]]:
    """Return the score and its parts, reduced by the area that is neither product nor background.

    Args:
        residual: That area as a share of the product's area.
    """
    part = 1 - _step(0.03, 0.20, residual)
    return round(confidence * (0.2 + 0.8 * part), 4), {**parts, "explained": round(part, 4)}


def _step(low: float, high: float, value: float) -> float:
    return float(smoothstep(low, high, np.asarray(value, dtype=np.float32)))


def _size(mask: np.ndarray) -> float:
    """Score the area: neither a speck nor nearly the whole photo."""
    share = float(mask.mean())
    return _step(0.015, 0.06, share) * (1 - _step(0.72, 0.92, share))


def _inside(mask: np.ndarray) -> float:
    """Score how little the photo's edges cut the mask off.

    For products on a person the top and bottom edges are usual, the left and right ones are not.
    """
    left, right = float(mask[:, :2].any(axis=1).mean()), float(mask[:, -2:].any(axis=1).mean())
    top, bottom = float(mask[:2].any(axis=0).mean()), float(mask[-2:].any(axis=0).mean())
    penalty = 9.0 * (left + right) + 0.7 * top + 0.35 * bottom
    return 1 - _step(0.25, 1.3, penalty)


def _contrast(pixels: Pixels, mask: np.ndarray) -> float:
    """Score the share of the contour across which the color changes."""
    values = cv2.GaussianBlur(to_lab(pixels), (0, 0), 1.0)
    solid = mask.astype(np.uint8)
    depth = cv2.distanceTransform(solid, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3)
    gradient = np.dstack([cv2.Sobel(depth, cv2.CV_32F, 1, 0), cv2.Sobel(depth, cv2.CV_32F, 0, 1)])
    gradient /= np.linalg.norm(gradient, axis=2, keepdims=True) + 1e-6
    height, width = mask.shape
    contour = (np.abs(depth) <= 1.0) & solid.astype(bool)
    contour[:3], contour[-3:], contour[:, :3], contour[:, -3:] = False, False, False, False
    rows, columns = np.nonzero(contour)
    if len(rows) < 20:
        return 0.0
    step = gradient[rows, columns] * 4

    def sample_beside(sign: int) -> np.ndarray:
        down = np.clip(rows + sign * step[:, 1], 0, height - 1).astype(int)
        across = np.clip(columns + sign * step[:, 0], 0, width - 1).astype(int)
        return values[down, across]

    change = np.linalg.norm(sample_beside(1) - sample_beside(-1), axis=1)
    return _step(0.45, 0.92, float(np.mean(change > 9.0)))


def _wholeness(mask: np.ndarray) -> float:
    """Score the largest piece's share of the mask."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    return _step(0.4, 0.9, float(areas.max() / areas.sum())) if len(areas) else 0.0


def _uncovered(mask: np.ndarray, body: np.ndarray) -> float:
    """Score how little of the outline borders on skin: hands in front of a garment leave gaps in it."""
    solid = mask.astype(np.uint8)
    outline = mask & (cv2.erode(solid, np.ones((3, 3), np.uint8)) == 0)
    near_skin = cv2.dilate(body.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    pieces = cv2.connectedComponents(solid)[0] - 1
    # What fills its photo has no outline.
    share = float(near_skin[outline].mean()) if outline.any() else 0.0
    return (1 - _step(0.12, 0.21, share)) * (1.0 if pieces == 1 else 0.05)


def _smoothness(mask: np.ndarray) -> float:
    """Score the outline's length for its area: the outline of a failed segmentation is frayed."""
    solid = mask.astype(np.uint8)
    contours, _ = cv2.findContours(solid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    length = sum(cv2.arcLength(contour, True) for contour in contours)
    return 1 - _step(3.2, 9.0, length / np.sqrt(4 * np.pi * max(1, int(solid.sum()))))
