"""Check the mask of a network against the colors of the photo, and correct it where the background is plain.

A network of 320 x 320 pixels knows what a thing is, but closes holes (rings, handles, the back of a chair)
and overlooks thin or faint parts (a cord, a strap). On plain paper, what has exactly the paper's color is a
hole, and what clearly differs from the paper and touches the product is a part of it. On a dark background,
the dark parts of a product have its color too: nothing is a hole there, and a narrow gap between two large
pieces (the hinge between screen and keyboard) is a part of the product. On a background that is not plain,
colors cannot correct a mask: a white hat before a pale sky would lose half of itself. They only say how much
of the mask looks like its surroundings.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.rendering.color import to_lab
from studio.rendering.cut_out.color_mask import find_darker_background, fit_background
from studio.rendering.geometry import shrink
from studio.rendering.model import Box, Floats, Pixels

# The thresholds were chosen on the image set (`make images`): on plain backgrounds, the mean overlap with the
# truth rises from 0.949 to 0.968.
_SIDE = 480
# Share of the photo above which a mask leaves no background.
_MAX_SHARE = 0.97
_MIN_PLAINNESS = 0.8
# Lightness (CIE L*) below which a background is dark.
_MAX_DARKNESS = 30.0
# Difference (CIE76) between the two sides of an outline below which it is not visible, and the width of
# each side in pixels of the small copy.
_MIN_EDGE, _EDGE_WIDTH = 6.0, 4
# Noise (CIE76) above which a background is a texture, on which other things may lie.
_MAX_NOISE = 2.0
# Distance to the fitted paper, in units of its noise, below which a pixel is paper.
_PAPER_NOISE = 1.5
# Distance to it (CIE76) and in units of its noise that the product has around a hole, along this share of the
# hole's outline.
_MIN_OUTLINE, _OUTLINE_NOISE, _MIN_OUTLINED = 4.0, 4.0, 0.5
# Distance to the fitted paper (CIE76) and in units of its noise above which a pixel is something else.
_MIN_DIFFERENCE, _DIFFERENCE_NOISE = 25.0, 8.0
# The same, from which a pixel counts as not being paper.
_MIN_OTHER, _OTHER_NOISE = 8.0, 4.0
# A gray pixel with at least this share of the paper's brightness may be paper in shadow.
_MIN_SHADOW = 0.35
_MAX_SHADOW_SLOPE = 0.035
# Chroma from which paper is colored, the cosine of the angle between hues that are the same, and the share
# of a mask with the hue of the paper from which the product has it too.
_MIN_CHROMA, _MIN_LIKENESS, _MAX_TINTED = 20.0, 0.95, 0.15
# Area of a large piece relative to the mask, and width of a gap between two of them relative to its size.
_MIN_LARGE_PIECE, _MAX_GAP = 0.15, 0.08
# A part is thin if it is this much darker than the paper on both of its sides, so many pixels apart.
_MIN_THIN, _THIN_WIDTH = 0.25, 9
# A thin part leads away from the mask if at most this share of it is next to the mask.
_MAX_NEAR = 0.4
# Frequency of a color in the mask relative to its frequency around the mask below which it is background.
_MAX_RATIO = 0.85
# Regions smaller than this share of the mask stay; on a background that is not plain, so do all together.
_MIN_REGION, _MIN_REGIONS = 0.008, 0.05
# Steps of a color histogram in 8-bit L*a*b*.
_LIGHTNESS_STEP, _COLOR_STEP, _BINS = 16, 6, 44


def correct_mask(pixels: Pixels, values: Floats, box: Box) -> tuple[Floats, Box]:
    """Return the mask without holes that it covers and with parts that it lacks, and its area of the photo.

    Args:
        values: The mask, 0..1: a small copy of the area `box` of the photo.
    """
    small, solid, scale = shrink_with_mask(pixels, values, box)
    if not solid.any() or solid.mean() > _MAX_SHARE:
        return values, box
    residual, noise, plainness = fit_background(small)
    added = np.zeros(solid.shape, dtype=bool)
    if plainness <= _MIN_PLAINNESS:
        return values, box
    removed = np.zeros(solid.shape, dtype=bool)
    is_dark = _is_before_dark(small, solid)
    tinted = _find_tinted_paper(small, solid, residual, noise)
    if not is_dark:
        removed = solid & tinted | _find_paper(small, solid, residual, noise)
    if noise < _MAX_NOISE:
        added = _find_missing_parts(small, solid, residual, noise) & ~tinted
    if is_dark:
        added |= _find_gaps(solid)
    if not removed.any() and not added.any():
        return values, box
    corrected = _extend(box, added, scale, pixels)
    size = (
        max(1, round(values.shape[1] * (corrected[2] - corrected[0]) / (box[2] - box[0]))),
        max(1, round(values.shape[0] * (corrected[3] - corrected[1]) / (box[3] - box[1]))),
    )
    result = _crop(values, box, corrected, (1.0, 1.0), size)
    whole = (0, 0, pixels.shape[1], pixels.shape[0])
    result = result * (1 - _crop(removed.astype(np.float32), whole, corrected, (1.0, 1.0), size))
    return np.maximum(result, _crop(added.astype(np.float32), whole, corrected, (1.0, 1.0), size)), corrected


def measure_distinctness(pixels: Pixels, values: Floats, box: Box) -> float:
    """Return the share of a mask, 0..1, whose colors are more typical of itself than of its surroundings.

    On a plain background it is 1, because what has the color of the paper is often a white product. If this
    background is dark, it is the visible share of the outline.
    """
    small, solid, _ = shrink_with_mask(pixels, values, box)
    if not solid.any() or solid.mean() > _MAX_SHARE:
        return 1.0
    if fit_background(small)[2] > _MIN_PLAINNESS:
        return _measure_visible_outline(small, solid) if _is_before_dark(small, solid) else 1.0
    return 1 - float(_find_surroundings(small, solid).sum()) / float(solid.sum())


def compare_with_paper(pixels: Pixels, values: Floats, box: Box) -> float:
    """Return the overlap, 0..1, of a mask with what is not the color of plain paper or of a shadow on it.

    Colors know nothing about products, and the network knows nothing about paper: a mask on which both agree
    is right. It is 0 if the background is dark or not plain, and low if the product has the paper's color.
    """
    small, solid, _ = shrink_with_mask(pixels, values, box)
    if not solid.any() or solid.mean() > _MAX_SHARE:
        return 0.0
    residual, noise, plainness = fit_background(small)
    if plainness <= _MIN_PLAINNESS or noise >= _MAX_NOISE or _is_before_dark(small, solid):
        return 0.0
    darker, brightness = find_darker_background(small, ~solid & (residual < 3 * noise))
    other = (residual > max(_MIN_OTHER, _OTHER_NOISE * noise)) & ~(darker & (brightness > _MIN_SHADOW))
    other = cv2.morphologyEx(other.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    return float((other & solid).sum() / max(1, (other | solid).sum()))


def shrink_with_mask(
    pixels: Pixels, values: Floats, box: Box
) -> tuple[Pixels, np.ndarray, tuple[float, float]]:
    """Return a small copy of the photo, its mask, and its width and height relative to the photo."""
    small = shrink(pixels, min(1.0, _SIDE / max(pixels.shape[:2])))
    scale = small.shape[1] / pixels.shape[1], small.shape[0] / pixels.shape[0]
    solid = _crop(values, box, (0, 0, *small.shape[1::-1]), scale, small.shape[1::-1]) > 0.5
    return small, solid, scale


def _crop(values: Floats, box: Box, part: Box, scale: tuple[float, float], size: tuple[int, int]) -> Floats:
    """Return the area `part` of a mask, in a size in pixels; 0 outside of the mask.

    Args:
        box: The area of the photo that the mask covers.
        scale: Size of the coordinates of `part` relative to those of `box`.
    """
    across, down = values.shape[1] / (box[2] - box[0]), values.shape[0] / (box[3] - box[1])
    step_x, step_y = (part[2] - part[0]) / scale[0] / size[0], (part[3] - part[1]) / scale[1] / size[1]
    left, top = part[0] / scale[0] - box[0], part[1] / scale[1] - box[1]
    matrix = np.array(
        [
            [step_x * across, 0, (left + 0.5 * step_x) * across - 0.5],
            [0, step_y * down, (top + 0.5 * step_y) * down - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values.astype(np.float32), matrix, size, flags=flags).astype(np.float32)


def _extend(box: Box, added: np.ndarray, scale: tuple[float, float], pixels: Pixels) -> Box:
    """Return the area of the photo that contains the box and the added parts."""
    rows, columns = np.flatnonzero(added.any(axis=1)), np.flatnonzero(added.any(axis=0))
    if not len(rows):
        return box
    return (
        max(0, min(box[0], int((columns[0] - 3) / scale[0]))),
        max(0, min(box[1], int((rows[0] - 3) / scale[1]))),
        min(pixels.shape[1], max(box[2], int((columns[-1] + 4) / scale[0]))),
        min(pixels.shape[0], max(box[3], int((rows[-1] + 4) / scale[1]))),
    )


def _find_paper(small: Pixels, solid: np.ndarray, residual: Floats, noise: float) -> np.ndarray:
    """Return the holes of the mask through which plain paper is visible, with the shadow on it."""
    paper = _keep_regions(solid & (cv2.GaussianBlur(residual, (0, 0), 1.0) < _PAPER_NOISE * noise), solid)
    darker, brightness = find_darker_background(small, ~solid)
    slope = np.hypot(cv2.Sobel(brightness, cv2.CV_32F, 1, 0), cv2.Sobel(brightness, cv2.CV_32F, 0, 1)) / 8
    shaded = solid & darker & (brightness > _MIN_SHADOW) & (slope < _MAX_SHADOW_SLOPE)
    labels = cv2.connectedComponents((paper | shaded).astype(np.uint8), connectivity=4)[1]
    grown = solid & np.isin(labels, np.setdiff1d(np.unique(labels[paper]), [0]))
    # A gray product next to a hole is not its shadow.
    return _keep_outlined(grown if grown.sum() < 2 * paper.sum() else paper, solid, residual, noise)


def _keep_outlined(paper: np.ndarray, solid: np.ndarray, residual: Floats, noise: float) -> np.ndarray:
    """Return the regions that end at an edge. In the shading of a white product, paper's color fades out."""
    count, labels = cv2.connectedComponents(paper.astype(np.uint8), connectivity=4)
    limit = max(_MIN_OUTLINE, _OUTLINE_NOISE * noise)
    for label in range(1, count):
        region = (labels == label).astype(np.uint8)
        inner, outer = (cv2.dilate(region, np.ones((size, size), np.uint8)) > 0 for size in (5, 7))
        around = outer & ~inner & solid
        if around.any() and float((residual[around] > limit).mean()) < _MIN_OUTLINED:
            paper = paper & (labels != label)
    return paper


