"""How far a cut-out can be trusted, from what a careful retoucher would look at."""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.colour import smoothstep, to_lab
from studio.rendering.model import Pixels

AGREEMENT_THRESHOLD = 0.96
"""Overlap from which on two segmentations are as good as the same."""


def score_confidence(
    pixels: Pixels, mask: np.ndarray, agreement: float, plainness: float, body: np.ndarray | None
) -> tuple[float, dict[str, float]]:
    """Trust 0..1 and the parts it was judged by, for a mask over a small copy of the photograph.

    `agreement` is the overlap with a second segmentation that began elsewhere, `body` the skin of whom wears
    it.
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
    trust = float(np.prod([max(parts[name], 1e-3) ** (weight / total) for name, weight in weights.items()]))
    trust = min(1.0, trust * (0.9 + 0.1 * plainness))
    return round(trust, 4), {name: round(value, 4) for name, value in parts.items()}


def adjust_for_residual(
    confidence: float, parts: dict[str, float], residual: float
) -> tuple[float, dict[str, float]]:
    """Trust and parts again, knowing how much, by the product's area, is neither product nor background."""
    part = 1 - _step(0.03, 0.20, residual)
    return round(confidence * (0.2 + 0.8 * part), 4), {**parts, "explained": round(part, 4)}


def overlap(mask: np.ndarray, again: np.ndarray) -> float:
    """How far two segmentations agree: intersection over union."""
    return float((mask & again).sum()) / max(1.0, float((mask | again).sum()))


def _step(low: float, high: float, value: float) -> float:
    return float(smoothstep(low, high, np.asarray(value, dtype=np.float32)))


def _size(mask: np.ndarray) -> float:
    """Neither a speck nor nearly everything."""
    share = float(mask.mean())
    return _step(0.015, 0.06, share) * (1 - _step(0.72, 0.92, share))


def _inside(mask: np.ndarray) -> float:
    """Cut off by few of the photograph's sides: top and bottom are usual on a person, the sides are not."""
    left, right = float(mask[:, :2].any(axis=1).mean()), float(mask[:, -2:].any(axis=1).mean())
    top, bottom = float(mask[:2].any(axis=0).mean()), float(mask[-2:].any(axis=0).mean())
    badness = 9.0 * (left + right) + 0.7 * top + 0.35 * bottom
    return 1 - _step(0.25, 1.3, badness)


def _contrast(pixels: Pixels, mask: np.ndarray) -> float:
    """The share of the contour across which colour really changes."""
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

    def beside(sign: int) -> np.ndarray:
        down = np.clip(rows + sign * step[:, 1], 0, height - 1).astype(int)
        across = np.clip(columns + sign * step[:, 0], 0, width - 1).astype(int)
        return values[down, across]

    change = np.linalg.norm(beside(1) - beside(-1), axis=1)
    return _step(0.45, 0.92, float(np.mean(change > 9.0)))


def _wholeness(mask: np.ndarray) -> float:
    """The largest piece's share of everything that was cut out."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    return _step(0.4, 0.9, float(areas.max() / areas.sum())) if len(areas) else 0.0


def _uncovered(mask: np.ndarray, body: np.ndarray) -> float:
    """Hands over a garment leave bites in its outline: the share of the outline that skin borders."""
    solid = mask.astype(np.uint8)
    outline = mask & (cv2.erode(solid, np.ones((3, 3), np.uint8)) == 0)
    beside = cv2.dilate(body.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    pieces = cv2.connectedComponents(solid)[0] - 1
    return (1 - _step(0.12, 0.21, float(beside[outline].mean()))) * (1.0 if pieces == 1 else 0.05)


def _smoothness(mask: np.ndarray) -> float:
    """A product's outline is short for its area; a failed segmentation's is frayed."""
    solid = mask.astype(np.uint8)
    contours, _ = cv2.findContours(solid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    length = sum(cv2.arcLength(contour, True) for contour in contours)
    return 1 - _step(3.2, 9.0, length / np.sqrt(4 * np.pi * max(1, int(solid.sum()))))
