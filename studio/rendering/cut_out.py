"""Cut a product out of its photo and score the confidence in the cut-out.

If the file has transparency, its alpha channel is used. Otherwise GrabCut segments a small copy, starting
from a model of the background if it is plain and from a saliency map if it is busy; `matting` then refines
the edges at full size.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from studio.media.inspection import open_stored
from studio.rendering.colour import smoothstep, to_lab, to_srgb
from studio.rendering.confidence import (
    AGREEMENT_THRESHOLD,
    adjust_for_residual,
    overlap,
    score_confidence,
)
from studio.rendering.matting import nearby_colour, refine_mask
from studio.rendering.model import CutOut, CutOutMethod, Floats, Pixels
from studio.rendering.saliency import saliency

MIN_CONFIDENCE = 0.7
Segmentation = tuple[np.ndarray, float, dict[str, float]]
_MAX_SIDE = 3000
# The closest framing enlarges a part of the product: this many pixels of the photo per pixel of the output
# keep it sharp.
_PHOTO_PIXELS_PER_OUTPUT_PIXEL = 4
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
# A product stands if its base deviates from a smooth curve by at most this share of the product's width
# (mean).
_MAX_BASE_DEVIATION = 0.003


def get_working_side(output_side: int) -> int:
    """Return the longer side, in pixels, to which a photo is reduced for an output of this longer side.

    It bounds the time: a photo of 64 megapixels costs no more than a photo of 9.
    """
    return min(_MAX_SIDE, _PHOTO_PIXELS_PER_OUTPUT_PIXEL * output_side)


def cut_out_product(product: bytes | Image.Image, output_side: int = _MAX_SIDE) -> CutOut:
    """Return the cut-out of a product photo, to be shared by all predictions of one generation.

    Never raises for a valid image: below `MIN_CONFIDENCE` the method is `framed_crop`.

    Args:
        product: The upright photo, as a stored file or opened.
        output_side: The longer side of the predictions, in pixels.
    """
    image = open_stored(product) if isinstance(product, bytes) else product
    pixels, alpha = to_srgb(image)
    scale = get_working_side(output_side) / max(pixels.shape[:2])
    if scale < 1:
        pixels = _resize(pixels, scale)
        alpha = None if alpha is None else _resize(alpha, scale)
    if alpha is not None and _is_meaningful(alpha):
        return _from_alpha(pixels, alpha)
    if alpha is not None and int(alpha.min()) < 250:
        pixels = _over_white(pixels, alpha)
    if min(pixels.shape[:2]) < 32:
        return build_framed_cut_out(pixels)
    return _from_photo(pixels)


def shrink_cut_out(cut_out: CutOut, factor: float) -> CutOut:
    """Return a smaller copy of a cut-out; `factor` is below 1."""
    photo, product, alpha = (
        _resize(pixels, factor) for pixels in (cut_out.photo, cut_out.product, cut_out.alpha)
    )
    left, top = round(cut_out.box[0] * factor), round(cut_out.box[1] * factor)
    box = (left, top, left + product.shape[1], top + product.shape[0])
    return replace(cut_out, photo=photo, product=product, alpha=alpha, box=box)


def build_framed_cut_out(
    pixels: Pixels, confidence: float = 0.0, parts: dict[str, float] | None = None
) -> CutOut:
    """Return the whole photo as a cut-out that is shown as a framed crop."""
    height, width = pixels.shape[:2]
    opaque = np.full((height, width), 255, dtype=np.uint8)
    return CutOut(
        pixels, pixels, opaque, (0, 0, width, height), "framed_crop", confidence, confidence_parts=parts or {}
    )


def _resize(pixels: Pixels, scale: float) -> Pixels:
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    share = alpha.astype(np.float32)[..., None] / 255.0
    return (pixels * share + 255.0 * (1 - share) + 0.5).astype(np.uint8)


def _is_meaningful(alpha: Pixels) -> bool:
    """Return whether the alpha channel outlines a product, and is not opaque or empty throughout."""
    clear, solid = float(np.mean(alpha < 16)), float(np.mean(alpha > 200))
    return clear > 0.02 and solid > 0.01


def _from_alpha(pixels: Pixels, alpha: Pixels) -> CutOut:
    # Transparent pixels may have any colour; resampling would mix it into the rim.
    solid = (alpha > 240).astype(np.float32)
    box = _bounding_box(alpha, pad=4)
    left, top, right, bottom = box
    product, opacity = pixels[top:bottom, left:right].copy(), alpha[top:bottom, left:right]
    around = nearby_colour(product.astype(np.float32), solid[top:bottom, left:right], 4)
    product[opacity < 24] = np.clip(around[opacity < 24], 0, 255).astype(np.uint8)
    photo = _over_white(pixels, alpha)
    return CutOut(
        photo,
        product,
        opacity.copy(),
        box,
        "alpha",
        0.98,
        _find_touched_sides(alpha),
        _is_standing(opacity),
        {},
    )


def _from_photo(pixels: Pixels) -> CutOut:
    height, width = pixels.shape[:2]
    small = _resize(pixels, min(1.0, _SEGMENTED_SIDE / max(height, width)))
    detail = _measure_detail(small)
    if detail > _MAX_NOISE:
        # No photo has so much noise; GrabCut would run for a minute without a result.
        return build_framed_cut_out(pixels)
    if detail > _MAX_NOISE / 2 or _is_noise(small, detail):
        small = _resize(small, 0.5)
    residual, noise, plainness = _background_residual(small)
    method: CutOutMethod = "plain_background" if plainness > 0.8 else "grabcut"
    if method == "plain_background":
        mask, confidence, parts = _segment_plain(small, residual, noise, plainness, shadows=True)
        if confidence < MIN_CONFIDENCE:
            # White on white: the product's shaded sides may have been classified as its shadow.
            mask, confidence, parts = _segment_plain(small, residual, noise, plainness, shadows=False)
    else:
        # At half size, a segmentation takes a fifth of the time.
        half = _resize(small, 0.5)
        mask, confidence, parts = _segment_busy(half, _hints_salient(half), plainness)
        if confidence < _MIN_SMALL_CONFIDENCE:
            return build_framed_cut_out(pixels, confidence, parts)
        # If it is confident, only pixels near its outline are undecided at full size. From the saliency map
        # again, GrabCut would take up to four times as long.
        is_confident = confidence >= MIN_CONFIDENCE
        hints = _hints_near(_enlarge(mask, small)) if is_confident else _hints_salient(small)
        mask, confidence, parts = _segment_busy(small, hints, plainness)
    if confidence < MIN_CONFIDENCE:
        return build_framed_cut_out(pixels, confidence, parts)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
    full = np.clip(cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    factor = max(height, width) / max(small.shape[:2])
    band = int(np.clip(round(1.6 * factor + 1), 3, 12))
    left, top, right, bottom = _bounding_box((full * 255).astype(np.uint8), pad=4 * band)
    product, alpha = refine_mask(pixels[top:bottom, left:right], full[top:bottom, left:right], band)
    inner = _bounding_box(alpha, pad=4)
    product = np.ascontiguousarray(product[inner[1] : inner[3], inner[0] : inner[2]])
    alpha = np.ascontiguousarray(alpha[inner[1] : inner[3], inner[0] : inner[2]])
    box = (left + inner[0], top + inner[1], left + inner[2], top + inner[3])
    touches = _find_touched_sides((full * 255).astype(np.uint8))
    return CutOut(pixels, product, alpha, box, method, confidence, touches, _is_standing(alpha), parts)


def _measure_detail(pixels: Pixels) -> float:
    """Return the mean difference between pixels and their surroundings, 0..255."""
    return float(np.abs(pixels.astype(np.float32) - cv2.GaussianBlur(pixels, (0, 0), 1.5)).mean())


def _is_noise(pixels: Pixels, detail: float) -> bool:
    """Return whether the detail is noise of single pixels."""
    return detail > _MIN_DETAIL and detail > _MAX_NOISE_RATIO * _measure_detail(_resize(pixels, 0.5))


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
    at_half = _overlap_with_second_segmentation(_resize(pixels, 0.5), _halve(mask), small_body)
    if not _MIN_AGREEMENT <= at_half < AGREEMENT_THRESHOLD:
        return at_half
    return _overlap_with_second_segmentation(pixels, mask, body)


def _enlarge(mask: np.ndarray, pixels: Pixels) -> np.ndarray:
    size = (pixels.shape[1], pixels.shape[0])
    return cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127


def _halve(mask: np.ndarray) -> np.ndarray:
    return _resize(mask.astype(np.uint8) * 255, 0.5) > 127


def _overlap_with_second_segmentation(pixels: Pixels, mask: np.ndarray, body: np.ndarray | None) -> float:
    return overlap(mask, _clean_mask(_run_grabcut(pixels, _hints_around(mask, body))))


def _bounding_box(alpha: Pixels, pad: int) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero((alpha > 24).any(axis=1)), np.flatnonzero((alpha > 24).any(axis=0))
    if not len(rows):
        return 0, 0, alpha.shape[1], alpha.shape[0]
    height, width = alpha.shape
    return (
        max(0, int(columns[0]) - pad),
        max(0, int(rows[0]) - pad),
        min(width, int(columns[-1]) + 1 + pad),
        min(height, int(rows[-1]) + 1 + pad),
    )


def _background_residual(pixels: Pixels) -> tuple[Floats, float, float]:
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


def _darker_background(pixels: Pixels, outside: np.ndarray) -> tuple[np.ndarray, Floats]:
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

    A grey product is darker background too, but its outline is an edge, and that of a shadow is a slope.
    """
    if outside.sum() < 50:
        return np.zeros(outside.shape, dtype=bool)
    darker, mean = _darker_background(pixels, outside)
    slope = np.hypot(cv2.Sobel(mean, cv2.CV_32F, 1, 0), cv2.Sobel(mean, cv2.CV_32F, 0, 1)) / 8
    candidates = max(1, int((~outside).sum()))
    for steepest in (0.035, 0.012):
        shadow = _reachable_from(darker & (mean > 0.35) & (slope < steepest), outside)
        # A "shadow" of more than half of the area is the product itself, grey and softly lit.
        if shadow.sum() < 0.5 * candidates:
            return shadow
    return np.zeros(outside.shape, dtype=bool)


