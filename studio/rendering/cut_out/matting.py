"""Image matting: refine a coarse mask to soft edges, and remove the background's color from the rim.

A pixel of the rim is a mixture of the product's color and the background's color. Both are estimated from
nearby pixels; the pixel's position on the line between them is its opacity. Where the two colors are
similar, a guided filter (He et al., 2010) decides.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import luminance, smoothstep
from studio.rendering.model import Floats, Pixels

_STRIP_ROWS = 256
# A mask with a wider band comes from a photo with so many pixels that half of them show its colors.
_MIN_HALVED_BAND = 6


def guided_filter(guide: Floats, mask: Floats, radius: int, epsilon: float) -> Floats:
    """Return the mask with its edges aligned to the guide's edges; guide and mask are 0..1."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean_guide, mean_mask = cv2.blur(guide, size), cv2.blur(mask, size)
    covariance = cv2.blur(guide * mask, size) - mean_guide * mean_mask
    variance = cv2.blur(guide * guide, size) - mean_guide * mean_guide
    slope = covariance / (variance + epsilon)
    offset = mean_mask - slope * mean_guide
    return np.clip(cv2.blur(slope, size) * guide + cv2.blur(offset, size), 0, 1)


def nearby_color(pixels: Floats, where: Floats, radius: int) -> Floats:
    """Return for each pixel the mean color of the nearest pixels marked by `where`.

    The search radius grows from `radius` to nine times that.
    """
    result = np.zeros_like(pixels)
    known = np.zeros(where.shape, dtype=np.float32)
    marked = pixels * where[..., None]
    for reach in (radius, radius * 3, radius * 9):
        small = max(1, reach // 6)
        size = (max(1, pixels.shape[1] // small), max(1, pixels.shape[0] // small))
        weight = cv2.resize(where, size, interpolation=cv2.INTER_AREA)
        color = cv2.resize(marked, size, interpolation=cv2.INTER_AREA)
        sigma = max(0.8, reach / small / 2)
        weight = cv2.GaussianBlur(weight, (0, 0), sigma)
        color = cv2.GaussianBlur(color, (0, 0), sigma) / np.maximum(weight, 1e-4)[..., None]
        full = (pixels.shape[1], pixels.shape[0])
        coverage = cv2.resize(np.clip(weight * 40, 0, 1), full, interpolation=cv2.INTER_LINEAR)
        share = (coverage * (1 - known))[..., None]
        result += share * cv2.resize(color, full, interpolation=cv2.INTER_LINEAR)
        known += coverage * (1 - known)
    rest = pixels[where > 0.5].mean(axis=0) if np.any(where > 0.5) else pixels.mean(axis=(0, 1))
    return result + (1 - known)[..., None] * rest.astype(np.float32)


def refine_mask(pixels: Pixels, mask: Floats, band: int) -> tuple[Pixels, Pixels]:
    """Return the product's pixels with a clean rim, and its opacity.

    Works in strips: a photo of 9 megapixels needs 0.3 GB less than in one piece.

    Args:
        mask: The coarse mask, 0..1, of the size of `pixels`.
        band: Pixels farther than this from the mask's contour keep the mask's value.
    """
    inside = (mask > 0.5).astype(np.uint8)
    signed = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    signed -= cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    signed /= band
    colors = _estimate_colors(pixels, signed, band)
    alpha = np.empty(mask.shape, dtype=np.float32)
    for first, last in _list_strips(len(mask)):
        front, behind = (_upscale_rows(color, mask.shape, first, last) for color in colors)
        guided = _guide_rows(pixels, mask, band, first, last)
        alpha[first:last] = _find_opacity(pixels[first:last], signed[first:last], front, behind, guided)
    # Photos have no edges sharper than one pixel.
    alpha = cv2.GaussianBlur(alpha, (0, 0), 0.7)
    clean = np.empty_like(pixels)
    for first, last in _list_strips(len(mask)):
        front, behind = (_upscale_rows(color, mask.shape, first, last) for color in colors)
        image, depth = pixels[first:last].astype(np.float32), signed[first:last, :, None]
        mended = image + (1 - alpha[first:last, :, None]) * (front - behind)
        rows = np.where(depth > 0.9, image, np.where(depth < -0.9, front, mended))
        clean[first:last] = np.clip(rows + 0.5, 0, 255).astype(np.uint8)
    return clean, np.clip(alpha * 255 + 0.5, 0, 255).astype(np.uint8)


def _list_strips(height: int) -> list[tuple[int, int]]:
    """Return the first and the last row (exclusive) of each strip."""
    return [(first, min(height, first + _STRIP_ROWS)) for first in range(0, height, _STRIP_ROWS)]


def _estimate_colors(pixels: Pixels, signed: Floats, band: int) -> tuple[Floats, Floats]:
    """Return the colors of the product and of the background near each pixel.

    They vary slowly: those of a large photo are estimated on a copy of half the size.
    """
    step = 2 if band >= _MIN_HALVED_BAND else 1
    size = (max(1, pixels.shape[1] // step), max(1, pixels.shape[0] // step))
    image = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    depth = cv2.resize(signed, size, interpolation=cv2.INTER_AREA)
    front = nearby_color(image, (depth > 0.9).astype(np.float32), band * 2 // step)
    return front, nearby_color(image, (depth < -0.9).astype(np.float32), band * 2 // step)


def _upscale_rows(small: Floats, shape: tuple[int, ...], first: int, last: int) -> Floats:
    """Return rows of a map that was computed on a smaller copy."""
    if small.shape[:2] == shape[:2]:
        return small[first:last]
    across, down = small.shape[1] / shape[1], small.shape[0] / shape[0]
    matrix = np.array([[across, 0, 0.5 * across - 0.5], [0, down, (first + 0.5) * down - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (shape[1], last - first)
    return cv2.warpAffine(small, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _guide_rows(pixels: Pixels, mask: Floats, band: int, first: int, last: int) -> Floats:
    """Return rows of the mask, aligned to the edges of the photo."""
    # The filter blurs twice, so it reads twice its radius beyond the rows.
    begin, end = max(0, first - 2 * (band + 1)), min(len(mask), last + 2 * (band + 1))
    guided = guided_filter(luminance(pixels[begin:end]) / 255.0, mask[begin:end], band + 1, 4e-4)
    return smoothstep(0.2, 0.8, guided[first - begin : last - begin])


def _find_opacity(pixels: Pixels, signed: Floats, front: Floats, behind: Floats, guided: Floats) -> Floats:
    """Return the position of each pixel on the line from the background's color to the product's."""
    difference = front - behind
    length = np.einsum("ijk,ijk->ij", difference, difference)
    along = np.einsum("ijk,ijk->ij", pixels.astype(np.float32) - behind, difference) / (length + 1.0)
    on_line = smoothstep(0.12, 0.88, along)
    confidence = smoothstep(20.0, 60.0, np.sqrt(length))
    alpha = confidence * on_line + (1 - confidence) * guided
    # A textured product has dark pixels of its own: the deeper inside, the less the color counts.
    certain_inside, certain_outside = smoothstep(0.0, 0.85, signed), smoothstep(0.0, 0.85, -signed)
    return np.maximum(alpha, certain_inside) * (1 - certain_outside)
