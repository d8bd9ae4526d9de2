"""Find the product in a photo with a network: in the whole photo first, then in the part around it.

The network sees every photo in the same small size. The second pass shows it the product larger, which brings
back thin parts and straight edges; the first pass keeps it from choosing another object. Each pass is the
mean of the photo and its mirror image: what only one of them shows is often wrong.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from studio.infrastructure.mask_models import MaskModelType
from studio.rendering.cut_out.inference import Predict, get_input_side, open_network
from studio.rendering.cut_out.mask_correction import compare_with_paper, correct_mask, measure_distinctness
from studio.rendering.cut_out.mask_rim import trim_rim
from studio.rendering.cut_out.missing_parts import measure_completeness
from studio.rendering.cut_out.network_confidence import overlap, score_agreement
from studio.rendering.model import Box, Floats, Mask, Pixels

# Weight of the mask of the whole photo where the passes around the product are decided and agree, and where
# they are not; the rest is that of the part around the product.
_MIN_WEIGHT, _MAX_WEIGHT = 0.1, 0.5
# Space around what the first pass found, in shares of its size.
_SPACE = 0.12
# What the first pass is not sure of belongs to that area too, if it is connected with the object: a strap, a
# lace, the crown of a tree.
_MIN_FAINT = 0.25
# Pieces smaller than this share of the largest are not part of the product, unless they are connected with
# it, or near it: no smaller than the second share, sure (mean of the mask), and with a narrow gap, as a share
# of the product's size.
_MIN_PIECE_SHARE, _MIN_NEAR_SHARE = 0.05, 0.01
_MIN_SURE, _MAX_GAP = 0.85, 0.05


def find_network_mask(pixels: Pixels, path: Path, model_type: MaskModelType, method: str) -> Mask:
    """Return where the network of this file finds the product.

    Args:
        method: Name of the method, for the provenance of predictions.

    Raises:
        UnusableMaskModel: The file is missing, or OpenCV cannot run it.
    """
    side = get_input_side(model_type)
    photo = _fit(pixels, 2 * side)
    with open_network(path, model_type) as predict:
        straight, mirrored = _predict_both(predict, photo)
        whole = (straight + mirrored) / 2
        box = _find_box(whole, pixels)
        if box is None:
            height, width = pixels.shape[:2]
            return Mask(whole, (0, 0, width, height), method, 0.0, is_usable=False)
        left, top, right, bottom = box
        part = pixels[top:bottom, left:right]
        close = _predict_both(predict, _fit(part, 2 * side))
    size = _limit_size(part, side)
    first = _cut(whole, box, pixels, size)
    mixed = drop_small_pieces(
        _mix(first, *(cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR) for mask in close))
    )
    share = float((mixed > 0.5).mean()) * part.size / pixels.size
    mirror = overlap(straight > 0.5, mirrored > 0.5)
    distinctness = measure_distinctness(pixels, mixed, box)
    values, box = correct_mask(pixels, mixed, box)
    paper = compare_with_paper(pixels, values, box)
    values, coarseness = trim_rim(pixels, values, box)
    completeness = measure_completeness(pixels, values, box)
    confidence = score_agreement(first, mixed, share, mirror, distinctness, paper, completeness)
    return Mask(values, box, method, *confidence, coarseness)


def _predict_both(predict: Predict, photo: Pixels) -> tuple[Floats, Floats]:
    """Return the masks of a photo and of its mirror image, the latter mirrored back."""
    return predict(photo), predict(np.ascontiguousarray(photo[:, ::-1]))[:, ::-1]


def _mix(first: Floats, straight: Floats, mirrored: Floats) -> Floats:
    """Return the mask of all passes: that of the whole photo counts where the others are not sure."""
    second = (straight + mirrored) / 2
    doubt = np.maximum(1 - np.abs(2 * second - 1), np.abs(straight - mirrored))
    weight = _MIN_WEIGHT + (_MAX_WEIGHT - _MIN_WEIGHT) * doubt
    return (second + weight * (first - second)).astype(np.float32)


def _fit(pixels: Pixels, side: int) -> Pixels:
    """Return a copy of at most this side: averaging a large photo to a small square twice is slower."""
    size = _limit_size(pixels, side)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _limit_size(pixels: Pixels, side: int) -> tuple[int, int]:
    """Return width and height of the shape of an image, of at most `side` pixels."""
    factor = min(1.0, side / max(pixels.shape[:2]))
    return max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor))


def _find_box(mask: Floats, pixels: Pixels) -> Box | None:
    """Return the area around the object in the coordinates of the photo; None if there is no object."""
    solid = drop_small_pieces(mask) > 0.5
    # Thin parts have gaps of a few pixels.
    joined = ((mask > _MIN_FAINT) | solid).astype(np.uint8)
    joined = cv2.morphologyEx(joined, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    labels = cv2.connectedComponents(joined, connectivity=8)[1]
    solid = np.isin(labels, np.setdiff1d(np.unique(labels[solid]), [0]))
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    if not len(rows):
        return None
    height, width = pixels.shape[:2]
    left, right = columns[0] / mask.shape[1], (columns[-1] + 1) / mask.shape[1]
    top, bottom = rows[0] / mask.shape[0], (rows[-1] + 1) / mask.shape[0]
    across, down = _SPACE * (right - left), _SPACE * (bottom - top)
    return (
        int(max(0.0, left - across) * width),
        int(max(0.0, top - down) * height),
        int(np.ceil(min(1.0, right + across) * width)),
        int(np.ceil(min(1.0, bottom + down) * height)),
    )


def _cut(mask: Floats, box: Box, pixels: Pixels, size: tuple[int, int]) -> Floats:
    """Return the area `box` of the photo in the square mask of the whole photo, in another size."""
    across, down = mask.shape[1] / pixels.shape[1], mask.shape[0] / pixels.shape[0]
    left, top, right, bottom = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    scale_x, scale_y = (right - left) / size[0], (bottom - top) / size[1]
    matrix = np.array([[scale_x, 0, left + 0.5 * scale_x - 0.5], [0, scale_y, top + 0.5 * scale_y - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(mask, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def drop_small_pieces(mask: Floats) -> Floats:
    """Return the mask without pieces that are small beside the largest and do not belong to it.

    What the network is not sure of connects a wheel or a lace with the product. Without it, a piece belongs
    to the product if the network is sure of it and the gap is narrow.
    """
    solid = mask > 0.5
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    areas[0] = 0
    large = areas >= _MIN_PIECE_SHARE * areas.max()
    is_large = large[labels]
    joined = cv2.connectedComponents((mask > _MIN_FAINT).astype(np.uint8), connectivity=8)[1]
    kept = solid & np.isin(joined, np.unique(joined[is_large]))
    gap = cv2.distanceTransform((~is_large).astype(np.uint8), cv2.DIST_L2, 5)
    reach = _MAX_GAP * float(stats[large][:, (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT)].max())
    for label in np.flatnonzero(~large & (areas >= _MIN_NEAR_SHARE * areas.max())):
        piece = labels == label
        if float(gap[piece].min()) <= reach and float(mask[piece].mean()) >= _MIN_SURE:
            kept |= piece
    # With the soft edge of each piece, but not with that of another one.
    edge = np.ones((5, 5), np.uint8)
    dropped = cv2.dilate((solid & ~kept).astype(np.uint8), edge) > 0
    beside = cv2.dilate(kept.astype(np.uint8), edge) > 0
    return np.where(dropped & ~beside | solid & ~kept, 0, mask).astype(np.float32)
