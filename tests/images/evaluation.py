"""Run the renderer on the image set and hold the results against thresholds."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studio.rendering import DOUBTFUL, Background, CutOut, Mask, RenderRequest, cut_out_product, render
from studio.rendering.compose.framing import Pose
from studio.rendering.cut_out.mask_providers import find_u2netp_mask
from studio.rendering.model import Pixels
from tests.images.measurements import (
    compare,
    get_area_under_curve,
    get_color_difference,
    get_intersection_over_union,
)
from tests.images.photographs import Photograph

WRONG_BELOW = 0.85
"""Overlap below which a mask counts as wrong: a seventh of the product is missing or too much, which is more
than a retoucher would mend."""
PREDICTIONS, WIDTH, HEIGHT = 4, 480, 640
# A ranking of fewer right or wrong masks says nothing.
_MIN_MASKS = 5
# Thresholds: name of the row, whether a result fulfills it.
_THRESHOLDS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "IoU, plain, without a warning": (">= 0.97", lambda value: value >= 0.97),
    "IoU, busy, without a warning": (">= 0.90", lambda value: value >= 0.90),
    "right masks with a warning": ("<= 0.20", lambda value: value <= 0.20),
    "AUC of the confidence, held out": (">= 0.90", lambda value: value >= 0.90),
    "color difference, median": ("<= 1.0", lambda value: value <= 1.0),
    "right kind of shadow": (">= 0.90", lambda value: value >= 0.90),
    # More things that stand must not mean that everything stands. A bag or a shoe that lies has the base of
    # one that stands, so the outline cannot tell.
    "hanging, with a shadow on the ground": ("<= 0.00", lambda value: value <= 0.0),
    "lying, with a shadow on the ground": ("<= 0.60", lambda value: value <= 0.60),
}
# The product has no kind of shadow to be right or wrong: the photo lacks a part of it.
_WITHOUT_KIND = "bleeding"


@dataclass(frozen=True, eq=False)
class Result:
    """What was measured on one photograph."""

    photograph: Photograph
    overlap: float
    """Intersection over union of the mask and the truth."""
    confidence: float
    is_doubtful: bool
    """Whether the prediction has the warning `mask_uncertain` or `not_cut_out`."""
    is_shown: bool
    """Whether the predictions show the cut-out; otherwise they show the photo."""
    color_differences: tuple[float, ...]
    """Per prediction the median CIEDE2000 between the product in the photo and in the prediction."""
    spread: float | None
    """Largest CIEDE2000 between the mean colors of two predictions."""
    white_shares: tuple[float, ...]
    pose: Pose | None
    """Pose in which the first prediction shows the product, or None if it shows the photo."""
    seconds: float
    """CPU time of the cut-out and the predictions."""
    sample: Image.Image
    """The first prediction."""

    @property
    def is_right(self) -> bool:
        """Return whether the mask counts as right."""
        return self.overlap >= WRONG_BELOW

    @property
    def is_on_ground(self) -> bool:
        """Return whether the prediction has a shadow on the ground."""
        return self.pose == "standing"


def evaluate(photograph: Photograph) -> Result:
    """Cut the product out, render predictions without a style on white, and measure them."""
    masks: list[Mask] = []

    def find_mask(pixels: Pixels) -> Mask:
        masks.append(find_u2netp_mask(pixels))
        return masks[-1]

    started = time.process_time()
    cut_out = cut_out_product(Image.open(io.BytesIO(photograph.data)), HEIGHT, find_mask)
    white = Background("SOLID", "#FFFFFF", shadow="NONE")
    requests = [
        RenderRequest(cut_out, WIDTH, HEIGHT, background=white, variant=variant)
        for variant in range(PREDICTIONS)
    ]
    renderings = [render(request) for request in requests]
    seconds = time.process_time() - started
    mask = _place_alpha(cut_out) if _shows_cut_out(cut_out) else _place_mask(masks[-1], cut_out.photo)
    truth = cv2.resize(photograph.truth, mask.shape[::-1], interpolation=cv2.INTER_AREA)
    differences, means, shares, pose = [], [], [], None
    if _shows_cut_out(cut_out):
        found = [compare(*pair) for pair in zip(requests, renderings, strict=True)]
        measured = [each for each in found if len(each.rendered)]
        differences = [
            float(np.median(get_color_difference(each.photographed, each.rendered))) for each in measured
        ]
        means = [each.rendered.mean(axis=0) for each in measured]
        shares = [each.white_share for each in found]
        pose = found[0].pose
    return Result(
        photograph,
        get_intersection_over_union(mask, truth),
        cut_out.confidence,
        not DOUBTFUL.isdisjoint(renderings[0].warnings) or not _shows_cut_out(cut_out),
        _shows_cut_out(cut_out),
        tuple(differences),
        max((float(get_color_difference(*pair)) for pair in combinations(means, 2)), default=None),
        tuple(shares),
        pose,
        seconds,
        Image.open(io.BytesIO(renderings[0].image)),
    )


def _shows_cut_out(cut_out: CutOut) -> bool:
    return cut_out.is_trusted and not cut_out.is_extended


def _place_alpha(cut_out: CutOut) -> NDArray[np.bool_]:
    """Return the cut-out's mask in the size of its photo."""
    left, top, right, bottom = cut_out.box
    mask = np.zeros(cut_out.photo.shape[:2], dtype=bool)
    mask[top:bottom, left:right] = cut_out.alpha > 127
    return mask


