"""Crop the photo around its salient region, as a replacement for a cut-out with low confidence."""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import to_lab
from studio.rendering.compose.variation import Variation
from studio.rendering.cut_out.saliency import saliency
from studio.rendering.model import CutOut, Floats, Framing

Crop = tuple[int, int, int, int]

# Share of the largest crop of the requested shape that a framing shows.
_VISIBLE_SHARE: dict[Framing, float] = {
    "FULL_BODY": 0.98,
    "THREE_QUARTER": 0.90,
    "HALF_BODY": 0.82,
    "CLOSE_UP": 0.74,
    "DETAIL": 0.60,
    "FLAT_LAY": 0.98,
    "STILL_LIFE": 0.96,
}
# Pixels of the image per pixel of the photo: a closer crop would look soft.
_MAX_ENLARGEMENT: dict[Framing, float] = {"CLOSE_UP": 1.6, "DETAIL": 1.75}
_DEFAULT_MAX_ENLARGEMENT = 1.5
# Above this enlargement even a close-up shows more of the photo instead of filling the image.
_MAX_COVERING_ENLARGEMENT = 2.0
# Share of the saliency that a crop may lose before more of the photo is shown instead.
_MAX_LOST_SHARE = 0.08
# A crop that needs this share of the photo gets the whole photo: a tighter one would cut the product.
_NEARLY_ALL = 0.66
_FULL_BLEED: frozenset[Framing] = frozenset(("CLOSE_UP", "DETAIL"))
_MARGIN_PERCENT = 2.2


def frame_margin_percent(framing: Framing) -> float:
    """Return the margin around a framed crop, in percent of the image's shorter side."""
    return 0.0 if framing in _FULL_BLEED else _MARGIN_PERCENT


def crop_to_frame(
    cut_out: CutOut, size: tuple[float, float], framing: Framing, variation: Variation
) -> tuple[CutOut, Crop]:
    """Return a crop of the photo as an opaque cut-out, and its left, top, right and bottom.

    The crop has the requested aspect ratio, unless that would cut much of the salient region: then it is
    wider or taller.

    Args:
        size: Width and height to fill, in pixels.
    """
    crop = _crop(cut_out, size, framing, variation)
    left, top, right, bottom = crop
    part = np.ascontiguousarray(cut_out.photo[top:bottom, left:right])
    opaque = np.full(part.shape[:2], 255, dtype=np.uint8)
    framed = CutOut(
        cut_out.photo,
        part,
        opaque,
        crop,
        "framed_crop",
        cut_out.confidence,
        confidence_parts=cut_out.confidence_parts,
    )
    return framed, crop


def _crop(cut_out: CutOut, size: tuple[float, float], framing: Framing, variation: Variation) -> Crop:
    height, width = cut_out.photo.shape[:2]
    weight = _saliency_weight(cut_out)
    across, down = _window(weight, width, height, size, framing)
    sharp = min(size[0] / across, size[1] / down) / _MAX_ENLARGEMENT.get(framing, _DEFAULT_MAX_ENLARGEMENT)
    shown = _VISIBLE_SHARE[framing] * (1 + 0.6 * (0.97 / variation.zoom - 1))
    if abs(across / down * size[1] / size[0] - 1) > 0.02:
        shown = 1.0  # The window was widened to show more: do not crop it again.
    shown = float(np.clip(max(shown, min(1.0, sharp)), 0.2, 1.0))
    across, down = max(1.0, across * shown), max(1.0, down * shown)
    focus_x = (_best_center(weight.sum(axis=0), across / width) + 1.5 * variation.shift_x) * width
    focus_y = (_best_center(weight.sum(axis=1), down / height) + variation.shift_y) * height
    left = int(np.clip(focus_x - across / 2, 0, width - across))
    top = int(np.clip(focus_y - down / 2, 0, height - down))
    return left, top, min(width, left + max(1, round(across))), min(height, top + max(1, round(down)))


def _saliency_weight(cut_out: CutOut) -> Floats:
    """Return the saliency of a small copy of the photo."""
    photo = cut_out.photo
    factor = 200 / max(photo.shape[:2])
    size = (max(1, round(photo.shape[1] * factor)), max(1, round(photo.shape[0] * factor)))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    weight = saliency(to_lab(small)) if min(small.shape[:2]) > 8 else np.ones(small.shape[:2], np.float32)
    return weight + 1e-4


def _window(
    weight: Floats, width: int, height: int, size: tuple[float, float], framing: Framing
) -> tuple[float, float]:
    """Return width and height of the largest crop: of the requested shape, or nearer to the photo's shape."""
    own, aspect = width / height, size[0] / size[1]
    profile = weight.sum(axis=0) if aspect < own else weight.sum(axis=1)
    share = aspect / own if aspect < own else own / aspect
    covering = size[1] / height if aspect < own else size[0] / width
    if framing not in _FULL_BLEED or covering > _MAX_COVERING_ENLARGEMENT:
        sharp = (size[0] / width if aspect < own else size[1] / height) / _DEFAULT_MAX_ENLARGEMENT
        needed = max(_needed_share(profile), sharp)
        share = max(share, 1.0 if needed > _NEARLY_ALL else needed)
    return (height * own * share, float(height)) if aspect < own else (float(width), width / own * share)


def _needed_share(profile: Floats) -> float:
    """Return the length of the shortest interval that holds nearly all of the profile, as a share of it."""
    cumulative = np.concatenate([[0.0], np.cumsum(profile) / profile.sum()])
    ends = np.searchsorted(cumulative, cumulative + 1 - _MAX_LOST_SHARE)
    lengths = ends - np.arange(len(cumulative))
    return float(lengths[ends < len(cumulative)].min() + 1) / len(profile)


def _best_center(profile: Floats, share: float) -> float:
    """Return the center, 0..1, of the interval that holds most of the profile; ties go to the middle."""
    count = len(profile)
    center = float((profile * (np.arange(count) + 0.5)).sum() / profile.sum())
    length = max(1, min(count, round(share * count)))
    sums = np.convolve(profile / profile.sum(), np.ones(length), "valid")
    middles = np.arange(len(sums)) + length / 2
    return float(middles[int(np.argmax(sums - 0.15 * np.abs(middles - center) / count))]) / count
