"""Retouch a finished image instead of rendering a product: upscale it (`refine`) or grade it (`adjust`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from studio.catalog.marketplaces import find_rules
from studio.media.inspection import open_stored
from studio.rendering.color import to_srgb
from studio.rendering.compose import grading
from studio.rendering.compose.compliance import measure_compliance
from studio.rendering.compose.encode import encode
from studio.rendering.compose.quality import score
from studio.rendering.model import (
    MAX_SHARP_ENLARGEMENT,
    RENDERER_VERSION,
    CutOut,
    FileFormat,
    Framing,
    Grade,
    Pixels,
    Progress,
    Quality,
    Rendering,
)

_STRIP_ROWS = 256
_SCORED_SIDE = 1_024


def downscale(source: Image.Image) -> Image.Image:
    """Return a copy of at most 1,024 pixels a side, large enough to cut the product out of it."""
    small = source.convert("RGB")
    small.thumbnail((_SCORED_SIDE, _SCORED_SIDE), Image.Resampling.LANCZOS)
    return small


def refine(
    image: bytes | Image.Image,
    scale_factor: float = 2.0,
    width: int | None = None,
    height: int | None = None,
    file_format: FileFormat = "JPEG",
    quality: int = 92,
    progress: Progress | None = None,
    strength: float = 1.0,
    cut_out: CutOut | None = None,
    framing: Framing = "DETAIL",
    marketplace: str | None = None,
) -> Rendering:
    """Return the image resized by `scale_factor` or to an exact size, with sharp edges and texture.

    An exact size with another aspect ratio crops around the center.

    Args:
        strength: Amount of sharpening, 0..1.
        cut_out: The product in a `downscale` copy, on which the quality is measured; the whole image if None.

    Raises:
        ValueError: The resulting width or height is below one pixel.
    """
    report_progress = progress or (lambda share: None)
    pixels = load_pixels(image)
    across = width or round(pixels.shape[1] * scale_factor)
    down = height or round(pixels.shape[0] * scale_factor)
    if across < 1 or down < 1:
        raise ValueError("width and height must be at least 1 pixel")
    factor = max(across / pixels.shape[1], down / pixels.shape[0])
    pixels = _crop_middle(pixels, round(across / factor), round(down / factor))
    # Noise is removed before the enlargement; the bilateral filter preserves edges.
    denoised = cv2.bilateralFilter(pixels, 5, 9, 2.0) if factor > 1.05 else pixels
    report_progress(0.25)
    if factor < 1:
        larger = cv2.resize(denoised, (across, down), interpolation=cv2.INTER_AREA)
    else:
        larger = np.asarray(Image.fromarray(denoised).resize((across, down), Image.Resampling.LANCZOS))
    report_progress(0.55)
    larger = _sharpen_bounded(larger.astype(np.uint8), factor, strength)
    report_progress(0.75)
    facts = {"scale_factor": round(factor, 4), "strength": strength}
    finished = _finish(larger, file_format, quality, facts, report_progress, cut_out, framing, marketplace)
    return replace(finished, warnings=("enlarged",) if factor > MAX_SHARP_ENLARGEMENT else ())


def _crop_middle(pixels: Pixels, across: int, down: int) -> Pixels:
    left, top = max(0, (pixels.shape[1] - across) // 2), max(0, (pixels.shape[0] - down) // 2)
    return np.ascontiguousarray(pixels[top : top + max(1, down), left : left + max(1, across)])


def _sharpen(pixels: Pixels, amount: float) -> Pixels:
    """Return the pixels with part of the sharpness restored that enlargement removed."""
    soft = cv2.GaussianBlur(pixels, (0, 0), 1.4)
    return cv2.addWeighted(pixels, 1 + 0.7 * amount, soft, -0.7 * amount, 0).astype(np.uint8)


def _sharpen_bounded(larger: Pixels, factor: float, strength: float) -> Pixels:
    """Return the sharpened pixels, limited to the range of their neighborhood to prevent halos."""
    if factor <= 1:
        return larger
    radius = max(1, round(factor))
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    result = np.empty_like(larger)
    height = larger.shape[0]
    for first in range(0, height, 1024):
        last = min(height, first + 1024)
        begin, end = max(0, first - 16 - radius), min(height, last + 16 + radius)
        part = larger[begin:end]
        sharp = _sharpen(_sharpen(part, 0.7 * strength), 0.5 * strength * min(1.0, factor - 1))
        sharp = np.clip(sharp, cv2.erode(part, kernel), cv2.dilate(part, kernel))
        result[first:last] = sharp[first - begin : last - begin]
    return result


def adjust(
    image: bytes | Image.Image,
    grade: Grade,
    width: int | None = None,
    height: int | None = None,
    file_format: FileFormat = "JPEG",
    quality: int = 92,
    progress: Progress | None = None,
    strength: float = 1.0,
    cut_out: CutOut | None = None,
    framing: Framing = "DETAIL",
    marketplace: str | None = None,
) -> Rendering:
    """Return the graded image, in its own size unless another one is given.

    Args:
        strength: Strength of the grade, 0..1.
        cut_out: The product in a `downscale` copy, on which the quality is measured; the whole image if None.
    """
    report_progress = progress or (lambda share: None)
    pixels = load_pixels(image)
    size = (width or pixels.shape[1], height or pixels.shape[0])
    if size != (pixels.shape[1], pixels.shape[0]):
        method = cv2.INTER_AREA if size[0] < pixels.shape[1] else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels, size, interpolation=method).astype(np.uint8)
    curve = grading.compile_grade(grade, strength)
    result = np.empty_like(pixels)
    rows = np.linspace(-1, 1, pixels.shape[0], dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, pixels.shape[1], dtype=np.float32)[None, :]
    for first in range(0, pixels.shape[0], _STRIP_ROWS):
        last = min(pixels.shape[0], first + _STRIP_ROWS)
        strip = grading.apply_grade(curve, pixels[first:last].astype(np.float32))
        strip = strip * _lamp(grade.lighting, strength, across, rows[first:last])[..., None]
        result[first:last] = np.clip(strip + 0.5, 0, 255).astype(np.uint8)
        report_progress(0.7 * last / pixels.shape[0])
    facts = {"strength": strength}
    return _finish(result, file_format, quality, facts, report_progress, cut_out, framing, marketplace)


def _lamp(lighting: str | None, strength: float, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return factors for a soft falloff of light from the requested side, at most 1 so that nothing clips."""
    requested = (lighting or "").lower()
    amount = (0.16 if "hard" in requested else 0.10) * strength
    if "left" in requested:
        return 1 - amount * (across + 1) / 2 + 0 * down
    if "right" in requested:
        return 1 - amount * (1 - across) / 2 + 0 * down
    if "top" in requested:
        return 1 - amount * (down + 1) / 2 + 0 * across
    return np.ones((len(down), across.shape[1]), dtype=np.float32)


