"""Image matting: refine a coarse mask to soft edges, and remove the background's colour from the rim.

A pixel of the rim is a mixture of the product's colour and the background's colour. Both are estimated from
nearby pixels; the pixel's position on the line between them is its opacity. Where the two colours are
similar, a guided filter (He et al., 2010) decides.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.colour import luminance, smoothstep
from studio.rendering.model import Floats, Pixels


def guided_filter(guide: Floats, mask: Floats, radius: int, epsilon: float) -> Floats:
    """Return the mask with its edges aligned to the guide's edges; guide and mask are 0..1."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean_guide, mean_mask = cv2.blur(guide, size), cv2.blur(mask, size)
    covariance = cv2.blur(guide * mask, size) - mean_guide * mean_mask
    variance = cv2.blur(guide * guide, size) - mean_guide * mean_guide
    slope = covariance / (variance + epsilon)
    offset = mean_mask - slope * mean_guide
    return np.clip(cv2.blur(slope, size) * guide + cv2.blur(offset, size), 0, 1)


def nearby_colour(pixels: Floats, where: Floats, radius: int) -> Floats:
    """Return for each pixel the mean colour of the nearest pixels marked by `where`.

    The search radius grows from `radius` to nine times that.
    """
    result = np.zeros_like(pixels)
    known = np.zeros(where.shape, dtype=np.float32)
    marked = pixels * where[..., None]
    for reach in (radius, radius * 3, radius * 9):
        small = max(1, reach // 6)
        size = (max(1, pixels.shape[1] // small), max(1, pixels.shape[0] // small))
        weight = cv2.resize(where, size, interpolation=cv2.INTER_AREA)
        colour = cv2.resize(marked, size, interpolation=cv2.INTER_AREA)
        sigma = max(0.8, reach / small / 2)
        weight = cv2.GaussianBlur(weight, (0, 0), sigma)
        colour = cv2.GaussianBlur(colour, (0, 0), sigma) / np.maximum(weight, 1e-4)[..., None]
        full = (pixels.shape[1], pixels.shape[0])
        coverage = cv2.resize(np.clip(weight * 40, 0, 1), full, interpolation=cv2.INTER_LINEAR)
        share = (coverage * (1 - known))[..., None]
        result += share * cv2.resize(colour, full, interpolation=cv2.INTER_LINEAR)
        known += coverage * (1 - known)
    rest = pixels[where > 0.5].mean(axis=0) if np.any(where > 0.5) else pixels.mean(axis=(0, 1))
    return result + (1 - known)[..., None] * rest.astype(np.float32)


def refine_mask(pixels: Pixels, mask: Floats, band: int) -> tuple[Pixels, Pixels]:
    """Return the product's pixels with a clean rim, and its opacity.

    Args:
        mask: The coarse mask, 0..1, of the size of `pixels`.
        band: Pixels farther than this from the mask's contour keep the mask's value.
    """
    inside = (mask > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    signed = depth / band
    image = pixels.astype(np.float32)
    front = nearby_colour(image, (signed > 0.9).astype(np.float32), band * 2)
    behind = nearby_colour(image, (signed < -0.9).astype(np.float32), band * 2)
    difference = front - behind
    length = np.einsum("ijk,ijk->ij", difference, difference)
    along = np.einsum("ijk,ijk->ij", image - behind, difference) / (length + 1.0)
    on_line = smoothstep(0.12, 0.88, along)
    guided = smoothstep(0.2, 0.8, guided_filter(luminance(image) / 255.0, mask, band + 1, 4e-4))
    confidence = smoothstep(20.0, 60.0, np.sqrt(length))
    alpha = confidence * on_line + (1 - confidence) * guided
    # A textured product has dark pixels of its own: the deeper inside, the less the colour counts.
    certain_inside, certain_outside = smoothstep(0.0, 0.85, signed), smoothstep(0.0, 0.85, -signed)
    alpha = np.maximum(alpha, certain_inside) * (1 - certain_outside)
    # Photos have no edges sharper than one pixel.
    alpha = cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), 0.7)
    clean = np.where((signed > 0.9)[..., None], image, image + (1 - alpha)[..., None] * difference)
    clean = np.where((signed < -0.9)[..., None], front, clean)
    return (
        np.clip(clean + 0.5, 0, 255).astype(np.uint8),
        np.clip(alpha * 255 + 0.5, 0, 255).astype(np.uint8),
    )