def _find_tinted_paper(small: Pixels, solid: np.ndarray, residual: Floats, noise: float) -> np.ndarray:
    """Return where colored paper is visible, also in shadow or in reflected light; nowhere on gray paper."""
    colors = to_lab(small)
    paper = np.median(colors[~solid & (residual < 3 * noise)], axis=0)
    nothing, strength = np.zeros(solid.shape, dtype=bool), float(np.hypot(paper[1], paper[2]))
    if not strength > _MIN_CHROMA:
        return nothing
    chroma = np.maximum(np.hypot(colors[..., 1], colors[..., 2]), 1e-3)
    same_hue = (colors[..., 1:] @ paper[1:]) / (chroma * strength) > _MIN_LIKENESS
    found = same_hue & (chroma > _MIN_SHADOW * strength)
    # A product may have the hue of its paper.
    return found if (found & solid).sum() < _MAX_TINTED * solid.sum() else nothing


def _find_missing_parts(small: Pixels, solid: np.ndarray, residual: Floats, noise: float) -> np.ndarray:
    """Return what differs from plain paper, is no shadow and touches the mask."""
    darker, brightness = find_darker_background(small, ~solid & (residual < 3 * noise))
    shadow = darker & (brightness > _MIN_SHADOW) & ~_find_laces(brightness, solid)
    other = (residual > max(_MIN_DIFFERENCE, _DIFFERENCE_NOISE * noise)) & ~shadow
    labels = cv2.connectedComponents((other | solid).astype(np.uint8), connectivity=8)[1]
    added = other & ~solid & np.isin(labels, np.setdiff1d(np.unique(labels[solid]), [0]))
    # Soft pixels along the outline are left to the matting.
    near = cv2.dilate(solid.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    labels = cv2.connectedComponents(added.astype(np.uint8), connectivity=8)[1]
    return added & np.isin(labels, np.setdiff1d(np.unique(labels[added & ~near]), [0]))


def _find_laces(brightness: Floats, solid: np.ndarray) -> np.ndarray:
    """Return what is thin and dark and leads away from the mask: a shadow follows the outline, or is wide."""
    wide = cv2.morphologyEx(brightness, cv2.MORPH_CLOSE, np.ones((_THIN_WIDTH, _THIN_WIDTH), np.uint8))
    thin = ((wide - brightness > _MIN_THIN) & ~solid).astype(np.uint8)
    near = cv2.dilate(solid.astype(np.uint8), np.ones((_THIN_WIDTH, _THIN_WIDTH), np.uint8)) > 0
    count, labels = cv2.connectedComponents(thin, connectivity=8)
    areas = np.bincount(labels.ravel(), minlength=count)
    shares = np.bincount(labels[near], minlength=count) / np.maximum(areas, 1)
    leads_away = shares < _MAX_NEAR
    leads_away[0] = False
    return leads_away[labels]


def _find_gaps(solid: np.ndarray) -> np.ndarray:
    """Return the narrow gaps between two large pieces of the mask."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8), connectivity=8)
    large = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= _MIN_LARGE_PIECE * solid.sum()) + 1
    found = np.zeros(solid.shape, dtype=bool)
    if count <= 2 or len(large) < 2:
        return found
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    reach = max(1, round(_MAX_GAP / 2 * max(np.ptp(rows), np.ptp(columns))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    # Closed on a larger canvas, because what lies beyond the edge of the photo closes nothing.
    closed = np.pad(np.isin(pieces, large).astype(np.uint8), reach)
    closed = cv2.morphologyEx(closed, cv2.MORPH_CLOSE, kernel)[reach:-reach, reach:-reach]
    count, gaps = cv2.connectedComponents(((closed > 0) & ~solid).astype(np.uint8), connectivity=4)
    for label in range(1, count):
        around = cv2.dilate((gaps == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if np.isin(large, pieces[around]).sum() >= 2:
            found |= gaps == label
    return found


def _is_before_dark(small: Pixels, solid: np.ndarray) -> bool:
    """Return whether the surroundings of the mask are dark."""
    outside = cv2.dilate(solid.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    return bool(outside.any()) and float(np.median(to_lab(small[outside][None])[..., 0])) < _MAX_DARKNESS


def _measure_visible_outline(small: Pixels, solid: np.ndarray) -> float:
    """Return the share of the outline, 0..1, whose two sides differ in color."""
    mask = solid.astype(np.uint8)
    thin, thick = np.ones((3, 3), np.uint8), np.ones((2 * _EDGE_WIDTH + 1,) * 2, np.uint8)
    inside = (cv2.erode(mask, thin) > 0) & (cv2.erode(mask, thick) == 0)
    outside = (cv2.dilate(mask, thick) > 0) & (cv2.dilate(mask, thin) == 0)
    colors = to_lab(small)
    (inner, has_inner), (outer, has_outer) = (_average_near(colors, side) for side in (inside, outside))
    # A part thinner than two pixels has no inside.
    outline = (cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, thin) > 0) & has_inner & has_outer
    if not outline.any():
        return 0.0
    return float((np.linalg.norm(inner - outer, axis=2)[outline] >= _MIN_EDGE).mean())


def _average_near(colors: Floats, where: np.ndarray) -> tuple[Floats, np.ndarray]:
    """Return for each pixel the mean color of the marked pixels near it, and whether there are enough."""
    marked, size = where.astype(np.float32), (3 * _EDGE_WIDTH + 1,) * 2
    count = cv2.boxFilter(marked, -1, size, normalize=False)
    total = cv2.boxFilter(colors * marked[..., None], -1, size, normalize=False)
    return (total / np.maximum(count, 1)[..., None]).astype(np.float32), count > _EDGE_WIDTH


def _find_surroundings(small: Pixels, solid: np.ndarray) -> np.ndarray:
    """Return the parts of the mask whose colors are typical of what surrounds it, not of the product."""
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    reach_y, reach_x = (rows[-1] - rows[0]) // 3 + 4, (columns[-1] - columns[0]) // 3 + 4
    part = np.s_[
        max(0, rows[0] - reach_y) : rows[-1] + reach_y, max(0, columns[0] - reach_x) : columns[-1] + reach_x
    ]
    mask = solid[part].astype(np.uint8)
    colors = _number_colors(small[part])
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0
    outside = cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0
    frequencies = [_count_colors(colors[where]) for where in (inside, outside)]
    ratio = np.log((frequencies[0] + 1e-4) / (frequencies[1] + 1e-4)).astype(np.float32)
    likeness = cv2.GaussianBlur(ratio.ravel()[colors], (0, 0), 1.5)
    found = np.zeros(solid.shape, dtype=bool)
    found[part] = _keep_regions((likeness < np.log(_MAX_RATIO)) & (mask > 0), mask > 0)
    return found if found.sum() >= _MIN_REGIONS * solid.sum() else np.zeros_like(found)


def _number_colors(small: Pixels) -> np.ndarray:
    """Return for each pixel the number of its color's bin."""
    values = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 0.8), cv2.COLOR_RGB2LAB).astype(int)
    lightness = values[..., 0] // _LIGHTNESS_STEP
    return (lightness * _BINS + values[..., 1] // _COLOR_STEP) * _BINS + values[..., 2] // _COLOR_STEP


def _count_colors(numbers: np.ndarray) -> Floats:
    """Return the frequency of each color, averaged with its neighbors."""
    bins = (256 // _LIGHTNESS_STEP, _BINS, _BINS)
    counts: Floats = np.bincount(numbers, minlength=int(np.prod(bins))).reshape(bins).astype(np.float32)
    for axis in range(3):
        counts = (np.roll(counts, 1, axis) + 2 * counts + np.roll(counts, -1, axis)) / 4
    return counts / max(1.0, float(counts.sum()))


def _keep_regions(found: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """Return the regions that are not specks."""
    cleaned = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cleaned, connectivity=4)
    large = np.zeros(count, dtype=bool)
    large[1:] = stats[1:, cv2.CC_STAT_AREA] >= _MIN_REGION * solid.sum()
    return large[labels]
