"""Retouches finished pictures: enlarges and sharpens (REFINE), grades anew (IMAGE_ADJUSTING).

Pure image code.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from PIL import Image

from studio.rendering import CutOut, Grade, score
from studio.rendering.encode import encode
from studio.rendering.grading import apply, look_of
from studio.rendering.model import FileFormat, Framing, Pixels
from studio.rendering.render import crisper

_JUDGED_SIDE = 1_024
_STRIP_ROWS = 256
# Pictures of one order differ in strength: as asked, gentler, stronger, and so on.
_STRENGTHS = (1.0, 0.7, 1.3, 0.5, 1.5, 0.85, 1.15, 0.6)


def reduced(source: Image.Image) -> Image.Image:
    """A small copy, large enough to find the product in it."""
    small = source.convert("RGB")
    small.thumbnail((_JUDGED_SIDE, _JUDGED_SIDE), Image.Resampling.LANCZOS)
    return small


def refined(source: Image.Image, size: tuple[int, int], index: int) -> tuple[Pixels, dict[str, Any]]:
    """The picture at exactly `size` (width, height), sharpened for it; another ratio crops around the
    middle.
    """
    picture = _pixels(source)
    height, width = picture.shape[:2]
    scale = max(size[0] / width, size[1] / height)
    inner = (min(width, round(size[0] / scale)), min(height, round(size[1] / scale)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    part = np.ascontiguousarray(picture[top : top + inner[1], left : left + inner[0]])
    way = cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA
    larger = cv2.resize(part, size, interpolation=way).astype(np.uint8)
    amount = float(np.clip(0.45 + 0.35 * (scale - 1), 0.3, 1.1)) * _STRENGTHS[index % len(_STRENGTHS)]
    return crisper(larger, amount), {"scale": round(scale, 4), "sharpening": round(amount, 3)}


def adjusted(source: Image.Image, grade: Grade, index: int) -> tuple[Pixels, dict[str, Any]]:
    """The picture graded as the style says; the first of an order exactly so, the others weaker or
    stronger.
    """
    strength = _STRENGTHS[index % len(_STRENGTHS)]
    look = look_of(grade, strength)
    picture = _pixels(source)
    result = np.empty_like(picture)
    for first in range(0, picture.shape[0], _STRIP_ROWS):
        strip = picture[first : first + _STRIP_ROWS].astype(np.float32)
        result[first : first + _STRIP_ROWS] = np.clip(apply(look, strip) + 0.5, 0, 255).astype(np.uint8)
    return result, {"strength": strength}


def judged(pixels: Pixels, cut_out: CutOut, framing: Framing) -> dict[str, float]:
    """The quality of a retouched picture; `cut_out` is the product as found in the reduced source."""
    height, width = cut_out.photograph.shape[:2]
    left, top, right, bottom = cut_out.box
    alpha = np.zeros((height, width), dtype=np.uint8)
    alpha[top:bottom, left:right] = cut_out.alpha
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    edge = cut_out.trust if cut_out.trusted else 0.5
    return score(small, alpha, framing, edge, bleeds=cut_out.touches).as_dict()


def encoded(pixels: Pixels, file_format: FileFormat, quality: int) -> tuple[bytes, str]:
    """The file's bytes and media type."""
    return encode(pixels, file_format, quality)


def _pixels(source: Image.Image) -> Pixels:
    return np.asarray(source.convert("RGB"), dtype=np.uint8)
