"""Paint background presets strip by strip: solid color, gradient, studio sweep or image.

A strip is a band of full-width rows, so that large canvases need no more memory than small ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from studio.rendering.color import linear_to_srgb, parse_color, smoothstep, srgb_to_linear, to_srgb
from studio.rendering.compose.variation import Variation
from studio.rendering.model import Background, Floats

Surface = Literal["sweep", "table", "wall"]
# The blur of an image behind the product, as a share of the canvas's longer side; and its size in pixels of
# the image from which on a smaller copy of the image gives the same blur.
_IMAGE_BLUR, _MAX_BLUR_PIXELS = 0.0035, 4.0

StripPainter = Callable[[int, int], Floats]
"""Takes the first and the last row (exclusive); returns rows x width x 3, 0..255."""


def build_painter(
    background: Background, width: int, height: int, variation: Variation, surface: Surface
) -> StripPainter:
    """Return a function that paints strips of the background.

    Args:
        surface: What the paper is behind the product. A table or a wall has no horizon; a sweep has one.
    """
    if background.kind == "IMAGE" and background.image is not None:
        return _image(background.image, width, height, variation)
    if background.kind == "GRADIENT":
        return _gradient(background, width, height, variation)
    if background.kind == "SWEEP" or (background.kind == "IMAGE" and background.image is None):
        return _sweep(background, width, height, variation, surface)
    color = parse_color(background.color)
    return lambda first, last: np.broadcast_to(color, (last - first, width, 3)).astype(np.float32)


def _axes(width: int, height: int, first: int, last: int) -> tuple[Floats, Floats]:
    """Return the columns (-1..1) and rows (0..1) of a strip, shaped to broadcast."""
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    rows = ((np.arange(first, last, dtype=np.float32) + 0.5) / height)[:, None]
    return columns, rows


def _gradient(background: Background, width: int, height: int, variation: Variation) -> StripPainter:
    start = srgb_to_linear(parse_color(background.color))
    end = srgb_to_linear(parse_color(background.color_end, _tint(background.color, 0.72)))
    tilt = 0.16 * variation.light_x

    def strip(first: int, last: int) -> Floats:
        columns, rows = _axes(width, height, first, last)
        share = smoothstep(-0.05, 1.05, rows + tilt * columns)[..., None]
        # Interpolated in cube roots of light, which are nearly uniform to the eye.
        mixed = np.cbrt(start) * (1 - share) + np.cbrt(end) * share
        return linear_to_srgb(mixed**3)

    return strip


def _tint(color: str, factor: float) -> str:
    values = np.clip(linear_to_srgb(srgb_to_linear(parse_color(color)) * factor), 0, 255).astype(int)
    return "#" + "".join(f"{value:02X}" for value in values)


def _sweep(
    background: Background, width: int, height: int, variation: Variation, surface: Surface
) -> StripPainter:
    wall = srgb_to_linear(parse_color(background.color))
    floor = srgb_to_linear(parse_color(background.color_end, background.color))
    horizon = 0.66 + variation.horizon
    glow_x, glow_y = 0.42 * variation.light_x, 0.40 - 0.10 * variation.light_back
    fall = 0.16 + 0.16 * variation.hardness
    shape = max(width, height) / height
    # Paper cannot get brighter than its own color: a brighter lamp only reduces the falloff.
    fall *= 1.8 - 0.8 * variation.intensity
    level = min(1.0, 0.4 + 0.6 * variation.intensity)

    def strip(first: int, last: int) -> Floats:
        columns, rows = _axes(width, height, first, last)
        across = columns * (width / max(width, height))
        pool = np.exp(-(((across - glow_x) / 0.95) ** 2 + ((rows - glow_y) / (0.72 * shape)) ** 2))
        side = level * (1 + 0.085 * variation.light_x * columns)
        if surface != "sweep":
            light = (1 - fall * 0.8) + fall * 0.8 * pool
            return linear_to_srgb((wall if surface == "wall" else floor) * (light * side)[..., None])
        bend = smoothstep(horizon - 0.10, horizon + 0.13, rows + 0 * columns)
        # The bend from the wall to the floor first faces away from the lamp, then towards it.
        crease = np.exp(-(((rows - horizon) / 0.085) ** 2))
        near = smoothstep(horizon, 1.05, rows)
        light = (1 - fall) + fall * pool - 0.055 * crease + bend * (0.05 - 0.07 * near)
        color = wall + bend[..., None] * (floor - wall)
        return linear_to_srgb(color * (light * side)[..., None])

    return strip


def get_image_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height, in pixels, of a background image that are enough for a canvas."""
    share = 1.04 * _MAX_BLUR_PIXELS / _IMAGE_BLUR / max(width, height)
    return math.ceil(share * width), math.ceil(share * height)


def _image(image: Image.Image, width: int, height: int, variation: Variation) -> StripPainter:
    pixels, _ = to_srgb(image)
    across, down = pixels.shape[1], pixels.shape[0]
    scale = max(width / across, height / down) * 1.04
    share = _MAX_BLUR_PIXELS * scale / (_IMAGE_BLUR * max(width, height))
    if share < 1:
        # The cost would grow with the image, or with the canvas, instead of with what can be seen.
        size = (max(1, round(across * share)), max(1, round(down * share)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        across, down = size
        scale = max(width / across, height / down) * 1.04
    crop_x, crop_y = across - width / scale, down - height / scale
    left = crop_x / 2 * (1 + np.clip(12 * variation.shift_x, -0.9, 0.9))
    top = crop_y / 2
    # A background is out of focus.
    pixels = cv2.GaussianBlur(pixels, (0, 0), max(0.6, _IMAGE_BLUR * max(width, height) / scale))

    def strip(first: int, last: int) -> Floats:
        matrix = np.array(
            [[1 / scale, 0, left + 0.5 / scale - 0.5], [0, 1 / scale, top + (first + 0.5) / scale - 0.5]]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (width, last - first)
        part = cv2.warpAffine(pixels, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return part.astype(np.float32)

    return strip
