"""Find the product in a photo by color alone, without a network.

GrabCut segments a small copy of the photo. It starts from a model of the background if it is plain, and from
a saliency map if it is busy.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import smoothstep, to_lab
from studio.rendering.cut_out.color_confidence import (
    AGREEMENT_THRESHOLD,
    adjust_for_residual,
    score_confidence,
)
from studio.rendering.cut_out.network_confidence import overlap
from studio.rendering.cut_out.saliency import saliency
from studio.rendering.geometry import shrink
from studio.rendering.model import Floats, Mask, Pixels

MIN_CONFIDENCE = 0.7
Segmentation = tuple[np.ndarray, float, dict[str, float]]
_SEGMENTED_SIDE = 480
_SALIENCY_SIDE = 220
# Undecided pixels on each side of the outline that was found at half size.
_OUTLINE_WIDTH = 16
_MAX_NOISE = 18.0
# GrabCut takes a hundred times as long on noise. Detail of photos does not shrink when the copy is halved
# (measured: 0.6 to 1.0), and noise halves. Copies with less detail than this are fast anyway.
_MIN_DETAIL, _MAX_NOISE_RATIO = 2.5, 1.4
# Photos whose small copy is segmented with less confidence than this have no product that could be cut out.
_MIN_SMALL_CONFIDENCE = 0.3
# Segmentations that overlap less at half size have no confidence, so that they are not repeated at full size.
_MIN_AGREEMENT = 0.65


def find_color_mask(pixels: Pixels) -> Mask:
    """Return where the colors of the photo say that the product is."""
    height, width = pixels.shape[:2]
    small = shrink(pixels, min(1.0, _SEGMENTED_SIDE / max(height, width)))
    method, (mask, confidence, parts) = _segment(small)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
    return Mask(soft, (0, 0, width, height), method, confidence, confidence >= MIN_CONFIDENCE, parts)


def _segment(small: Pixels) -> tuple[str, Segmentation]:
    """Return the name of the method, the mask, its confidence and the parts of the score."""
    detail = _measure_detail(small)
    if detail > _MAX_NOISE:
        # No photo has so much noise; GrabCut would run for a minute without a result.
        return "grabcut", (np.zeros(small.shape[:2], dtype=bool), 0.0, {})
    if detail > _MAX_NOISE / 2 or _is_noise(small, detail):
        small = shrink(small, 0.5)
    residual, noise, plainness = fit_background(small)
    if plainness > 0.8:
        segmentation = _segment_plain(small, residual, noise, plainness, shadows=True)
        if segmentation[1] < MIN_CONFIDENCE:
            # White on white: the product's shaded sides may have been classified as its shadow.
            segmentation = _segment_plain(small, residual, noise, plainness, shadows=False)
        return "plain_background", segmentation
    # At half size, a segmentation takes a fifth of the time.
    half = shrink(small, 0.5)
    mask, confidence, parts = _segment_busy(half, _hints_salient(half), plainness)
    if confidence < _MIN_SMALL_CONFIDENCE:
        return "grabcut", (mask, confidence, parts)
    # If it is confident, only pixels near its outline are undecided at full size. From the saliency map
    # again, GrabCut would take up to four times as long.
    is_confident = confidence >= MIN_CONFIDENCE
    hints = _hints_near(_enlarge(mask, small)) if is_confident else _hints_salient(small)
    return "grabcut", _segment_busy(small, hints, plainness)


def _measure_detail(pixels: Pixels) -> float:
    """Return the mean difference between pixels and their surroundings, 0..255."""
    return float(np.abs(pixels.astype(np.float32) - cv2.GaussianBlur(pixels, (0, 0), 1.5)).mean())


def _is_noise(pixels: Pixels, detail: float) -> bool:
    """Return whether the detail is noise of single pixels."""
    return detail > _MIN_DETAIL and detail > _MAX_NOISE_RATIO * _measure_detail(shrink(pixels, 0.5))


def _segment_plain(
    pixels: Pixels, residual: Floats, noise: float, plainness: float, shadows: bool
) -> Segmentation:
    """Segment a product before a plain background; return the mask, its confidence and the score's parts."""
    hints = _hints_plain(pixels, residual, noise, shadows)
    mask = _clean_mask(_run_grabcut(pixels, hints))
    if not mask.any() or mask.all():
        return mask, 0.0, {}
    hints[_contact_shadow(pixels, mask)] = cv2.GC_BGD
    mask = _clean_mask(_run_grabcut(pixels, hints))
    if not mask.any():
        return mask, 0.0, {}
    confidence, parts = score_confidence(pixels, mask, _agreement(pixels, mask, None), plainness, None)
    unexplained = (residual > max(8.0, 6.0 * noise)) & ~mask & (hints != cv2.GC_BGD)
    return mask, *adjust_for_residual(confidence, parts, float(unexplained.sum()) / float(mask.sum()))


