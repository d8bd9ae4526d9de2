"""The file of a cut-out and the facts beside it, from which the same cut-out can be restored.

The file has the product's pixels with their opacity. The facts are plain JSON values.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import cv2
import numpy as np
from PIL import Image

from studio.rendering.color import to_srgb
from studio.rendering.cut_out.cut_out import get_working_side, shrink_cut_out
from studio.rendering.cut_out.selection import Region, crop_around, get_area
from studio.rendering.model import FRAMED_CROP, CutOut, Pixels

_IMAGES = ("photo", "product", "alpha")
# Lossless compression with the least effort: 0.4 s for six megapixels, and smaller than any PNG.
_OPTIONS: dict[str, Any] = {"lossless": True, "exact": True, "method": 0, "quality": 0}


def encode_cut_out(cut_out: CutOut) -> bytes:
    """Return the product of a cut-out as a lossless WebP image with transparency."""
    file = io.BytesIO()
    Image.fromarray(np.dstack([cut_out.product, cut_out.alpha])).save(file, "WEBP", **_OPTIONS)
    return file.getvalue()


def describe_cut_out(cut_out: CutOut, region: Region | None) -> dict[str, Any]:
    """Return all but the pixels of a cut-out as JSON values, with its photo's size and its place there."""
    facts = {part.name: getattr(cut_out, part.name) for part in fields(cut_out) if part.name not in _IMAGES}
    facts = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in facts.items()}
    height, width = cut_out.photo.shape[:2]
    return {**facts, "photo_size": [width, height], "placement": _place_in_photo(cut_out, region)}


def _place_in_photo(cut_out: CutOut, region: Region | None) -> Region:
    """Return the box of the product in shares of the stored photo."""
    if region is not None and cut_out.method == FRAMED_CROP:
        return region
    height, width = cut_out.photo.shape[:2]
    left, top, right, bottom = get_area(region)
    across, down = (right - left) / width, (bottom - top) / height
    first_column, first_row, last_column, last_row = cut_out.box
    return {
        "x": round(left + first_column * across, 6),
        "y": round(top + first_row * down, 6),
        "width": round((last_column - first_column) * across, 6),
        "height": round((last_row - first_row) * down, 6),
    }


def restore_cut_out(
    photo: Image.Image,
    product: Image.Image | None,
    facts: Mapping[str, Any],
    output_side: int,
    region: Region | None,
) -> CutOut:
    """Return the cut-out that was encoded, for predictions of this size.

    Args:
        photo: The photo that it was made from, opened.
        product: Its file, opened; None if it is the whole photo.
        facts: What `describe_cut_out` returned.
        output_side: The longer side of the predictions, in pixels.
        region: The region that it was made from.
    """
    photo = photo if region is None else crop_around(photo, region)
    values = {part.name: facts[part.name] for part in fields(CutOut) if part.name in facts}
    values["box"], values["touches"] = tuple(facts["box"]), frozenset(facts["touches"])
    values["warnings"] = tuple(facts["warnings"])
    if product is None:
        pixels = _load_photo(photo, facts)
        opacity = np.full(pixels.shape[:2], 255, dtype=np.uint8)
    else:
        layers = np.asarray(product.convert("RGBA"))
        pixels, opacity = np.ascontiguousarray(layers[..., :3]), np.ascontiguousarray(layers[..., 3])
    # A region that is shown as it is has no other photo.
    is_whole = facts["photo_size"] == [pixels.shape[1], pixels.shape[0]]
    source = pixels if is_whole and facts["method"] == FRAMED_CROP else _load_photo(photo, facts)
    cut_out = CutOut(photo=source, product=pixels, alpha=opacity, **values)
    factor = get_working_side(output_side) / max(facts["photo_size"])
    return shrink_cut_out(cut_out, factor) if factor < 1 else cut_out


def _load_photo(photo: Image.Image, facts: Mapping[str, Any]) -> Pixels:
    """Return the photo in the size in which the cut-out was made."""
    pixels, alpha = to_srgb(photo)
    width, height = facts["photo_size"]
    if (pixels.shape[1], pixels.shape[0]) != (width, height):
        pixels = _shrink_to(pixels, width, height)
        alpha = None if alpha is None else _shrink_to(alpha, width, height)
    if alpha is None:
        return pixels
    share = alpha.astype(np.float32)[..., None] / 255.0
    return (pixels * share + 255.0 * (1 - share) + 0.5).astype(np.uint8)


def _shrink_to(pixels: Pixels, width: int, height: int) -> Pixels:
    """Return a smaller copy of exactly this size."""
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
