"""Cut out what a person chose: the product inside a region of the photo, or what their mask shows.

The region is where the renderer looks for the product, and nothing outside of it is shown. A mask replaces
the renderer's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from studio.rendering.cut_out.cut_out import cut_out_product
from studio.rendering.cut_out.mask_providers import find_chosen_mask
from studio.rendering.cut_out.standing import stands
from studio.rendering.geometry import find_touched_sides, get_bounding_box
from studio.rendering.model import FRAMED_CROP, Box, CutOut, Floats, Mask, MaskProvider, Pixels

GIVEN = "given"
"""Method of a cut-out with a mask that a person made."""

Region = Mapping[str, float]
"""A box of an image: `x`, `y`, `width` and `height` as shares of its width and height."""

# A mask provider needs some background around the product: this share of the region's sides.
_CONTEXT = 0.06
# Opacity, of 255, that a mask must reach somewhere.
_MIN_OPACITY = 128


class EmptyMask(ValueError):
    """The mask shows nothing inside the region."""


def cut_out_selection(
    photo: Image.Image,
    output_side: int,
    region: Region | None = None,
    mask: Image.Image | None = None,
    find_mask: MaskProvider = find_chosen_mask,
    *,
    closes_photo: bool = False,
) -> CutOut:
    """Return the cut-out of a photo, inside a region and by a mask if there are any.

    Args:
        photo: The upright photo, opened. With a region, the photo of the cut-out is the area around it.
        output_side: The longer side of the predictions, in pixels.
        region: The box around the product.
        mask: What is opaque in it, or bright if it has no transparency, is the product. It is scaled to the
            photo.
        find_mask: Finds the product in the photo if there is no mask.
        closes_photo: As `cut_out_product`.

    Raises:
        EmptyMask: The mask shows nothing inside the region.
        UnusableMaskModel: As `cut_out_product`.
    """
    original = photo
    if region is not None:
        photo, mask = crop_around(photo, region), None if mask is None else crop_around(mask, region)
        region = _place_in_crop(region)
    if mask is not None:
        given = _read_mask(mask)
        photo, find_mask = _over_white(photo), lambda pixels: _fit_mask(given, pixels, region)
    if closes_photo and photo is not original:
        original.close()
    cut_out = cut_out_product(photo, output_side, find_mask, closes_photo=closes_photo)
    return cut_out if region is None else _limit_to_region(cut_out, region)


def get_area(region: Region | None) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the photo of a cut-out, as shares of the stored photo."""
    if region is None:
        return 0.0, 0.0, 1.0, 1.0
    across, down = _CONTEXT * region["width"], _CONTEXT * region["height"]
    return (
        max(0.0, region["x"] - across),
        max(0.0, region["y"] - down),
        min(1.0, region["x"] + region["width"] + across),
        min(1.0, region["y"] + region["height"] + down),
    )


def crop_around(image: Image.Image, region: Region) -> Image.Image:
    """Return the part of an image around a region."""
    left, top, right, bottom = get_area(region)
    return image.crop(_to_pixels((left, top, right - left, bottom - top), image.width, image.height))


def _place_in_crop(region: Region) -> Region:
    """Return the region in shares of the image that `crop_around` returns."""
    left, top, right, bottom = get_area(region)
    width, height = right - left, bottom - top
    return {
        "x": (region["x"] - left) / width,
        "y": (region["y"] - top) / height,
        "width": region["width"] / width,
        "height": region["height"] / height,
    }


def _to_pixels(box: tuple[float, float, float, float], width: int, height: int) -> Box:
    """Return a box (left, top, width, height as shares) in pixels; it has at least one."""
    left, top = min(width - 1, round(box[0] * width)), min(height - 1, round(box[1] * height))
    right, bottom = round((box[0] + box[2]) * width), round((box[1] + box[3]) * height)
    return left, top, min(width, max(left + 1, right)), min(height, max(top + 1, bottom))


