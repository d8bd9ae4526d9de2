"""What is shown where a cut-out cannot be trusted: the photograph itself, cropped, in a passe-partout."""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.colour import lab
from studio.rendering.model import CutOut, Framing, Pixels
from studio.rendering.saliency import saliency
from studio.rendering.variation import Variation

_SHOWN: dict[Framing, float] = {
    "FULL_BODY": 1.0,
    "THREE_QUARTER": 0.88,
    "HALF_BODY": 0.76,
    "CLOSE_UP": 0.60,
    "DETAIL": 0.42,
    "FLAT_LAY": 1.0,
    "STILL_LIFE": 0.96,
}
_MAT = (253, 252, 250)


def frame(
    cut_out: CutOut, aspect: float, framing: Framing, variation: Variation
) -> tuple[CutOut, tuple[int, int, int, int]]:
    """A framed print of the photograph as a cut-out, and the crop (left, top, right, bottom) it shows.

    `aspect` is width by height of the place it will hang in.
    """
    photograph = cut_out.photograph
    crop = _crop(photograph, aspect, framing, variation)
    left, top, right, bottom = crop
    print_ = _mounted(photograph[top:bottom, left:right])
    opaque = np.full(print_.shape[:2], 255, dtype=np.uint8)
    framed = CutOut(photograph, print_, opaque, crop, "framed_crop", cut_out.trust, parts=cut_out.parts)
    return framed, crop


def _crop(
    photograph: Pixels, aspect: float, framing: Framing, variation: Variation
) -> tuple[int, int, int, int]:
    height, width = photograph.shape[:2]
    own = width / height
    # Part of the way to the place's aspect: a print may be of another shape than its wall.
    wanted = own * float(np.clip((aspect / own) ** 0.6, 0.74, 1.35))
    shown = _SHOWN[framing] * float(np.clip(0.93 * variation.zoom, 0.84, 1.0))
    across = max(1.0, min(width, height * wanted) * shown)
    down = max(1.0, min(height, width / wanted) * shown)
    factor = 200 / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    weight = saliency(lab(small)) if min(small.shape[:2]) > 8 else np.ones(small.shape[:2], np.float32)
    rows, columns = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]]
    total = float(weight.sum()) + 1e-6
    focus_x = float((columns * weight).sum()) / total / weight.shape[1] * width
    focus_y = float((rows * weight).sum()) / total / weight.shape[0] * height
    focus_x += variation.shift_x * width
    left = round(np.clip(focus_x - across / 2, 0, width - across))
    top = round(np.clip(focus_y - down / 2, 0, height - down))
    return left, top, left + max(1, int(across)), top + max(1, int(down))


def _mounted(photograph: Pixels) -> Pixels:
    """The print in its mat, with the bevel that a knife leaves."""
    height, width = photograph.shape[:2]
    mat = max(4, round(0.055 * max(height, width)))
    bevel = max(1, round(0.0022 * max(height, width)))
    print_ = cv2.copyMakeBorder(
        photograph, bevel, bevel, bevel, bevel, cv2.BORDER_CONSTANT, value=(214, 211, 206)
    )
    return cv2.copyMakeBorder(print_, mat, mat, mat, mat, cv2.BORDER_CONSTANT, value=_MAT).astype(np.uint8)