def _segment_busy(pixels: Pixels, hints: Pixels, plainness: float) -> Segmentation:
    """Segment a product before a busy background; return the mask, its confidence and the score's parts."""
    mask = _clean_mask(_run_grabcut(pixels, hints))
    if not mask.any() or mask.all():
        return mask, 0.0, {}
    skin = detect_skin(pixels)
    body = skin if 0.004 < float(skin[mask].mean()) < 0.35 else None
    if body is not None:
        # A person wears the product: their arms and hands are background too.
        hints = np.where(mask, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        hints[body] = cv2.GC_BGD
        mask = _clean_mask(_run_grabcut(pixels, hints))
        if not mask.any():
            return mask, 0.0, {}
    return mask, *score_confidence(pixels, mask, _agreement(pixels, mask, body), plainness, body)


def _agreement(pixels: Pixels, mask: np.ndarray, body: np.ndarray | None) -> float:
    """Return the overlap with a second segmentation that starts from other hints.

    A correct segmentation does not depend on its start. The comparison at half size takes a fifth of the
    time; it is repeated at full size only if the two disagree somewhat.
    """
    small_body = None if body is None else _halve(body)
    at_half = _overlap_with_second_segmentation(shrink(pixels, 0.5), _halve(mask), small_body)
    if not _MIN_AGREEMENT <= at_half < AGREEMENT_THRESHOLD:
        return at_half
    return _overlap_with_second_segmentation(pixels, mask, body)


def _enlarge(mask: np.ndarray, pixels: Pixels) -> np.ndarray:
    size = (pixels.shape[1], pixels.shape[0])
    return cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127


def _halve(mask: np.ndarray) -> np.ndarray:
    return shrink(mask.astype(np.uint8) * 255, 0.5) > 127


def _overlap_with_second_segmentation(pixels: Pixels, mask: np.ndarray, body: np.ndarray | None) -> float:
    return overlap(mask, _clean_mask(_run_grabcut(pixels, _hints_around(mask, body))))


def fit_background(pixels: Pixels) -> tuple[Floats, float, float]:
    """Fit a smooth background to the border.

    Returns:
        The distance of each pixel to it, the noise of the background, and how plain it is (0..1).
    """
    values = to_lab(pixels)
    height, width = values.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(rows), rows, columns, rows * columns, rows**2, columns**2], axis=-1)
    edge = max(3, min(height, width) // 24)
    border = np.zeros((height, width), dtype=bool)
    border[:edge], border[-edge:], border[:, :edge], border[:, -edge:] = True, True, True, True
    keep = border.copy()
    for _ in range(4):
        solution, *_ = np.linalg.lstsq(terms[keep], values[keep], rcond=None)
        error = np.linalg.norm(values - terms @ solution, axis=2)
        limit = max(3.0, 2.5 * float(np.median(error[keep])))
        keep = border & (error < limit)
        if keep.sum() < 60:
            break
    noise = float(np.median(error[border]))
    plain_share = float(np.mean(error[border] < max(4.0, 3 * noise)))
    plainness = plain_share * float(1 - smoothstep(2.5, 7.0, np.asarray(noise, np.float32)))
    return error.astype(np.float32), max(noise, 0.6), plainness


def _hints_plain(pixels: Pixels, residual: Floats, noise: float, shadows: bool) -> Pixels:
    """Return GrabCut's hints for a plain background, from the residual of the fitted background."""
    smooth = cv2.GaussianBlur(residual, (0, 0), 0.8)
    low, high = max(2.4, 3.0 * noise), max(4.8, 5.0 * noise)
    hints = np.full(residual.shape, cv2.GC_PR_FGD, dtype=np.uint8)
    hints[smooth < high] = cv2.GC_PR_BGD
    # Background-like pixels inside the product may be product: only those connected to the border are
    # certain.
    calm = (smooth < low).astype(np.uint8)
    _, labels = cv2.connectedComponents(calm, connectivity=4)
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, np.setdiff1d(np.unique(edges), [0])) & (calm > 0)
    hints[outside] = cv2.GC_BGD
    core = cv2.erode((smooth > 2 * high).astype(np.uint8), np.ones((5, 5), np.uint8))
    hints[core > 0] = cv2.GC_FGD
    if shadows:
        hints[_shadow(pixels, outside)] = cv2.GC_BGD
    return hints


