"""Decide whether a product stands on the ground: from its base, and from what its photo shows around it.

A shadow on the ground is wrong below a lamp that hangs from a cord, and below a flat thing that was
photographed from above. Their outlines may have a broad base all the same.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.colour import luminance, to_lab
from studio.rendering.colour_mask import fit_background
from studio.rendering.geometry import is_standing, shrink
from studio.rendering.model import Box, Floats, Pixels

_SIDE = 480
# The top of what hangs is a cord: at most this share of the product's width, over this share of its height,
# and no farther from the upper edge of the photo than this share of the photo's height.
_CORD_WIDTH, _CORD_HEIGHT, _CORD_GAP = 0.05, 0.12, 0.06
# A cord that the mask lacks leads from the upper edge of the photo to the product, at least over this share
# of the photo's height. It is at most so far from the product's middle, as a share of its width.
_MIN_CORD, _OFF_CENTRE = 0.08, 0.12
# Difference of a cord to both of its sides (CIE L*), and the share of its length that has this difference.
_CORD_CONTRAST, _CORD_CONTINUITY = 2.0, 0.9
# Pixels from a cord to what is compared with it.
_BESIDE_CORD = 5
# Background that is even enough to show a shadow: how plain (`fit_background`), and its noise.
_MIN_PLAINNESS, _MAX_NOISE = 0.8, 2.0
# The shadow of what lies is next to its upper half: brightness near the outline relative to that farther
# away, and the distances as shares of the product's longer side.
_SHADOW, _NEAR, _FAR = 0.92, (0.012, 0.035), (0.11, 0.16)
# In soft light the shadow is faint but on all sides, also above: there, what stands has air behind it.
_FAINT_SHADOW = 0.98
# Part of the product's height at which its sides are looked at: below it, what stands has a shadow too.
_UPPER = (0.12, 0.55)
# Saturation by which a shadow on grey paper may differ from it (CIE76).
_MAX_TINT = 6.0


def stands(alpha: Pixels, box: Box, photo: Pixels) -> bool:
    """Return whether a product stands on the ground.

    Args:
        alpha: Opacity of the area `box` of the photo.
    """
    if not is_standing(alpha):
        return False
    factor = min(1.0, _SIDE / max(photo.shape[:2]))
    small = shrink(photo, factor)
    whole = np.zeros(photo.shape[:2], dtype=np.uint8)
    whole[box[1] : box[3], box[0] : box[2]] = alpha
    solid = shrink(whole, factor) > 127
    if not solid.any():
        return True
    return not hangs_from_cord(small, solid) and not is_seen_from_above(small, solid)


def hangs_from_cord(photo: Pixels, solid: np.ndarray) -> bool:
    """Return whether a cord leads from the upper edge of the photo to the product, in its mask or not."""
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    top, tall, wide = int(rows[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    first = solid[top : top + max(1, round(_CORD_HEIGHT * tall))]
    if top <= _CORD_GAP * len(photo) and int(first.sum(axis=1).max()) <= max(2.0, _CORD_WIDTH * wide):
        return True
    if top < max(8, _MIN_CORD * len(photo)):
        return False
    tip = np.flatnonzero(solid[top : top + max(2, round(0.03 * tall))].any(axis=0)).mean()
    if abs(tip - np.nonzero(solid)[1].mean()) > _OFF_CENTRE * wide:
        return False
    lightness = cv2.GaussianBlur(to_lab(photo[:top])[..., 0], (0, 0), 0.7)
    reach = max(3, round(_OFF_CENTRE * wide / 2))
    return any(_is_cord(lightness, x) for x in range(round(tip) - reach, round(tip) + reach + 1))


def _is_cord(lightness: Floats, x: int) -> bool:
    """Return whether a column of the photo is a thin vertical line on an even ground."""
    if x < 3 * _BESIDE_CORD or x >= lightness.shape[1] - 3 * _BESIDE_CORD:
        return False
    left, right = lightness[:, x - _BESIDE_CORD], lightness[:, x + _BESIDE_CORD]
    difference = lightness[:, x] - (left + right) / 2
    contrast = float(np.median(difference))
    if abs(contrast) < _CORD_CONTRAST or abs(float(np.median(left - right))) > abs(contrast) / 2:
        return False
    ground = [lightness[:, x + offset] for offset in (-3 * _BESIDE_CORD, -2 * _BESIDE_CORD)]
    ground += [lightness[:, x + offset] for offset in (2 * _BESIDE_CORD, 3 * _BESIDE_CORD)]
    is_even = all(abs(float(np.median(side - (left + right) / 2))) < abs(contrast) / 2 for side in ground)
    return is_even and float((difference * np.sign(contrast) > abs(contrast) / 3).mean()) >= _CORD_CONTINUITY


def is_seen_from_above(photo: Pixels, solid: np.ndarray) -> bool:
    """Return whether an even background has the product's shadow beside its upper half, or all around it."""
    _, noise, plainness = fit_background(photo)
    if plainness <= _MIN_PLAINNESS or noise >= _MAX_NOISE:
        return False
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    top, tall, wide = int(rows[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    distance = cv2.distanceTransform((~solid).astype(np.uint8), cv2.DIST_L2, 5) / max(tall, wide)
    near, far = ((distance > first) & (distance < last) for first, last in (_NEAR, _FAR))
    lab, bright = to_lab(photo), luminance(photo) + 2.0
    row, column = np.ogrid[: solid.shape[0], : solid.shape[1]]
    middle = float(np.nonzero(solid)[1].mean())
    beside = (row >= top + _UPPER[0] * tall) & (row < top + _UPPER[1] * tall)
    above = (row < top) & (np.abs(column - middle) < 0.3 * wide)
    shades = []
    for part in (beside & (column < middle), beside & (column > middle), above):
        inner, outer = near & part, far & part
        if min(int(inner.sum()), int(outer.sum())) < 20:
            continue
        shade = float(np.median(bright[inner])) / float(np.median(bright[outer]))
        tint = float(np.linalg.norm(np.median(lab[inner], axis=0)[1:] - np.median(lab[outer], axis=0)[1:]))
        shades.append(shade if tint < _MAX_TINT else 1.0)
    return min(shades, default=1.0) < _SHADOW or (len(shades) == 3 and max(shades) < _FAINT_SHADOW)
