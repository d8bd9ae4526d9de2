"""Notice on plain paper that a mask lacks a part that has the color of the paper.

The glass below a wooden lid is such a part: neither the network nor the colors find it. Only its thin
reflections are visible, with paper between them. A shadow has no thin lines, another thing is not of the
paper's color, and a joint in a wall goes on to the edge of the photo.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import to_lab
from studio.rendering.cut_out.color_mask import fit_background
from studio.rendering.cut_out.mask_correction import shrink_with_mask
from studio.rendering.model import Box, Floats, Pixels

_MIN_PLAINNESS, _MAX_NOISE = 0.8, 2.0
# Pixels of the small copy: what is thin, how far from the mask lines are its own, the photo's edges.
_THIN_WIDTH, _APART, _EDGE = 9, 8, 3
# Difference (CIE L*) of a line to both of its sides, also in units of the paper's own.
_MIN_CONTRAST, _PAPER_CONTRAST = 2.0, 4.0
# Lines up to this many pixels apart are one thing; what has fewer pixels is a speck.
_GAP, _MIN_LINES = 25, 40
# The thing is a part of the product if it is this near, as a share of the product's size, and so wide.
_MAX_DISTANCE, _MIN_WIDTH = 0.2, 0.25
# Distance to the paper (CIE76) that what is between the lines has at most.
_MAX_DIFFERENCE = 6.0


def measure_completeness(pixels: Pixels, values: Floats, box: Box) -> float:
    """Return 1, or less if lines near a mask on plain paper outline a part that it lacks: the mask's share.

    Args:
        values: The mask, 0..1: a small copy of the area `box` of the photo.
    """
    small, solid, _ = shrink_with_mask(pixels, values, box)
    residual, noise, plainness = fit_background(small)
    if not solid.any() or plainness <= _MIN_PLAINNESS or noise >= _MAX_NOISE:
        return 1.0
    apart = cv2.dilate(solid.astype(np.uint8), np.ones((2 * _APART + 1,) * 2, np.uint8)) == 0
    lines = _find_lines(small, apart)
    joined = cv2.dilate(lines.astype(np.uint8), np.ones((_GAP, _GAP), np.uint8))
    count, labels = cv2.connectedComponents(joined, connectivity=8)
    distance = cv2.distanceTransform((~solid).astype(np.uint8), cv2.DIST_L2, 5)
    size = max(int(np.ptp(places)) + 1 for places in np.nonzero(solid))
    missing = np.zeros(solid.shape, dtype=np.uint8)
    for label in range(1, count):
        rows, columns = np.nonzero(lines & (labels == label))
        if len(rows) < _MIN_LINES or distance[rows, columns].min() > _MAX_DISTANCE * size:
            continue
        if max(np.ptp(rows), np.ptp(columns)) < _MIN_WIDTH * size or _is_at_edge(rows, columns, solid.shape):
            continue
        hull = np.zeros(solid.shape, dtype=np.uint8)
        outline = cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32))
        cv2.fillConvexPoly(hull, outline, 1)
        between = (hull > 0) & ~lines & ~solid
        if between.any() and float(np.median(residual[between])) < _MAX_DIFFERENCE:
            missing |= hull
    lacking = float(((missing > 0) & ~solid).sum())
    return float(solid.sum()) / (float(solid.sum()) + lacking)


def _find_lines(small: Pixels, where: np.ndarray) -> np.ndarray:
    """Return the thin lines in a part of the photo."""
    lightness = cv2.GaussianBlur(to_lab(small)[..., 0], (0, 0), 0.8)
    thin = np.ones((_THIN_WIDTH, _THIN_WIDTH), np.uint8)
    dark = cv2.morphologyEx(lightness, cv2.MORPH_CLOSE, thin) - lightness
    bright = lightness - cv2.morphologyEx(lightness, cv2.MORPH_OPEN, thin)
    contrast = np.maximum(dark, bright)
    if not where.any():
        return where
    return where & (contrast > max(_MIN_CONTRAST, _PAPER_CONTRAST * float(np.median(contrast[where]))))


def _is_at_edge(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> bool:
    return bool(
        min(rows.min(), columns.min()) < _EDGE
        or rows.max() >= shape[0] - _EDGE
        or columns.max() >= shape[1] - _EDGE
    )
