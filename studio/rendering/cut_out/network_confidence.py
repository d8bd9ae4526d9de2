"""Turn signs of a wrong mask into the probability that the mask of a network is right.

A network that is sure of an object finds the same object in the whole photo, in its mirror image and in the
part around the object. Four signs are measured: how much the masks of the passes agree, how much those of
the photo and its mirror image agree, how much of the mask is neither product nor background, and how much of
it has the colors of its surroundings. On plain paper, colors find the product without the network: a mask
that both find is right, whatever the other signs say, unless lines on the paper outline a part of the color
of the paper.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.model import Floats

MIN_CONFIDENCE = 0.86
"""Cut-outs below this probability get the warning `mask_uncertain`."""
# Logistic regression of "the overlap with the truth is at least 0.85" on the product of the four signs. It
# was fitted to the calibration half of the image set (`tests/images`: 45 usable masks, 8 of them wrong), when
# the part around the product was looked at once and not mirrored. Distinctness and the colors of plain paper
# were added when both halves had been seen, so the area under the curve (`make images`) is no blind result.
_SLOPE, _INTERCEPT = 7.87, -5.20
# Photos whose two masks overlap less than this show no object that stands out.
_MIN_AGREEMENT = 0.5
# Share of the photo below which a mask is a speck, and above which it has no background left.
_MIN_SHARE, _MAX_SHARE = 0.002, 0.97
# Values between these belong to nothing.
_UNCERTAIN = (0.25, 0.75)


def score_agreement(
    first: Floats,
    second: Floats,
    share: float,
    mirror: float,
    distinctness: float,
    paper: float,
    completeness: float = 1.0,
) -> tuple[float, bool, dict[str, float]]:
    """Return the probability that a mask is right, whether it may be shown, and the parts of the score.

    Args:
        first: The mask that the network found in the whole photo, 0..1.
        second: The mask of both passes, 0..1, of the same size and area.
        share: The share of the photo that the second mask covers.
        mirror: The overlap of the masks of the whole photo and its mirror image, 0..1.
        distinctness: The share of the mask whose colors are not typical of its surroundings, 0..1.
        paper: The overlap of the corrected mask with what differs from plain paper, 0..1.
        completeness: The share of the product that the mask has, 0..1, as far as lines on plain paper show.
    """
    agreement = overlap(first > 0.5, second > 0.5)
    certainty = measure_certainty(second)
    signs = {
        "agreement": agreement,
        "certainty": certainty,
        "mirror": mirror,
        "distinctness": distinctness,
        "paper": paper,
        "completeness": completeness,
        "share": share,
    }
    is_usable = agreement >= _MIN_AGREEMENT and _MIN_SHARE <= share <= _MAX_SHARE
    value = max(agreement * certainty * mirror * distinctness, paper) * completeness
    confidence = calibrate(value) if is_usable else 0.0
    return confidence, is_usable, {name: round(value, 4) for name, value in signs.items()}


def calibrate(value: float) -> float:
    """Return the probability that a mask is right, from the product of its signs, 0..1."""
    return round(float(1 / (1 + np.exp(-_SLOPE * value - _INTERCEPT))), 4)


def measure_certainty(mask: Floats) -> float:
    """Return 1 minus the area away from the outline whose values are undecided, relative to the mask."""
    solid = (mask > 0.5).astype(np.uint8)
    # Undecided values along the outline are soft edges.
    outline = cv2.morphologyEx(solid, cv2.MORPH_GRADIENT, np.ones((7, 7), np.uint8)) > 0
    undecided = (mask > _UNCERTAIN[0]) & (mask < _UNCERTAIN[1]) & ~outline
    return 1 - min(1.0, float(undecided.sum()) / max(1.0, float(solid.sum())))


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return float((mask & other).sum()) / max(1.0, float((mask | other).sum()))