def _place_mask(found: Mask, photo: Pixels) -> NDArray[np.bool_]:
    """Return a mask that is not shown, in the size of its photo."""
    left, top, right, bottom = found.box
    mask = np.zeros(photo.shape[:2], dtype=bool)
    mask[top:bottom, left:right] = cv2.resize(found.values, (right - left, bottom - top)) > 0.5
    return mask


def summarize(results: Sequence[Result]) -> dict[str, float]:
    """Return the numbers of the table by the names of its rows. Rows without a photograph are left out."""
    rows: dict[str, float] = {}
    for kind in ("plain", "busy", "hard"):
        overlaps = [result.overlap for result in results if result.photograph.kind == kind]
        trusted = [each.overlap for each in results if each.photograph.kind == kind and not each.is_doubtful]
        if overlaps:
            rows |= {f"IoU, {kind}, mean": float(np.mean(overlaps)), f"IoU, {kind}, lowest": min(overlaps)}
        if trusted:
            rows[f"IoU, {kind}, without a warning"] = float(np.mean(trusted))
    for half, is_held_out in (("calibration", False), ("held out", True)):
        part = [result for result in results if result.photograph.is_held_out == is_held_out]
        right, wrong = (
            [each.confidence for each in part if each.is_right == is_right] for is_right in (True, False)
        )
        if min(len(right), len(wrong)) >= _MIN_MASKS:
            rows[f"wrong masks, {half}"] = len(wrong) / len(part)
            rows[f"AUC of the confidence, {half}"] = get_area_under_curve(right, wrong)
    for name, is_right in (("right masks with a warning", True), ("wrong masks without a warning", False)):
        part = [each for each in results if each.is_right == is_right]
        if part:
            rows[name] = float(np.mean([each.is_doubtful == is_right for each in part]))
    differences = [value for result in results for value in result.color_differences]
    if differences:
        rows |= {
            "color difference, median": float(np.median(differences)),
            "color difference, largest median": max(differences),
            "color spread between predictions": max(result.spread or 0.0 for result in results),
            "background at exactly 255, lowest": min(
                min(result.white_shares or (1.0,)) for result in results
            ),
        }
    rows |= _summarize_shadows(results)
    rows["shown as a cut-out"] = float(np.mean([result.is_shown for result in results]))
    rows["CPU seconds per photograph"] = float(np.mean([result.seconds for result in results]))
    return rows


def _summarize_shadows(results: Sequence[Result]) -> dict[str, float]:
    """Return how often a shadow on the ground is right, and how many photographs have no kind of shadow."""
    rows: dict[str, float] = {}
    with_kind = [each for each in results if each.pose not in (None, _WITHOUT_KIND)]
    # Garments may hang or lie.
    known = [each for each in with_kind if each.photograph.pose != "lying"]
    if known:
        right = [each.is_on_ground == (each.photograph.pose == "standing") for each in known]
        rows["right kind of shadow"] = float(np.mean(right))
    for pose in ("hanging", "lying"):
        part = [each.is_on_ground for each in with_kind if each.photograph.pose == pose]
        if part:
            rows[f"{pose}, with a shadow on the ground"] = float(np.mean(part))
    rows["without a kind: shown as a photo"] = float(sum(each.pose is None for each in results))
    rows["without a kind: cut off by the photo"] = float(sum(each.pose == _WITHOUT_KIND for each in results))
    return rows


def find_misses(rows: dict[str, float]) -> list[str]:
    """Return the names of the rows that miss their thresholds."""
    return [name for name, (_, fulfills) in _THRESHOLDS.items() if name in rows and not fulfills(rows[name])]


def format_table(rows: dict[str, float]) -> str:
    """Return the rows with their thresholds and whether they are met."""
    missed = find_misses(rows)
    lines = [f"{'':<40}{'value':>9}  threshold"]
    for name, value in rows.items():
        threshold = _THRESHOLDS[name][0] if name in _THRESHOLDS else ""
        verdict = "MISSED" if name in missed else "met" if threshold else ""
        lines.append(f"{name:<40}{value:>9.3f}  {threshold:<9} {verdict}".rstrip())
    return "\n".join(lines)


def format_photographs(results: Sequence[Result]) -> str:
    """Return one line per photograph whose mask is wrong, the most confident first."""
    wrong = sorted((each for each in results if not each.is_right), key=lambda each: -each.confidence)
    lines = [
        f"  {each.photograph.name}, {each.photograph.condition}: IoU {each.overlap:.2f}, "
        f"confidence {each.confidence:.2f}{', with a warning' if each.is_doubtful else ''}"
        for each in wrong
    ]
    return "\n".join([f"{len(wrong)} of {len(results)} masks are wrong (IoU below {WRONG_BELOW}):", *lines])
