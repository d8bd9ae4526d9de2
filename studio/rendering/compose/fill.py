"""Scale a placed product until it fills the share of the image that a marketplace requires."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from studio.catalog.marketplaces import ImageRules
from studio.rendering.compose.compliance import find_colored
from studio.rendering.compose.framing import MAX_ENLARGEMENT, Placement
from studio.rendering.compose.variation import Variation
from studio.rendering.model import CutOut, Framing

# Framings that show the whole product.
_WHOLE: frozenset[Framing] = frozenset(("STILL_LIFE", "FULL_BODY", "FLAT_LAY"))
# The share that a product fills, for a zoom of 1, and by how much the zoom changes it. All predictions stay
# within the limits of every marketplace.
_FILL, _ZOOM_EFFECT = 0.875, 0.12


def follow_fill(
    placement: Placement,
    cut_out: CutOut,
    framing: Framing,
    rules: ImageRules | None,
    canvas: tuple[int, int],
    variation: Variation,
) -> Placement:
    """Return the placement centered and scaled so that it meets the rules of a marketplace for packshots.

    A framing that shows a part, a photo that cuts the product off, and a framed photo stay as they are.

    Args:
        canvas: Width and height of the image in pixels.
    """
    if rules is None or rules.white_share is None or framing not in _WHOLE or placement.bleeds:
        return placement
    if placement.pose == "framed":
        return placement
    width, height = canvas
    left, top, right, bottom = _project_box(_find_solid(cut_out), placement.matrix)
    share = max((right - left) / width, (bottom - top) / height)
    fill = float(np.clip(_FILL + _ZOOM_EFFECT * (variation.zoom - 1), 0.86, 0.89))
    factor = min(fill / share, max(1.0, MAX_ENLARGEMENT / placement.scale))
    shift_x = width / 2 - factor * (left + right) / 2
    shift_y = height / 2 - factor * (top + bottom) / 2
    scaling = np.array([[factor, 0, shift_x], [0, factor, shift_y], [0, 0, 1]])
    x, y, far_x, far_y = placement.box
    box = (
        factor * x + shift_x,
        factor * y + shift_y,
        factor * far_x + shift_x,
        factor * far_y + shift_y,
    )
    return replace(
        placement,
        matrix=scaling @ placement.matrix,
        scale=placement.scale * factor,
        box=box,
        margin=(1 - factor * share) / 2 * min(width, height),
    )


def _find_solid(cut_out: CutOut) -> np.ndarray:
    """Return which pixels of the cut-out show the product; all of them if none does."""
    solid = (find_colored(cut_out.product) if cut_out.is_extended else cut_out.alpha) > 127
    return solid if solid.any() else np.ones_like(solid)


def _project_box(solid: np.ndarray, matrix: np.ndarray) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of the solid pixels on the canvas."""
    rows = np.flatnonzero(solid.any(axis=1))
    first = solid[rows].argmax(axis=1)
    last = solid.shape[1] - solid[rows, ::-1].argmax(axis=1)
    ends = [(first, rows), (first, rows + 1), (last, rows), (last, rows + 1)]
    points = np.concatenate([np.stack(end, axis=1) for end in ends]).astype(np.float64)
    projected = cv2.perspectiveTransform(points[None], matrix)[0]
    (left, top), (right, bottom) = projected.min(axis=0), projected.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
