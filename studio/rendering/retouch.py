"""Works on a finished picture instead of a product: enlarges it, changes its background, or grades it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from studio.rendering import grading
from studio.rendering.colour import to_srgb
from studio.rendering.cut_out import prepare
from studio.rendering.encode import encode
from studio.rendering.model import (
    RENDERER_VERSION,
    CutOut,
    FileFormat,
    Grade,
    Pixels,
    Progress,
    Rendering,
    RenderRequest,
)
from studio.rendering.quality import score
from studio.rendering.render import crisper, render

_STRIP_ROWS = 256


def refine(
    image: bytes | Image.Image,
    scale_factor: float = 2.0,
    width: int | None = None,
    height: int | None = None,
    file_format: FileFormat = "JPEG",
    quality: int = 92,
    progress: Progress | None = None,
) -> Rendering:
    """The picture enlarged with its edges and texture kept crisp, to `scale_factor` or to an exact size.

    Raises ValueError where that is no picture.
    """
    tell = progress or (lambda share: None)
    pixels = _pixels(image)
    across = width or round(pixels.shape[1] * scale_factor)
    down = height or round(pixels.shape[0] * scale_factor)
    if across < 1 or down < 1:
        raise ValueError("A picture has at least one pixel in each direction.")
    factor = max(across / pixels.shape[1], down / pixels.shape[0])
    # Noise is taken out before it is enlarged; what is sharp stays, because the filter knows edges.
    calm = cv2.bilateralFilter(pixels, 5, 9, 2.0) if factor > 1.05 else pixels
    tell(0.25)
    if factor < 1:
        larger = cv2.resize(calm, (across, down), interpolation=cv2.INTER_AREA)
    else:
        larger = np.asarray(Image.fromarray(calm).resize((across, down), Image.Resampling.LANCZOS))
    tell(0.55)
    larger = _bounded_sharpening(larger.astype(np.uint8), calm, factor)
    tell(0.75)
    facts = {"strategy": "refine", "scale_factor": round(factor, 4)}
    return _finished(larger, file_format, quality, facts, tell)


def _bounded_sharpening(larger: Pixels, source: Pixels, factor: float) -> Pixels:
    """Sharpened, but nowhere beyond the darkest and brightest of its neighbourhood: no halos."""
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
        sharp = crisper(crisper(part, 0.7), 0.5 * min(1.0, factor - 1))
        sharp = np.clip(sharp, cv2.erode(part, kernel), cv2.dilate(part, kernel))
        result[first:last] = sharp[first - begin : last - begin]
    return result


def fix_background(
    image: bytes | Image.Image | CutOut, request: RenderRequest, progress: Progress | None = None
) -> Rendering:
    """The picture's product on the request's background, as large as it was where the sizes agree.

    The request's own cut-out is not looked at; a rendering whose product cannot be cut out comes back framed,
    and the provenance says so.
    """
    cut_out = image if isinstance(image, CutOut) else prepare(image)
    rendering = render(replace(request, cut_out=cut_out, subject_image=None), progress)
    return replace(rendering, provenance={**rendering.provenance, "strategy": "background_fixing"})


def adjust(
    image: bytes | Image.Image,
    grade: Grade,
    width: int | None = None,
    height: int | None = None,
    file_format: FileFormat = "JPEG",
    quality: int = 92,
    progress: Progress | None = None,
) -> Rendering:
    """The picture with another grade, of its own size unless one is given."""
    tell = progress or (lambda share: None)
    pixels = _pixels(image)
    size = (width or pixels.shape[1], height or pixels.shape[0])
    if size != (pixels.shape[1], pixels.shape[0]):
        method = cv2.INTER_AREA if size[0] < pixels.shape[1] else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels, size, interpolation=method).astype(np.uint8)
    look = grading.look_of(grade)
    result = np.empty_like(pixels)
    rows = np.linspace(-1, 1, pixels.shape[0], dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, pixels.shape[1], dtype=np.float32)[None, :]
    for first in range(0, pixels.shape[0], _STRIP_ROWS):
        last = min(pixels.shape[0], first + _STRIP_ROWS)
        strip = grading.apply(look, pixels[first:last].astype(np.float32))
        strip = strip * _lamp(grade.lighting, across, rows[first:last])[..., None]
        result[first:last] = np.clip(strip + 0.5, 0, 255).astype(np.uint8)
        tell(0.7 * last / pixels.shape[0])
    facts: dict[str, Any] = {"strategy": "image_adjusting", "grade": _as_facts(grade)}
    return _finished(result, file_format, quality, facts, tell)


def _lamp(lighting: str | None, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """A gentle fall of light from the named side; no lamp only takes light away, so nothing clips."""
    asked = (lighting or "").lower()
    amount = 0.16 if "hard" in asked else 0.10
    if "left" in asked:
        return 1 - amount * (across + 1) / 2 + 0 * down
    if "right" in asked:
        return 1 - amount * (1 - across) / 2 + 0 * down
    if "top" in asked:
        return 1 - amount * (down + 1) / 2 + 0 * across
    return np.ones((len(down), across.shape[1]), dtype=np.float32)


def _as_facts(grade: Grade) -> dict[str, Any]:
    return {
        "contrast": grade.contrast,
        "saturation": grade.saturation,
        "temperature": grade.temperature,
        "tone": grade.tone,
        "lighting": grade.lighting,
    }


def _pixels(image: bytes | Image.Image) -> Pixels:
    opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
    pixels, alpha = to_srgb(opened)
    if alpha is None:
        return pixels
    share = alpha[..., None].astype(np.float32) / 255.0
    return (pixels * share + 255.0 * (1 - share) + 0.5).astype(np.uint8)


def _finished(
    pixels: Pixels, file_format: FileFormat, quality: int, facts: dict[str, Any], tell: Progress
) -> Rendering:
    """Scored over the whole picture, since nothing was cut out of it, and encoded."""
    everything = np.full(pixels.shape[:2], 255, dtype=np.uint8)
    sides = frozenset(("left", "right", "top", "bottom"))
    measured = score(pixels, everything, "DETAIL", 1.0, 0.0, sides)
    data, content_type = encode(pixels, file_format, quality)
    tell(1.0)
    provenance = {"renderer_version": RENDERER_VERSION, **facts}
    return Rendering(data, content_type, pixels.shape[1], pixels.shape[0], measured, provenance)
