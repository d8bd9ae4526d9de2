"""Describe what a product would stand on: the lowest parts of its outline, seen from slightly above.

Only the outline is known here. A hem may have the shape of a base: `standing` looks at the photo too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from studio.rendering.geometry import shrink
from studio.rendering.model import Floats, Pixels

_SIDE = 480
# Parts of the height: what belongs to the base, how much of a foot, and how much higher the feet at the back
# are in the photo.
_BASE, _FOOT, _DEPTH = 0.04, 0.1, 0.22
# A gap below the product separates feet if it is at least so deep, as a share of the height.
_MIN_GAP = 0.08
# Feet are narrow, as a share of the product's width: broader ones may be the legs of trousers.
_MAX_FOOT = 0.2
# Share of the area in one piece.
_MIN_PIECE = 0.9
# How far the middle of the mass may lie outside of the base, as a share of the product's width.
_MAX_OVERHANG = 0.02
# How far a broad base may deviate from a smooth curve, as a share of the product's width (mean).
_MAX_BASE_DEVIATION = 0.003


@dataclass(frozen=True)
class ProductBase:
    """The lowest part of an outline. Lengths are shares of the product's width."""

    width: float
    roughness: float
    """Mean distance of the outline to its convex hull, as a share of the base's width: 0 for a flat, a round
    or a pointed base, more for a hem."""
    is_balanced: bool
    """Whether the middle of the mass is above the base."""
    feet: int
    """Number of parts that reach the ground, with deep gaps between them."""
    has_narrow_feet: bool
    """Whether all of these are narrow parts of one thing. Several things side by side may lie."""
    has_balanced_feet: bool
    """Whether the middle of the mass is above the feet, those at the back included."""


def describe_base(alpha: Pixels) -> ProductBase | None:
    """Return the base of an outline, or None if the mask is empty."""
    solid = _resize(alpha) > 127
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    if not len(rows):
        return None
    solid = solid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    tall, wide = solid.shape
    bottoms = np.where(solid.any(axis=0), tall - np.argmax(solid[::-1], axis=0), 0)
    middle = float(np.nonzero(solid)[1].mean())
    low = np.flatnonzero(bottoms > tall - max(3, tall * _BASE))
    feet = _find_feet(bottoms, tall)
    slack = _MAX_OVERHANG * wide
    return ProductBase(
        width=float(np.ptp(low) + 1) / wide,
        roughness=_measure_roughness(bottoms[low[0] : low[-1] + 1].astype(np.float32), tall),
        is_balanced=bool(low[0] - slack <= middle <= low[-1] + slack),
        feet=len(feet),
        has_narrow_feet=_is_one_piece(solid)
        and all(last - first < max(3, _MAX_FOOT * wide) for first, last in feet),
        has_balanced_feet=feet[0][0] - slack <= middle <= feet[-1][1] + slack,
    )


def has_broad_base(alpha: Pixels) -> bool:
    """Return whether the lowest part of an outline is broad, and flat or evenly round. A hem is wavy."""
    solid = alpha > 128
    rows = np.flatnonzero(solid.any(axis=1))
    if not len(rows):
        return False
    lowest = solid[max(0, int(rows[-1]) - max(2, len(rows) // 25)) : int(rows[-1]) + 1]
    columns = np.flatnonzero(lowest.any(axis=0))
    if len(columns) / solid.shape[1] <= 0.28 or len(columns) < 8:
        return False
    # The ends are rounded even on a flat base.
    inset = max(1, len(columns) // 12)
    columns = columns[inset:-inset]
    bottoms = (solid.shape[0] - np.argmax(solid[::-1], axis=0))[columns].astype(np.float64)
    across = (columns - columns.mean()) / max(1.0, float(np.ptp(columns)))
    deviation = bottoms - np.polyval(np.polyfit(across, bottoms, 2), across)
    return float(np.abs(deviation).mean()) < _MAX_BASE_DEVIATION * solid.shape[1]


def _resize(alpha: Pixels) -> Pixels:
    """Return the mask with the same longer side for all products: small ones have steps in their outline."""
    scale = _SIDE / max(alpha.shape)
    if scale <= 1:
        return shrink(alpha, scale)
    size = (max(1, round(alpha.shape[1] * scale)), max(1, round(alpha.shape[0] * scale)))
    return cv2.resize(alpha, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def _is_one_piece(solid: np.ndarray) -> bool:
    """Return whether nearly all of the product is connected."""
    # A mask may break a thin post.
    closed = cv2.dilate(solid.astype(np.uint8), np.ones((5, 5), np.uint8))
    areas = cv2.connectedComponentsWithStats(closed, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
    return int(areas.max()) > _MIN_PIECE * int(areas.sum())


def _measure_roughness(bottoms: Floats, tall: int) -> float:
    """Return the mean distance of the lowest points to their convex hull; gaps between feet do not count."""
    across = np.arange(len(bottoms))
    corners: list[int] = []
    for x in across:
        while len(corners) > 1 and _is_above(bottoms, corners[-2], corners[-1], int(x)):
            corners.pop()
        corners.append(int(x))
    distance = np.interp(across, corners, bottoms[corners]) - bottoms
    touching = distance < max(3.0, 0.06 * tall)
    return float(distance[touching].mean()) / len(bottoms)


def _is_above(bottoms: Floats, first: int, second: int, third: int) -> bool:
    """Return whether the second point is above the line between the others, or on it. Rows grow downwards."""
    rise = (bottoms[third] - bottoms[first]) * (second - first)
    return bool((bottoms[second] - bottoms[first]) * (third - first) <= rise)


def _find_feet(bottoms: np.ndarray, tall: int) -> list[tuple[int, int]]:
    """Return the first and the last column of each foot, from left to right."""

    def find_lowest(foot: tuple[int, int]) -> int:
        return int(bottoms[foot[0] : foot[1] + 1].max())

    in_zone = (bottoms > tall * (1 - _DEPTH)).astype(np.int8)
    edges = np.flatnonzero(np.diff(np.r_[0, in_zone, 0]))
    feet = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        lowest = int(bottoms[first:last].max())
        part = np.flatnonzero(bottoms[first:last] > lowest - max(2, tall * _FOOT)) + first
        feet.append((int(part[0]), int(part[-1])))
    return [feet[0]] + [
        foot
        for before, foot in pairwise(feet)
        if min(find_lowest(before), find_lowest(foot))
        - int(bottoms[before[1] + 1 : foot[0]].min(initial=tall))
        > _MIN_GAP * tall
    ]