def load_pixels(image: bytes | Image.Image) -> Pixels:
    """Return the sRGB pixels of an image, over white where it is transparent."""
    opened = open_stored(image) if isinstance(image, bytes) else image
    pixels, alpha = to_srgb(opened)
    if alpha is None:
        return pixels
    share = alpha[..., None].astype(np.float32) / 255.0
    return (pixels * share + 255.0 * (1 - share) + 0.5).astype(np.uint8)


def _finish(
    pixels: Pixels,
    file_format: FileFormat,
    quality: int,
    facts: dict[str, Any],
    report_progress: Progress,
    cut_out: CutOut | None,
    framing: Framing,
    marketplace: str | None,
) -> Rendering:
    """Score the image on its product, or as a whole if there is no cut-out, encode it and check its rules."""
    measured = _score_whole(pixels) if cut_out is None else _score_product(pixels, cut_out, framing)
    data, content_type = encode(pixels, file_format, quality)
    report_progress(1.0)
    provenance = {"renderer_version": RENDERER_VERSION, **facts}
    size = (pixels.shape[1], pixels.shape[0])
    rules = find_rules(marketplace)
    compliance = []
    if rules is not None:
        product = _find_product(size, cut_out)
        compliance = measure_compliance(data, product, cut_out is None or not cut_out.is_trusted, rules)
    return Rendering(data, content_type, *size, measured, provenance, compliance)


def _find_product(size: tuple[int, int], cut_out: CutOut | None) -> Pixels:
    """Return the opacity of the product on the canvas; without a cut-out all of it is the product."""
    if cut_out is None:
        return np.full(size[::-1], 255, dtype=np.uint8)
    return cv2.resize(_place_alpha(cut_out), size, interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _place_alpha(cut_out: CutOut) -> Pixels:
    """Return the opacity of the product in its whole photo."""
    left, top, right, bottom = cut_out.box
    alpha = np.zeros(cut_out.photo.shape[:2], dtype=np.uint8)
    alpha[top:bottom, left:right] = cut_out.alpha
    return alpha


def _score_whole(pixels: Pixels) -> Quality:
    opaque = np.full(pixels.shape[:2], 255, dtype=np.uint8)
    return score(pixels, opaque, "DETAIL", bleeds=frozenset(("left", "right", "top", "bottom")))


def _score_product(pixels: Pixels, cut_out: CutOut, framing: Framing) -> Quality:
    height, width = cut_out.photo.shape[:2]
    alpha = _place_alpha(cut_out)
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    edge = cut_out.confidence if cut_out.is_trusted and not cut_out.is_extended else 0.5
    return score(small, alpha, framing, edge, bleeds=cut_out.touches)
