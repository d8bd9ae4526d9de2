"""Cut a product out of its photo and say what is doubtful about the cut-out.

If the file has transparency, its alpha channel is used. Otherwise a mask provider finds the product in the
photo, and `matting` refines the edges at full size. A photo without a usable mask is shown as it is: extended
with white if its background is white, and as a framed crop otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from studio.media.inspection import open_stored
from studio.rendering.color import to_srgb
from studio.rendering.cut_out.mask_providers import find_chosen_mask
from studio.rendering.cut_out.matting import nearby_color, refine_mask
from studio.rendering.cut_out.network_confidence import MIN_CONFIDENCE
from studio.rendering.cut_out.standing import stands
from studio.rendering.geometry import drop_specks, find_touched_sides, get_bounding_box, shrink
from studio.rendering.model import (
    EXTENDED_PHOTO,
    FRAMED_CROP,
    Box,
    CutOut,
    Mask,
    MaskProvider,
    Pixels,
    PredictionWarning,
)

_MAX_SIDE = 3000
# The closest framing enlarges a part of the product: this many pixels of the photo per pixel of the output
# keep it sharp.
_PHOTO_PIXELS_PER_OUTPUT_PIXEL = 4
# Smaller photos contain nothing that could be cut out.
_MIN_PHOTO_SIDE = 32
# Confidence in the alpha channel of a file.
_ALPHA_CONFIDENCE = 0.98
# A product with fewer pixels than this on its longer side is too small for a large image.
_MIN_PRODUCT_SIDE = 500
# A background is white if this share of the photo's rim has no channel below the limit.
_MIN_WHITE_SHARE, _WHITE, _RIM = 0.98, 248, 0.012
# Space around a product in an extended photo, as a share of the photo's longer side.
_EXTENDED_SPACE = 0.01


def get_working_side(output_side: int) -> int:
    """Return the longer side, in pixels, to which a photo is reduced for an output of this longer side.

    It bounds the time: a photo of 64 megapixels costs no more than a photo of 9.
    """
    return min(_MAX_SIDE, _PHOTO_PIXELS_PER_OUTPUT_PIXEL * output_side)


def cut_out_product(
    product: bytes | Image.Image,
    output_side: int = _MAX_SIDE,
    find_mask: MaskProvider = find_chosen_mask,
    *,
    closes_photo: bool = False,
) -> CutOut:
    """Return the cut-out of a product photo, to be shared by all predictions of one generation.

    Args:
        product: The upright photo, as a stored file or opened.
        output_side: The longer side of the predictions, in pixels.
        find_mask: Finds the product in the photo; by default what this process has chosen.
        closes_photo: Close the photo when its pixels are read. They would take four bytes per pixel while a
            network runs.

    Raises:
        UnusableMaskModel: The file of the mask model is missing, or OpenCV cannot run it.
    """
    image = open_stored(product) if isinstance(product, bytes) else product
    pixels, alpha = to_srgb(image)
    if closes_photo:
        image.close()
    scale = min(1.0, get_working_side(output_side) / max(pixels.shape[:2]))
    if scale < 1:
        pixels = shrink(pixels, scale)
        alpha = None if alpha is None else shrink(alpha, scale)
    if alpha is not None and _is_meaningful(alpha):
        cut_out = _from_alpha(pixels, alpha)
    else:
        if alpha is not None and int(alpha.min()) < 250:
            pixels = _over_white(pixels, alpha)
        cut_out = _from_photo(pixels, find_mask)
    return replace(cut_out, warnings=tuple(_list_warnings(cut_out, scale)))


def shrink_cut_out(cut_out: CutOut, factor: float) -> CutOut:
    """Return a smaller copy of a cut-out; `factor` is below 1."""
    photo, product, alpha = (
        shrink(pixels, factor) for pixels in (cut_out.photo, cut_out.product, cut_out.alpha)
    )
    left, top = round(cut_out.box[0] * factor), round(cut_out.box[1] * factor)
    box = (left, top, left + product.shape[1], top + product.shape[0])
    return replace(cut_out, photo=photo, product=product, alpha=alpha, box=box)


def has_white_rim(photo: Pixels) -> bool:
    """Return whether the photo already has a white background all around."""
    return float((_get_rim(photo).min(axis=1) >= _WHITE).mean()) >= _MIN_WHITE_SHARE


def _get_rim(photo: Pixels) -> Pixels:
    """Return the pixels along the edges of the photo, n x 3."""
    rim = max(2, round(_RIM * min(photo.shape[:2])))
    strips = (photo[:rim], photo[-rim:], photo[:, :rim], photo[:, -rim:])
    return np.concatenate([strip.reshape(-1, 3) for strip in strips])


def _over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    share = alpha.astype(np.float32)[..., None] / 255.0
    return (pixels * share + 255.0 * (1 - share) + 0.5).astype(np.uint8)


def _is_meaningful(alpha: Pixels) -> bool:
    """Return whether the alpha channel outlines a product, and is not opaque or empty throughout."""
    clear, solid = float(np.mean(alpha < 16)), float(np.mean(alpha > 200))
    return clear > 0.02 and solid > 0.01


def _from_alpha(pixels: Pixels, alpha: Pixels) -> CutOut:
    # Transparent pixels may have any color; resampling would mix it into the rim.
    solid = (alpha > 240).astype(np.float32)
    box = get_bounding_box(alpha, pad=4)
    left, top, right, bottom = box
    product, opacity = pixels[top:bottom, left:right].copy(), alpha[top:bottom, left:right].copy()
    around = nearby_color(product.astype(np.float32), solid[top:bottom, left:right], 4)
    product[opacity < 24] = np.clip(around[opacity < 24], 0, 255).astype(np.uint8)
    photo = _over_white(pixels, alpha)
    touches = find_touched_sides(opacity, box, photo)
    is_standing = stands(opacity, box, photo)
    return CutOut(photo, product, opacity, box, "alpha", _ALPHA_CONFIDENCE, touches, is_standing)


def _from_photo(pixels: Pixels, find_mask: MaskProvider) -> CutOut:
    if min(pixels.shape[:2]) < _MIN_PHOTO_SIDE:
        return _show_photo(pixels, None)
    mask = find_mask(pixels)
    if not mask.is_usable or (mask.confidence < MIN_CONFIDENCE and has_white_rim(pixels)):
        return _show_photo(pixels, mask)
    left, top, right, bottom = mask.box
    size = (right - left, bottom - top)
    full = np.clip(cv2.resize(mask.values, size, interpolation=cv2.INTER_CUBIC), 0, 1)
    factor = mask.coarseness * max(size) / max(mask.values.shape)
    band = int(np.clip(round(1.6 * factor + 1), 3, 12))
    inner = get_bounding_box((full * 255).astype(np.uint8), pad=4 * band)
    product, alpha = refine_mask(
        pixels[top:bottom, left:right][inner[1] : inner[3], inner[0] : inner[2]],
        full[inner[1] : inner[3], inner[0] : inner[2]],
        band,
    )
    alpha = drop_specks(alpha)
    left, top = left + inner[0], top + inner[1]
    inner = get_bounding_box(alpha, pad=4)
    product = np.ascontiguousarray(product[inner[1] : inner[3], inner[0] : inner[2]])
    alpha = np.ascontiguousarray(alpha[inner[1] : inner[3], inner[0] : inner[2]])
    box = (left + inner[0], top + inner[1], left + inner[2], top + inner[3])
    touches = find_touched_sides((full * 255).astype(np.uint8), mask.box, pixels)
    return CutOut(
        pixels,
        product,
        alpha,
        box,
        mask.method,
        mask.confidence,
        touches,
        stands(alpha, box, pixels),
        confidence_parts=mask.confidence_parts,
    )


def _show_photo(pixels: Pixels, mask: Mask | None) -> CutOut:
    """Return the photo as an opaque cut-out, to be extended if its background is white, or to be cropped."""
    height, width = pixels.shape[:2]
    confidence, parts = (mask.confidence, mask.confidence_parts) if mask else (0.0, {})
    is_white = min(height, width) >= _MIN_PHOTO_SIDE and has_white_rim(pixels)
    box: Box = (0, 0, width, height)
    product = pixels
    if is_white:
        not_white = (pixels.min(axis=2) < _WHITE).astype(np.uint8) * 255
        box = get_bounding_box(not_white, pad=round(_EXTENDED_SPACE * max(height, width)))
        product = _whiten(pixels[box[1] : box[3], box[0] : box[2]], _get_rim(pixels))
    opaque = np.full(product.shape[:2], 255, dtype=np.uint8)
    method = EXTENDED_PHOTO if is_white else FRAMED_CROP
    return CutOut(pixels, product, opaque, box, method, confidence, confidence_parts=parts)


def _whiten(product: Pixels, rim: Pixels) -> Pixels:
    """Return the pixels, at most 3 % brighter, so that nearly all of a white rim has the value 255."""
    level = np.maximum(np.percentile(rim, 5, axis=0), _WHITE).astype(np.float32)
    return np.clip(product * (255 / level) + 0.5, 0, 255).astype(np.uint8)


def _list_warnings(cut_out: CutOut, scale: float) -> Iterator[PredictionWarning]:
    """Yield what is doubtful; `scale` is the size of the cut-out's photo relative to the original."""
    if cut_out.method == FRAMED_CROP:
        yield "not_cut_out"
    elif not cut_out.is_extended and cut_out.confidence < MIN_CONFIDENCE:
        yield "mask_uncertain"
    if cut_out.touches:
        yield "touches_edge"
    if max(cut_out.alpha.shape) / scale < _MIN_PRODUCT_SIDE:
        yield "low_resolution"
    if cut_out.method != "alpha" and has_white_rim(cut_out.photo):
        yield "background_already_compliant"
