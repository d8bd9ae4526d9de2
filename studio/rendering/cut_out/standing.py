"""Decide whether a product stands on the ground: from its base, and from what its photo shows around it.

A shadow on the ground is wrong below a lamp that hangs from a cord, and below a flat thing that was
photographed from above. Their outlines may have a broad base all the same. An outline that leaves it open
stands if its photo shows a shadow that touches it from below.
"""

from __future__ import annotations

import logging

import cv2
import numpy as np

from studio.rendering.color import luminance, to_lab
from studio.rendering.cut_out.color_mask import fit_background
from studio.rendering.cut_out.product_base import ProductBase, describe_base, has_broad_base
from studio.rendering.geometry import shrink
from studio.rendering.model import Box, Floats, Pixels

logger = logging.getLogger(__name__)

_SIDE = 480
# The top of what hangs is a cord: at most this share of the product's width, over this share of its height,
# and no farther from the upper edge of the photo than this share of the photo's height.
_CORD_WIDTH, _CORD_HEIGHT, _CORD_GAP = 0.05, 0.12, 0.06
# A cord that the mask lacks leads from the upper edge of the photo to the product, at least over this share
# of the photo's height. It is at most so far from the product's middle, as a share of its width.
_MIN_CORD, _OFF_CENTER = 0.08, 0.12
# Difference of a cord to both of its sides (CIE L*), and the share of its length that has this difference.
_CORD_CONTRAST, _CORD_CONTINUITY = 2.0, 0.9
# Pixels from a cord to what is compared with it.
_BESIDE_CORD = 5
# Background that is even enough to show a shadow: how plain (`fit_background`), and its noise at half size.
_MIN_PLAINNESS, _MAX_NOISE = 0.8, 1.7
# The shadow of what lies is next to its upper half: brightness near the outline relative to that farther
# away, and the distances as shares of the product's longer side.
_SHADOW, _NEAR, _FAR = 0.92, (0.012, 0.035), (0.11, 0.16)
# The same for an outline that leaves open whether the product stands.
_UNSURE_SHADOW = 0.95
# In soft light the shadow is faint but on all sides, also above: there, what stands has air behind it.
_FAINT_SHADOW = 0.98
# Part of the product's height at which its sides are looked at: below it, what stands has a shadow too.
_UPPER = (0.12, 0.55)
# Saturation by which a shadow on gray paper may differ from it (CIE76).
_MAX_TINT = 6.0
# A base of a smooth outline, below the middle of the mass: its width as a share of the product's, and its
# roughness. What is rougher may be a hem, and what is not balanced may lie: such a product needs a shadow
# that touches it.
_MIN_BASE, _MAX_ROUGHNESS = 0.2, 0.0065
_MIN_TOUCHED_BASE, _MAX_TOUCHED_ROUGHNESS = 0.25, 0.021
# Feet that are legs in any photo. Two may be the ends of glasses or of poles.
_MIN_LEGS = 3
# Distances below the base at which a shadow is looked for, as shares of the product's longer side: next to
# the base, and the farthest.
_TOUCHING, _BELOW = (0.006, 0.02), 0.12
# Brightness of a shadow that touches the base, relative to the brightest place below it: darker for a rough
# outline, because what lies has a faint one too. Brightness of a shadow that is away from the base, relative
# to what is next to it.
_TOUCHING_SHADOW, _TOUCHING_ROUGH_SHADOW, _SEPARATE_SHADOW = 0.97, 0.95, 0.85
# Luminance of the ground, of 255, below which a darker place is no shadow but the end of the light.
_MIN_GROUND = 40.0


def stands(alpha: Pixels, box: Box, photo: Pixels) -> bool:
    """Return whether a product stands on the ground.

    Only the shadow depends on it. A failure is logged, and the product gets the shadow of one that hangs.

    Args:
        alpha: Opacity of the area `box` of the photo.
    """
    try:
        return _decide(alpha, box, photo)
    except Exception:
        logger.exception("the product has no shadow on the ground, because its base could not be measured")
        return False


