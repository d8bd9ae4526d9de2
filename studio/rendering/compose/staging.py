"""Stage a product for a generative model, and put its own pixels back into what the model returns.

A generative model redraws what it is shown, also what a mask protects. So the part that has to stay true (the
product) is staged on a canvas of the final size, and pasted over the result at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from studio.catalog.marketplaces import find_rules
from studio.rendering.compose.fill import follow_fill
from studio.rendering.compose.framing import place_product, project_product
from studio.rendering.compose.retouch import load_pixels
from studio.rendering.compose.variation import sample_variation
from studio.rendering.cut_out.color_mask import detect_skin
from studio.rendering.cut_out.cut_out import cut_out_product
from studio.rendering.model import CutOut, Floats, Framing, Pixels, ViewAngle

_STRIP_ROWS = 256
_SCORED_SIDE = 1_024
# The skin around a found face, in percent of the longer side: hair lines and ears.
_SKIN_MARGIN_PERCENT = 2
_MAX_ASPECT_ERROR = 0.03
_MAX_FLAT_DIFFERENCE = 8.0


class NothingToKeep(Exception):
    """The part that has to stay cannot be told apart: no reliable product, or no skin to retouch."""


class WrongShape(Exception):
    """The received image has another aspect ratio than the canvas, so nothing can be put back in place."""


@dataclass(frozen=True, eq=False)
class Stage:
    """A canvas of the final size, and which of its pixels stay."""

    pixels: Pixels
    """RGB, height x width x 3."""
    kept: Pixels
    """Height x width: 255 where the pixel stays, 0 where the model decides."""
    cut_out: CutOut | None = None
    """How the kept product was found; None if it is not a product that is kept."""


def stage_product(
    cut_out: CutOut,
    size: tuple[int, int],
    framing: Framing,
    view_angle: ViewAngle,
    air_percent: float,
    color: str,
    marketplace: str | None = None,
) -> Stage:
    """Return a product, placed by its framing on a plain canvas.

    Raises:
        NothingToKeep: The cut-out has no reliable outline.
    """
    width, height = size
    if not cut_out.is_trusted or cut_out.is_extended:
        raise NothingToKeep
    # Straight and without zoom: nothing but the size of the product changes.
    neutral = replace(sample_variation(0), zoom=1.0, shift_x=0.0, shift_y=0.0, angle=0.0, yaw=0.0)
    area = (0.0, 0.0, float(width), float(height))
    placement = place_product(cut_out, area, framing, view_angle, air_percent, neutral)
    placement = follow_fill(placement, cut_out, framing, find_rules(marketplace), size, neutral)
    product, alpha, (x, y) = project_product(cut_out.product, cut_out.alpha, placement, width, height)
    red, green, blue = (int(color[position : position + 2], 16) for position in (1, 3, 5))
    canvas = np.full((height, width, 3), (red, green, blue), dtype=np.uint8)
    kept = np.zeros((height, width), dtype=np.uint8)
    rows, columns = slice(y, y + alpha.shape[0]), slice(x, x + alpha.shape[1])
    kept[rows, columns] = alpha
    # Not mixed with the color at its rim: `paste_kept` mixes it with the result.
    canvas[rows, columns][alpha > 0] = product[alpha > 0]
    return Stage(canvas, kept, replace(cut_out, touches=frozenset(placement.bleeds)))


def stage_image(image: Image.Image) -> Stage:
    """Return an image whose product stays where it is.

    Raises:
        NothingToKeep: No reliable outline was found.
    """
    pixels = load_pixels(image)
    height, width = pixels.shape[:2]
    cut_out = cut_out_product(image)
    if not cut_out.is_trusted or cut_out.is_extended:
        raise NothingToKeep
    found = np.zeros(cut_out.photo.shape[:2], dtype=np.uint8)
    left, top, right, bottom = cut_out.box
    found[top:bottom, left:right] = cut_out.alpha
    kept = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    return Stage(pixels, kept, cut_out)


def stage_faces(image: Image.Image) -> Stage:
    """Return an image in which everything stays but what has the color of skin.

    Raises:
        NothingToKeep: Nothing has the color of skin.
    """
    pixels = load_pixels(image)
    height, width = pixels.shape[:2]
    factor = min(1.0, _SCORED_SIDE / max(width, height))
    small = cv2.resize(
        pixels, (max(1, round(width * factor)), max(1, round(height * factor))), interpolation=cv2.INTER_AREA
    )
    skin = detect_skin(small.astype(np.uint8)).astype(np.uint8)
    if not skin.any():
        raise NothingToKeep
    radius = max(1, round(max(skin.shape) * _SKIN_MARGIN_PERCENT / 100))
    around = cv2.dilate(skin * 255, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    soft = cv2.blur(around, (radius, radius))
    kept = 255 - cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return Stage(pixels, kept.astype(np.uint8))


def stage_whole(image: Image.Image) -> Stage:
    """Return an image of which nothing has to stay."""
    pixels = load_pixels(image)
    return Stage(pixels, np.zeros(pixels.shape[:2], dtype=np.uint8))


def fit_canvas(stage: Stage, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Return the stage centered on a canvas of another size, and what stays of it.

    Space around it is filled with the pixels of its edges, and may change.
    """
    left, top, width, height = _inner_box(stage, size)
    method = cv2.INTER_AREA if width < stage.pixels.shape[1] else cv2.INTER_CUBIC
    inner = cv2.resize(stage.pixels, (width, height), interpolation=method)
    kept = cv2.resize(stage.kept, (width, height), interpolation=cv2.INTER_AREA)
    borders = (top, size[1] - top - height, left, size[0] - left - width)
    canvas = cv2.copyMakeBorder(inner, *borders, cv2.BORDER_REPLICATE)
    mask = cv2.copyMakeBorder((kept > 127).astype(np.uint8) * 255, *borders, cv2.BORDER_CONSTANT, value=0)
    return Image.fromarray(canvas.astype(np.uint8)), Image.fromarray(mask.astype(np.uint8))


