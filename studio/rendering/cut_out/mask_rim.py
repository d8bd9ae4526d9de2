"""Remove the background from the rim of a mask, where the photo clearly shows it.

A network draws an outline a few of its pixels too far outside: a ball before a dark wall gets a dark rim. The
colors next to the outline decide where the background is even and they differ much more than they vary. A
pixel must be one of the two colors, or a mixture of both. Nothing is added to the mask: what looks like the
product beyond its outline is often something else, such as a joint in the table below it. Before a texture,
a thin part of the product may look like the background, so nothing is removed there.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import smoothstep, to_lab
from studio.rendering.model import Box, Floats, Pixels

_SIDE = 640
# Pixels of the copy on each side of the outline whose colors are not certain.
_REACH = 10
# Difference of the two colors, relative to how much they vary, from which they begin to decide and decide.
_MIN_SEPARATION, _FULL_SEPARATION = 3.0, 5.0
# Noise of photos (CIE76) that is added to the variation, and to the distance from a mixture of the colors.
_NOISE, _MIXTURE_NOISE = 4.0, 8.0
# Variation of the background (CIE76) up to which it is even, and from which it is a texture.
_EVEN, _TEXTURE = 3.0, 5.0


def trim_rim(pixels: Pixels, values: Floats, box: Box) -> tuple[Floats, float]:
    """Return the mask without the background on its rim, and how much larger the new mask is.

    Args:
        values: The mask, 0..1: a small copy of the area `box` of the photo.
    """
    part = pixels[box[1] : box[3], box[0] : box[2]]
    factor = min(1.0, _SIDE / max(part.shape[:2]))
    size = max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    mask = np.clip(cv2.resize(values, size, interpolation=cv2.INTER_CUBIC), 0, 1).astype(np.float32)
    solid = (mask > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(solid, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - solid, cv2.DIST_L2, 5)
    excess = _find_excess(cv2.GaussianBlur(to_lab(small), (0, 0), 0.7), mask, depth)
    if not excess.any():
        return values, 1.0
    return np.clip(mask - excess, 0, 1).astype(np.float32), max(mask.shape) / max(values.shape)


def _find_excess(colors: Floats, mask: Floats, depth: Floats) -> Floats:
    """Return how much too high the mask is, per pixel."""
    front, front_variance, has_front = _average_near(colors, depth > _REACH)
    behind, behind_variance, has_behind = _average_near(colors, depth < -_REACH)
    difference = front - behind
    squared = _dot(difference, difference)
    deviation = sum(
        np.sqrt(_dot(variance, difference * difference) / (squared + 1e-3))
        for variance in (front_variance, behind_variance)
    )
    weight = smoothstep(_MIN_SEPARATION, _FULL_SEPARATION, np.sqrt(squared) / (deviation + _NOISE))
    # Thin parts have no inside of which the color is known.
    weight = weight * np.minimum(has_front, has_behind)
    weight *= 1 - smoothstep(_EVEN, _TEXTURE, np.sqrt(behind_variance.sum(axis=2)))
    weight *= 1 - smoothstep(0.7 * _REACH, 1.2 * _REACH, np.abs(depth))
    along = _dot(colors - behind, difference) / (squared + 1)
    share = np.clip(along, 0, 1)
    distance = np.linalg.norm(colors - behind - share[..., None] * difference, axis=2)
    variance = share**2 * front_variance.sum(axis=2) + (1 - share) ** 2 * behind_variance.sum(axis=2)
    weight *= 1 - smoothstep(0.7, 1.3, distance / (2 * np.sqrt(variance) + _MIXTURE_NOISE))
    excess = weight * np.maximum(mask - smoothstep(0.15, 0.85, along), 0)
    return cv2.GaussianBlur(excess.astype(np.float32), (0, 0), 1.0)


def _dot(first: Floats, second: Floats) -> Floats:
    return np.einsum("ijk,ijk->ij", first, second)


def _average_near(colors: Floats, where: np.ndarray) -> tuple[Floats, Floats, Floats]:
    """Return for each pixel the mean and variance of the marked pixels near it, and whether there are any.

    They vary slowly, so they are computed on a smaller copy.
    """
    marked = where.astype(np.float32)
    step = max(1, _REACH // 3)
    size = (max(1, where.shape[1] // step), max(1, where.shape[0] // step))

    def blur(values: Floats) -> Floats:
        small = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(small, (0, 0), _REACH / step).astype(np.float32)

    weight = blur(marked)
    divisor = np.maximum(weight, 1e-4)[..., None]
    mean = blur(colors * marked[..., None]) / divisor
    variance = np.maximum(blur(colors * colors * marked[..., None]) / divisor - mean * mean, 0)
    full = (where.shape[1], where.shape[0])
    enlarged = (cv2.resize(values, full) for values in (mean, variance, np.clip(20 * weight, 0, 1)))
    mean, variance, known = enlarged
    return mean, variance, known