def _get_pixel_box(region: Region, pixels: Pixels) -> Box:
    box = (region["x"], region["y"], region["width"], region["height"])
    return _to_pixels(box, pixels.shape[1], pixels.shape[0])


def _over_white(photo: Image.Image) -> Image.Image:
    """Return the photo without transparency, which would replace the mask."""
    if not photo.has_transparency_data:
        return photo
    white = Image.new("RGBA", photo.size, "white")
    return Image.alpha_composite(white, photo.convert("RGBA")).convert("RGB")


def _read_mask(mask: Image.Image) -> Pixels:
    """Return the opacity of a mask image, or its brightness if it is opaque; 0..255."""
    if mask.has_transparency_data:
        opacity = np.asarray(mask.convert("RGBA").getchannel("A"))
        if int(opacity.min(initial=255)) < 250:
            return opacity
    return np.asarray(mask.convert("L"))


def _fit_mask(given: Pixels, pixels: Pixels, region: Region | None) -> Mask:
    """Return a given mask as that of a photo.

    Raises:
        EmptyMask: It shows nothing inside the region.
    """
    height, width = pixels.shape[:2]
    filter_ = cv2.INTER_AREA if given.shape[1] > width else cv2.INTER_LINEAR
    scaled = cv2.resize(given, (width, height), interpolation=filter_)
    if region is not None:
        left, top, right, bottom = _get_pixel_box(region, pixels)
        inside = np.zeros_like(scaled)
        inside[top:bottom, left:right] = scaled[top:bottom, left:right]
        scaled = inside
    if int(scaled.max(initial=0)) < _MIN_OPACITY:
        raise EmptyMask("the mask shows nothing inside the region")
    values: Floats = scaled.astype(np.float32) / 255.0
    return Mask(values, (0, 0, width, height), GIVEN, 1.0, is_usable=True)


def _limit_to_region(cut_out: CutOut, region: Region) -> CutOut:
    """Return the cut-out without what is outside of the region; nothing is found if nothing remains."""
    left, top, right, bottom = _get_pixel_box(region, cut_out.photo)
    x, y = cut_out.box[:2]
    alpha = np.zeros_like(cut_out.alpha)
    rows, columns = slice(max(0, top - y), max(0, bottom - y)), slice(max(0, left - x), max(0, right - x))
    alpha[rows, columns] = cut_out.alpha[rows, columns]
    if not cut_out.is_trusted or int(alpha.max(initial=0)) < _MIN_OPACITY:
        return _frame_region(cut_out, (left, top, right, bottom))
    inner = get_bounding_box(alpha, pad=4)
    alpha = np.ascontiguousarray(alpha[inner[1] : inner[3], inner[0] : inner[2]])
    box = (x + inner[0], y + inner[1], x + inner[2], y + inner[3])
    touches = find_touched_sides(alpha, box, cut_out.photo)
    return replace(
        cut_out,
        product=np.ascontiguousarray(cut_out.product[inner[1] : inner[3], inner[0] : inner[2]]),
        alpha=alpha,
        box=box,
        touches=touches,
        standing=stands(alpha, box, cut_out.photo),
        warnings=tuple(warning for warning in cut_out.warnings if touches or warning != "touches_edge"),
    )


def _frame_region(cut_out: CutOut, box: Box) -> CutOut:
    """Return the region of the photo as it is: no product was found in it."""
    left, top, right, bottom = box
    part = np.ascontiguousarray(cut_out.photo[top:bottom, left:right])
    kept = (warning for warning in cut_out.warnings if warning == "low_resolution")
    return replace(
        cut_out,
        product=part,
        alpha=np.full(part.shape[:2], 255, dtype=np.uint8),
        photo=part,
        box=(0, 0, right - left, bottom - top),
        method=FRAMED_CROP,
        confidence=0.0 if cut_out.is_trusted else cut_out.confidence,
        touches=frozenset(),
        standing=False,
        warnings=("not_cut_out", *kept),
    )
