"""Compute shadow and light maps on a small copy of the canvas.

Both are smooth, so they are computed at a small size and upscaled strip by strip.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import smoothstep
from studio.rendering.compose.framing import Pose
from studio.rendering.compose.variation import Variation
from studio.rendering.model import Floats, ShadowKind

SMALL_SIDE = 720
# Darkness of three gray levels on white, below which a shadow ends.
_FAINTEST = 3 / 255


def shadow_map(alpha: Floats, kind: ShadowKind, pose: Pose, light: Variation) -> Floats:
    """Return the darkness of the shadow per pixel, 0..1.

    Args:
        alpha: Opacity of the product on the small canvas, 0..1.
    """
    no_shadow = np.zeros_like(alpha)
    rows = np.flatnonzero((alpha > 0.5).any(axis=1))
    if kind == "NONE" or not len(rows):
        return no_shadow
    side = float(max(alpha.shape))
    soft = kind == "SOFT"
    if pose == "standing":
        dark = _contact(alpha, light)
        if soft:
            dark = 1 - (1 - dark) * (1 - _cast(alpha, side, light))
    elif pose == "lying":
        near = _drop_shadow(alpha, side, light, 0.0045, 0.005) * 0.42
        far = _drop_shadow(alpha, side, light, 0.022, 0.020) * 0.26
        dark = near if not soft else 1 - (1 - near) * (1 - far)
    elif pose in ("framed", "extended"):
        # The photo itself has no surface to cast a shadow on.
        return no_shadow
    else:
        # The product does not touch the ground; only the wall behind it receives a wide shadow.
        far = _drop_shadow(alpha, side, light, 0.030, 0.038) * 0.20
        near = _drop_shadow(alpha, side, light, 0.010, 0.014) * 0.12
        dark = far if soft and pose == "bleeding" else (1 - (1 - far) * (1 - near) if soft else near)
    # Without the faintest part, which the eye does not see, white paper beyond the shadow stays exactly 255.
    dark = (dark * light.strength - _FAINTEST) / (1 - _FAINTEST)
    return np.clip(dark, 0, 0.92).astype(np.float32)


def _drop_shadow(alpha: Floats, side: float, light: Variation, distance: float, blur: float) -> Floats:
    """Return the silhouette on a surface close behind, shifted away from the light."""
    reach = distance * side * (0.6 + 0.8 * min(1.0, light.shadow_length))
    shift_x = -light.light_x * reach
    shift_y = reach * (0.55 + 0.25 * max(0.0, light.light_back))
    matrix = np.array([[1, 0, shift_x], [0, 1, shift_y]])
    moved = cv2.warpAffine(alpha, matrix, alpha.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    sigma = max(0.8, blur * side * (1.25 - 0.6 * light.hardness))
    return cv2.GaussianBlur(moved, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _base(alpha: Floats) -> tuple[int, int, float, float]:
    """Return the top and the lowest row of the product, and the left and right end of its base."""
    solid = alpha > 0.5
    rows = np.flatnonzero(solid.any(axis=1))
    top, lowest = int(rows[0]), int(rows[-1])
    foot = solid[max(top, lowest - max(2, (lowest - top) // 14)) : lowest + 1].any(axis=0)
    columns = np.flatnonzero(foot)
    return top, lowest, float(columns[0]), float(columns[-1])


def _sag(alpha: Floats, top: int, lowest: int) -> float:
    """Return how far the base curves down between its ends: half of a round base's visible depth."""
    solid = alpha > 0.5
    bottoms = solid.shape[0] - 1 - np.argmax(solid[::-1], axis=0)
    columns = np.flatnonzero(solid.any(axis=0) & (bottoms > lowest - 0.22 * (lowest - top)))
    if len(columns) < 10:
        return 0.0
    inset = max(1, len(columns) // 25)
    ends = (bottoms[columns[inset]] + bottoms[columns[-1 - inset]]) / 2
    return float(np.clip(lowest - ends, 0, 0.16 * len(columns)))


def _contact(alpha: Floats, light: Variation) -> Floats:
    """Return the contact shadow: dark and narrow where the base touches the ground, fading around it."""
    top, lowest, left, right = _base(alpha)
    tall = max(4, lowest - top)
    rows = np.arange(alpha.shape[0], dtype=np.float32)[:, None]
    zone = alpha * smoothstep(lowest - 0.16 * tall, lowest - 0.02 * tall, rows)
    width = max(4.0, right - left)
    dark = np.zeros_like(alpha)
    for size, share, drop in ((0.009, 0.88, 0.55), (0.032, 0.50, 0.60), (0.090, 0.30, 0.40)):
        sigma_y = max(0.7, size * width * 0.42)
        sigma_x = max(0.9, size * width * 0.95)
        shift = np.array([[1, 0, -light.light_x * size * width * 0.5], [0, 1, drop * sigma_y * 1.6]])
        moved = cv2.warpAffine(zone, shift, alpha.shape[::-1])
        spread = cv2.GaussianBlur(moved, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
        dark = 1 - (1 - dark) * (1 - share * spread)
    return dark.astype(np.float32)


def _cast(alpha: Floats, side: float, light: Variation) -> Floats:
    """Return the cast shadow: the silhouette on the ground, softer and lighter far from the base."""
    top, lowest, left, right = _base(alpha)
    tall = max(4.0, float(lowest - top))
    # Seen from slightly above, the middle of the base is higher in the image than its front.
    ground = lowest - max(0.035 * (right - left), 0.85 * _sag(alpha, top, lowest))
    # A very flat shadow would look detached from the product, so it keeps a minimum depth.
    depth = float(np.clip(abs(light.light_back) * 0.38 * (0.5 + light.shadow_length), 0.17, 0.34))
    flat = -0.8 * depth if light.light_back > 0.15 else depth
    lean = float(np.clip(-light.light_x * light.shadow_length * 0.9, -1.7 * depth, 1.7 * depth))
    matrix = np.array([[1, -lean, lean * ground], [0, flat, ground - flat * ground]])
    # Smoothed first, because flattening skips rows of the silhouette.
    smooth = cv2.GaussianBlur(alpha, (0, 0), sigmaX=0.8, sigmaY=0.35 / abs(flat))
    flattened = cv2.warpAffine(smooth, matrix, alpha.shape[::-1])
    rows = np.arange(alpha.shape[0], dtype=np.float32)[:, None]
    # Height above the ground of the part that casts the shadow on each row.
    height = np.clip((ground - rows) / (flat * tall), 0, 1.2)
    dark = np.zeros_like(alpha)
    levels = (0.0, 0.25, 0.6, 1.2)
    for index, level in enumerate(levels):
        sigma = side * (0.006 + 0.052 * level * (1.15 - 0.75 * light.hardness))
        blurred = cv2.GaussianBlur(flattened, (0, 0), sigmaX=sigma, sigmaY=max(0.8, sigma * 0.55))
        below = levels[index - 1] if index else -1.0
        above = levels[index + 1] if index + 1 < len(levels) else 9.0
        rise = np.clip((height - below) / (level - below), 0, 1)
        share = np.minimum(rise, np.clip((above - height) / (above - level), 0, 1))
        dark += share * blurred
    strength = (0.32 + 0.10 * light.hardness) * (1 - 0.75 * np.clip(height, 0, 1))
    return cv2.GaussianBlur(dark * strength, (0, 0), max(0.8, 0.003 * side)).astype(np.float32)


def light_map(alpha: Floats, light: Variation) -> Floats:
    """Return factors around 1 that shade the product as lit from the light's side, without brightening it."""
    height, width = alpha.shape
    rows = np.flatnonzero((alpha > 0.5).any(axis=1))
    if not len(rows):
        return np.ones_like(alpha)
    columns = np.flatnonzero((alpha > 0.5).any(axis=0))
    size = float(max(columns[-1] - columns[0], rows[-1] - rows[0], 8))
    relief = cv2.GaussianBlur(alpha, (0, 0), size * 0.07)
    slope_x = cv2.Sobel(relief, cv2.CV_32F, 1, 0) * size * 0.035
    slope_y = cv2.Sobel(relief, cv2.CV_32F, 0, 1) * size * 0.035
    # The relief rises inwards, so a positive slope faces left.
    facing = -slope_x * light.light_x - slope_y * -0.55
    x = (np.arange(width, dtype=np.float32)[None, :] - columns.mean()) / (size / 2)
    y = (np.arange(height, dtype=np.float32)[:, None] - rows.mean()) / (size / 2)
    ramp = np.clip(x, -1.2, 1.2) * light.light_x * 0.055 - np.clip(y, -1.2, 1.2) * 0.03
    amount = 0.60 + 0.75 * light.hardness
    factor = 1 + amount * (ramp + 0.10 * np.clip(facing, -1, 1))
    return np.clip(factor, 0.76, 1.18).astype(np.float32)


def room_light(alpha: Floats, light: Variation) -> Floats:
    """Return factors for a framed crop, which has light of its own: slightly darker away from the lamp."""
    across = np.linspace(-1, 1, alpha.shape[1], dtype=np.float32)[None, :]
    # At most 1: white areas of the photo would clip.
    ramp = 1 - 0.035 * (1 - light.light_x * across)
    return (ramp * np.ones_like(alpha)).astype(np.float32)


def upscale(small: Floats, width: int, height: int, first: int, last: int) -> Floats:
    """Return rows first..last (exclusive) of the small map, upscaled to the canvas."""
    across, down = small.shape[1] / width, small.shape[0] / height
    matrix = np.array([[across, 0, 0.5 * across - 0.5], [0, down, (first + 0.5) * down - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(small, matrix, (width, last - first), flags=flags, borderMode=cv2.BORDER_REPLICATE)