def find_darker_background(pixels: Pixels, outside: np.ndarray) -> tuple[np.ndarray, Floats]:
    """Return where pixels look like the background in shadow, and their brightness relative to it."""
    image = cv2.GaussianBlur(pixels, (0, 0), 1.0).astype(np.float32) + 2.0
    ratio = image / np.median(image[outside], axis=0)
    mean = ratio.mean(axis=2).astype(np.float32)
    even = (ratio.max(axis=2) - ratio.min(axis=2)) < 0.06 + 0.10 * (1 - np.clip(mean, 0, 1))
    return even & (mean < 1.08), mean


def _reachable_from(reachable: np.ndarray, outside: np.ndarray) -> np.ndarray:
    _, labels = cv2.connectedComponents((reachable | outside).astype(np.uint8), connectivity=4)
    return np.isin(labels, np.setdiff1d(np.unique(labels[outside]), [0])) & ~outside


def _shadow(pixels: Pixels, outside: np.ndarray) -> np.ndarray:
    """Return the product's shadow in the photo: darker background, connected to it without an edge between.

    A gray product is darker background too, but its outline is an edge, and that of a shadow is a slope.
    """
    if outside.sum() < 50:
        return np.zeros(outside.shape, dtype=bool)
    darker, mean = find_darker_background(pixels, outside)
    slope = np.hypot(cv2.Sobel(mean, cv2.CV_32F, 1, 0), cv2.Sobel(mean, cv2.CV_32F, 0, 1)) / 8
    candidates = max(1, int((~outside).sum()))
    for steepest in (0.035, 0.012):
        shadow = _reachable_from(darker & (mean > 0.35) & (slope < steepest), outside)
        # A "shadow" of more than half of the area is the product itself, gray and softly lit.
        if shadow.sum() < 0.5 * candidates:
            return shadow
    return np.zeros(outside.shape, dtype=bool)


def _contact_shadow(pixels: Pixels, mask: np.ndarray) -> np.ndarray:
    """Return the dark contact line under a product, where the shadow has an edge.

    Only for products whose color differs from the background.
    """
    outside = ~mask
    darker, _ = find_darker_background(pixels, outside)
    if float(darker[mask].mean()) > 0.25:
        return np.zeros(mask.shape, dtype=bool)
    rows = np.flatnonzero(mask.any(axis=1))
    tall = int(rows[-1] - rows[0])
    darker[: int(rows[-1] - 0.15 * tall)] = False
    darker &= cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) < 0.05 * tall
    return _reachable_from(darker, outside)