def _decide(alpha: Pixels, box: Box, photo: Pixels) -> bool:
    base = describe_base(alpha)
    if base is None:
        return False
    is_sure = has_broad_base(alpha) or _is_stable(base)
    if not is_sure and not _may_be_stable(base):
        return False
    factor = min(1.0, _SIDE / max(photo.shape[:2]))
    small = shrink(photo, factor)
    whole = np.zeros(photo.shape[:2], dtype=np.uint8)
    whole[box[1] : box[3], box[0] : box[2]] = alpha
    solid = shrink(whole, factor) > 127
    if not solid.any():
        return True
    if hangs_from_cord(small, solid):
        return False
    if not has_even_background(small):
        return is_sure
    if is_seen_from_above(small, solid, _SHADOW if is_sure else _UNSURE_SHADOW):
        return False
    touching, darkest, brightest = _look_below(small, solid)
    if touching > _MIN_GROUND and darkest < _SEPARATE_SHADOW * touching:
        return False
    limit = _TOUCHING_SHADOW if base.roughness <= _MAX_ROUGHNESS else _TOUCHING_ROUGH_SHADOW
    return is_sure or touching < limit * brightest


def _is_stable(base: ProductBase) -> bool:
    """Return whether the outline alone shows that the product stands: on a smooth base, or on legs."""
    is_smooth = base.width >= _MIN_BASE and base.roughness <= _MAX_ROUGHNESS
    has_legs = base.feet >= _MIN_LEGS and base.has_narrow_feet and base.has_balanced_feet
    return has_legs or (is_smooth and base.is_balanced)


def _may_be_stable(base: ProductBase) -> bool:
    """Return whether the product stands if a shadow touches it from below."""
    is_wide = base.width >= _MIN_TOUCHED_BASE or base.feet > 1
    return is_wide and base.has_balanced_feet and base.roughness <= _MAX_TOUCHED_ROUGHNESS


def _look_below(photo: Pixels, solid: np.ndarray) -> tuple[float, float, float]:
    """Return how bright the photo is next to the base, and the darkest and brightest places farther below.

    What is beyond the lower edge of the photo does not count.
    """
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    tall, size = int(np.ptp(rows)) + 1, max(int(np.ptp(rows)), int(np.ptp(columns))) + 1
    bottoms = np.where(solid.any(axis=0), len(solid) - np.argmax(solid[::-1], axis=0), 0)
    base = np.flatnonzero(bottoms > rows[-1] + 1 - max(3.0, 0.04 * tall))
    depth = min(round(_BELOW * size), len(photo) - int(bottoms[base].max()))
    first, last = max(1, round(_TOUCHING[0] * size)), max(2, round(_TOUCHING[1] * size)) + 1
    if depth < last + 4:
        return 1.0, 1.0, 1.0
    below = bottoms[base] + np.arange(depth)[:, None]
    bright = np.median(luminance(photo)[below, np.broadcast_to(base, below.shape)], axis=1) + 2.0
    # Single rows have noise.
    bright = np.convolve(bright, np.full(3, 1 / 3), mode="valid")
    farther = bright[last:]
    return float(np.median(bright[first - 1 : last - 1])), float(farther.min()), float(farther.max())


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
    if abs(tip - np.nonzero(solid)[1].mean()) > _OFF_CENTER * wide:
        return False
    lightness = cv2.GaussianBlur(to_lab(photo[:top])[..., 0], (0, 0), 0.7)
    reach = max(3, round(_OFF_CENTER * wide / 2))
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


def has_even_background(photo: Pixels) -> bool:
    """Return whether the background is even enough to show a shadow."""
    # A quarter of the pixels is enough for six coefficients, and takes a quarter of the time.
    _, noise, plainness = fit_background(shrink(photo, 0.5))
    return plainness > _MIN_PLAINNESS and noise < _MAX_NOISE


def is_seen_from_above(photo: Pixels, solid: np.ndarray, shadow: float = _SHADOW) -> bool:
    """Return whether an even background has the product's shadow beside its upper half, or all around it.

    Args:
        shadow: Brightness of a shadow beside it, relative to the background farther away.
    """
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
    return min(shades, default=1.0) < shadow or (len(shades) == 3 and max(shades) < _FAINT_SHADOW)