def _contact_shadow(pixels: Pixels, mask: np.ndarray) -> np.ndarray:
    """Return the dark contact line under a product, where the shadow has an edge.

    Only for products whose colour differs from the background.
    """
    outside = ~mask
    darker, _ = _darker_background(pixels, outside)
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
    tiny = _resize(pixels, min(1.0, _SALIENCY_SIDE / max(height, width)))
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
    """Return the patches that have the colour of skin (Chai and Ngan, 1999, in YCrCb)."""
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


def _find_touched_sides(alpha: Pixels) -> frozenset[str]:
    """Return the edges of the photo that cut the product off."""
    sides = {"left": alpha[:, :2], "right": alpha[:, -2:], "top": alpha[:2], "bottom": alpha[-2:]}
    return frozenset(name for name, strip in sides.items() if float(np.mean(strip > 128)) > 0.03)


def _is_standing(alpha: Pixels) -> bool:
    """Return whether the lowest part is a broad base, flat or evenly round. A hem is broad but wavy."""
    solid = alpha > 128
    rows = np.flatnonzero(solid.any(axis=1))
    if not len(rows):
        return False
    lowest = solid[max(0, int(rows[-1]) - max(2, len(rows) // 25)) : int(rows[-1]) + 1]
    columns = np.flatnonzero(lowest.any(axis=0))
    if len(columns) / solid.shape[1] <= 0.28 or len(columns) < 8:
        return False
    # The ends are rounded even on a flat base.
    inset = max(1, len(columns) // 12)
    columns = columns[inset:-inset]
    bottoms = (solid.shape[0] - np.argmax(solid[::-1], axis=0))[columns].astype(np.float64)
    across = (columns - columns.mean()) / max(1.0, float(np.ptp(columns)))
    deviation = bottoms - np.polyval(np.polyfit(across, bottoms, 2), across)
    return float(np.abs(deviation).mean()) < _MAX_BASE_DEVIATION * solid.shape[1]
