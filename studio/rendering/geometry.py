"""Sizes and shapes of masks: copies of another size, bounding boxes and cut edges."""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.model import Box, Pixels

# Opacity, of 255, from which on a pixel belongs to the bounding box.
_MIN_OPACITY = 24
# Area of a piece relative to the largest one below which it is a speck.
_MIN_PIECE = 0.0004
# Share of an edge of the photo that the product covers if the edge cuts it off. What hangs has a thin cord.
_MIN_TOUCHED_SHARE, _MIN_TOUCHED_TOP = 0.03, 0.003


def shrink(pixels: Pixels, scale: float) -> Pixels:
    """Return a smaller copy of an image or a mask; `scale` is at most 1."""
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def drop_specks(alpha: Pixels) -> Pixels:
    """Return the mask without pieces that are too small to be a part of the product."""
    solid = (alpha > _MIN_OPACITY).astype(np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if count <= 2:
        return alpha
    areas = stats[:, cv2.CC_STAT_AREA]
    specks = areas < _MIN_PIECE * areas[1:].max()
    return np.where(specks[pieces], 0, alpha).astype(np.uint8) if specks.any() else alpha


def get_bounding_box(alpha: Pixels, pad: int) -> Box:
    """Return the box of all opaque pixels and `pad` pixels around it, or the whole mask if there are none."""
    solid = alpha > _MIN_OPACITY
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    if not len(rows):
        return 0, 0, alpha.shape[1], alpha.shape[0]
    height, width = alpha.shape
    return (
        max(0, int(columns[0]) - pad),
        max(0, int(rows[0]) - pad),
        min(width, int(columns[-1]) + 1 + pad),
        min(height, int(rows[-1]) + 1 + pad),
    )


def find_touched_sides(alpha: Pixels, box: Box, photo: Pixels) -> frozenset[str]:
    """Return the edges of the photo that cut the product off.

    Args:
        alpha: Opacity of the area `box` of the photo.
    """
    height, width = photo.shape[:2]
    at_edge = {"left": box[0] == 0, "top": box[1] == 0, "right": box[2] == width, "bottom": box[3] == height}
    strips = {"left": alpha[:, :2], "right": alpha[:, -2:], "top": alpha[:2].T, "bottom": alpha[-2:].T}
    least = {
        "left": _MIN_TOUCHED_SHARE * height,
        "top": _MIN_TOUCHED_TOP * width,
        "right": _MIN_TOUCHED_SHARE * height,
        "bottom": _MIN_TOUCHED_SHARE * width,
    }
    return frozenset(
        side
        for side, strip in strips.items()
        if at_edge[side] and float((strip > 128).mean(axis=1).sum()) > least[side]
    )