def _hints_salient(pixels: Pixels) -> Pixels:
    """Return GrabCut's hints for a busy background, from a saliency map."""
    height, width = pixels.shape[:2]
    tiny = shrink(pixels, min(1.0, _SALIENCY_SIDE / max(height, width)))
    salient = cv2.resize(saliency(to_lab(tiny)), (width, height), interpolation=cv2.INTER_LINEAR)
    hints = np.full((height, width), cv2.GC_PR_BGD, dtype=np.uint8)
    hints[salient > 0.45] = cv2.GC_PR_FGD
    hints[salient > 0.92] = cv2.GC_FGD
    hints[salient < 0.03] = cv2.GC_BGD
    return hints


def _hints_near(mask: np.ndarray) -> Pixels:
    """Return GrabCut's hints from a mask of which only the outline is uncertain."""
    solid = mask.astype(np.uint8)
    inside = cv2.distanceTransform(solid, cv2.DIST_L2, 3)
    outside = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3)
    hints = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    hints[inside > _OUTLINE_WIDTH] = cv2.GC_FGD
    hints[outside > _OUTLINE_WIDTH] = cv2.GC_BGD
    return hints


def detect_skin(pixels: Pixels) -> np.ndarray:
    """Return the patches that have the color of skin (Chai and Ngan, 1999, in YCrCb)."""
    values = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)
    skin = cv2.inRange(values, np.array([30, 137, 85]), np.array([245, 168, 126])).astype(np.uint8)
    skin = cv2.morphologyEx(skin, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    return cv2.dilate(skin, np.ones((3, 3), np.uint8)) > 0


def _hints_around(mask: np.ndarray, body: np.ndarray | None) -> Pixels:
    """Return GrabCut's hints from a mask: certain only far outside of it and deep inside."""
    solid = mask.astype(np.uint8)
    reach = max(3, round(0.16 * float(np.sqrt(solid.sum()))))
    deep = cv2.distanceTransform(solid, cv2.DIST_L2, 3)
    far = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3)
    hints = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    hints[(far > 0) & (far < reach)] = cv2.GC_PR_FGD
    hints[deep > min(reach, 0.8 * float(deep.max()))] = cv2.GC_FGD
    hints[far > 2 * reach] = cv2.GC_BGD
    if body is not None:
        hints[body] = cv2.GC_BGD
    return hints


def _run_grabcut(pixels: Pixels, hints: Pixels) -> np.ndarray:
    """Run GrabCut and return the foreground; the same hints always give the same mask."""
    foreground = np.isin(hints, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if foreground.sum() < 40 or (~foreground).sum() < 40:
        return foreground
    models = np.zeros((1, 65)), np.zeros((1, 65))
    mask = hints.copy()
    # GrabCut starts with k-means, which uses OpenCV's random generator of the thread.
    cv2.setRNGSeed(7)
    cv2.grabCut(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), mask, None, *models, 4, cv2.GC_INIT_WITH_MASK)
    return np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _clean_mask(mask: np.ndarray) -> np.ndarray:
    """Remove specks and pinholes; real holes, such as in a handle, stay."""
    binary = mask.astype(np.uint8)
    binary = cv2.morphologyEx(binary, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    if count <= 1:
        return binary > 0
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = np.flatnonzero(areas >= max(30, 0.12 * areas.max())) + 1
    binary = np.isin(labels, large).astype(np.uint8)
    return _fill_false_holes(binary) > 0


def _fill_false_holes(binary: np.ndarray) -> np.ndarray:
    """Fill pinholes and holes deep inside: the hole of a handle is near the outline, a white print is not."""
    area = float(binary.sum())
    count, holes, stats, _ = cv2.connectedComponentsWithStats(1 - binary, connectivity=4)
    edges = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    outside = np.isin(holes, np.setdiff1d(np.unique(edges), [0]))
    to_outside = cv2.distanceTransform((~outside).astype(np.uint8), cv2.DIST_L2, 3)
    for label in np.setdiff1d(np.arange(1, count), edges):
        hole = holes == label
        if stats[label, cv2.CC_STAT_AREA] < 0.0012 * area or to_outside[hole].min() > 0.17 * np.sqrt(area):
            binary[hole] = 1
    return binary