def take_from_canvas(stage: Stage, received: Image.Image, size: tuple[int, int]) -> Pixels:
    """Return the part of a received canvas that the stage had, in the size of the stage.

    Args:
        stage: The stage that was sent.
        received: The model's image.
        size: The size of the canvas that was sent.

    Raises:
        WrongShape: The received image has another aspect ratio than the canvas.
    """
    across, down = received.width / size[0], received.height / size[1]
    if abs(across / down - 1) > _MAX_ASPECT_ERROR:
        raise WrongShape
    left, top, width, height = _inner_box(stage, size)
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    target = (stage.pixels.shape[1], stage.pixels.shape[0])
    resized = Image.fromarray(load_pixels(received)).resize(target, Image.Resampling.LANCZOS, box)
    return np.asarray(resized)


def paste_kept(stage: Stage, pixels: Pixels) -> Pixels:
    """Return pixels of the stage's size with those that stay put back."""
    result = np.array(pixels, dtype=np.uint8)
    for first in range(0, result.shape[0], _STRIP_ROWS):
        rows = slice(first, first + _STRIP_ROWS)
        share: Floats = stage.kept[rows, :, None].astype(np.float32) / 255.0
        mixed = stage.pixels[rows] * share + result[rows] * (1 - share)
        result[rows] = (mixed + 0.5).astype(np.uint8)
    return result


def measure_likeness(stage: Stage, pixels: Pixels) -> float:
    """Return how much the model's own pixels resemble those that stay: 1 for the same, about 0 for others.

    It is the correlation of the brightness. A low value means that the model moved or redrew the product, so
    that traces of its version can show beside the pasted one.
    """
    size = (min(256, pixels.shape[1]), min(256, pixels.shape[0]))
    sent, got = (
        cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        for image in (stage.pixels, pixels)
    )
    inside = cv2.resize(stage.kept, size, interpolation=cv2.INTER_AREA) > 200
    if not inside.any():
        return 0.0
    first, second = sent[inside].astype(np.float32), got[inside].astype(np.float32)
    if first.std() < 1 or second.std() < 1:
        # Without a pattern there is no correlation, so only the brightness is compared.
        return 1.0 if abs(float(first.mean() - second.mean())) < _MAX_FLAT_DIFFERENCE else 0.0
    return max(0.0, float(np.corrcoef(first, second)[0, 1]))


def cut_out_of_stage(stage: Stage) -> CutOut | None:
    """Return the kept product as a cut-out of a smaller copy, on which the quality is measured."""
    if stage.cut_out is None:
        return None
    height, width = stage.kept.shape
    factor = min(1.0, _SCORED_SIDE / max(width, height))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    photo = cv2.resize(stage.pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    alpha = cv2.resize(stage.kept, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not len(rows):
        return None
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return replace(
        stage.cut_out,
        photo=photo,
        product=photo[top:bottom, left:right],
        alpha=alpha[top:bottom, left:right],
        box=(left, top, right, bottom),
    )


def _inner_box(stage: Stage, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the stage on a canvas of this size."""
    height, width = stage.kept.shape
    factor = min(size[0] / width, size[1] / height)
    across, down = min(size[0], round(width * factor)), min(size[1], round(height * factor))
    return (size[0] - across) // 2, (size[1] - down) // 2, max(1, across), max(1, down)
