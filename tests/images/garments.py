"""The soft products of the image set: clothes and bags as outlines, inflated like a filled cushion.

A garment lies flat or hangs. Its height above the ground follows the distance to its outline, folds and a
weave lie on top, and a lamp at the upper left shades it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.images.shapes import Array, Traced

Point = tuple[float, float]
_SIDE, _FINE = 640, 2
_LAMP = np.array((-0.55, -0.55, 0.63), dtype=np.float32)


def _fill(*outlines: Sequence[Point], mirrored: bool = False, smooth: int = 2) -> NDArray[np.uint8]:
    """Return the area of closed outlines (0..1 across and down) on the fine canvas, with rounded corners.

    A mirrored outline is the left half of a symmetric one, from its upper to its lower end.
    """
    canvas = np.zeros((_SIDE * _FINE, _SIDE * _FINE), dtype=np.uint8)
    for outline in outlines:
        points = np.array(outline)
        if mirrored:
            side = points[points[:, 0] != 0.5]
            points = np.vstack([points, side[::-1] * (-1, 1) + (1, 0)])
        for _ in range(smooth):
            after = np.roll(points, -1, axis=0)
            points = np.stack([0.8 * points + 0.2 * after, 0.2 * points + 0.8 * after], axis=1).reshape(-1, 2)
        cv2.fillPoly(canvas, [np.round(points * _SIDE * _FINE).astype(np.int32)], 255)
    return canvas


def _line(points: Sequence[Point], width: float) -> NDArray[np.uint8]:
    """Return a band along a line."""
    canvas = np.zeros((_SIDE * _FINE, _SIDE * _FINE), dtype=np.uint8)
    corners = np.round(np.array(points) * _SIDE * _FINE).astype(np.int32)
    cv2.polylines(canvas, [corners], False, 255, round(width * _SIDE * _FINE), cv2.LINE_AA)
    return canvas


def _arc(middle: Point, radius: Point, first: float, last: float) -> list[Point]:
    angles = np.radians(np.linspace(first, last, 40))
    return [
        (middle[0] + radius[0] * float(np.cos(a)), middle[1] + radius[1] * float(np.sin(a))) for a in angles
    ]


def _inflate(area: NDArray[np.uint8], color: Any, seed: int, folds: float, thick: float) -> Traced:
    """Return the image of a filled outline.

    Args:
        color: Linear RGB, or an image of it.
        folds: Height of the folds relative to the thickness.
        thick: Height in the middle, as a share of the canvas.
    """
    inside = cv2.distanceTransform((area > 127).astype(np.uint8), cv2.DIST_L2, 5) / (_SIDE * _FINE)
    height = thick * np.sqrt(np.clip(1 - (1 - np.clip(inside / (2.2 * thick), 0, 1)) ** 2, 0, 1))
    height = cv2.GaussianBlur(height, (0, 0), 6) * _SIDE * _FINE
    random = np.random.default_rng(seed)
    for size, share in ((60, 0.5), (24, 0.2)):
        cloth = cv2.GaussianBlur(
            random.normal(0, 1, area.shape).astype(np.float32), (0, 0), size * 0.7, None, size
        )
        height += folds * thick * share * 60 * cloth / cloth.std()
    slopes = [cv2.Sobel(height.astype(np.float32), cv2.CV_32F, 1 - axis, axis) / 8 for axis in (0, 1)]
    normal = np.dstack([-slopes[0], -slopes[1], np.ones_like(height)])
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    weave = 1 + 0.05 * random.normal(0, 1, area.shape)
    light = (0.30 + 0.95 * np.clip(normal @ _LAMP, 0, 1)) * weave
    image = np.clip(np.broadcast_to(np.asarray(color), (*area.shape, 3)) * light[..., None], 0, 1) ** (
        1 / 2.2
    )
    rows, columns = (np.flatnonzero((area > 0).any(axis=axis)) for axis in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = (len(columns) // _FINE, len(rows) // _FINE)
    layers = [
        cv2.resize(layer[part].astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for layer in (image, area)
    ]
    return Traced(layers[0], layers[1] / 255, np.zeros(size[::-1], dtype=np.float32))


def _paint(ground: Sequence[float], *layers: tuple[NDArray[np.uint8], Sequence[float]]) -> Array:
    """Return colors: a ground and areas of other colors on it."""
    image = np.broadcast_to(np.array(ground, dtype=np.float32), (_SIDE * _FINE, _SIDE * _FINE, 3)).copy()
    for area, color in layers:
        share = (area / 255.0)[..., None]
        image = image * (1 - share) + np.array(color) * share
    return image.astype(np.float32)


def _shirt_with_print() -> Traced:
    left = [(0.5, 0.17), (0.41, 0.12), (0.27, 0.14), (0.06, 0.34), (0.18, 0.45), (0.27, 0.38), (0.27, 0.9)]
    area = _fill(left, mirrored=True)
    words = np.zeros_like(area)
    for row, word in ((0.42, "BLUE"), (0.53, "NOTE")):
        place = (round(0.335 * area.shape[1]), round(row * area.shape[0]))
        cv2.putText(words, word, place, cv2.FONT_HERSHEY_TRIPLEX, 4.6, 255, 14, cv2.LINE_AA)
    disc = _fill(_arc((0.5, 0.65), (0.08, 0.08), 0, 360), smooth=0)
    return _inflate(
        area, _paint((0.02, 0.022, 0.03), (words, (0.7, 0.66, 0.5)), (disc, (0.02, 0.2, 0.6))), 31, 0.5, 0.03
    )


def _white_shirt() -> Traced:
    left = [(0.5, 0.2), (0.42, 0.1), (0.26, 0.14), (0.06, 0.76), (0.16, 0.80), (0.29, 0.40), (0.28, 0.92)]
    area = _fill(left, mirrored=True)
    seam = _line([(0.5, 0.18), (0.5, 0.92)], 0.004)
    return _inflate(area, _paint((0.82, 0.82, 0.80), (seam, (0.45, 0.45, 0.44))), 32, 0.6, 0.03)


def _trousers() -> Traced:
    left = [(0.36, 0.06), (0.31, 0.4), (0.30, 0.95), (0.46, 0.95), (0.5, 0.38)]
    area = _fill(left, mirrored=True)
    belt = _line([(0.3, 0.09), (0.7, 0.09)], 0.05)
    return _inflate(area, _paint((0.035, 0.07, 0.18), (belt, (0.12, 0.05, 0.02))), 33, 0.8, 0.03)


def _handbag() -> Traced:
    body = _fill([(0.22, 0.42), (0.78, 0.42), (0.88, 0.92), (0.12, 0.92)])
    handle = _line(_arc((0.5, 0.44), (0.2, 0.34), 180, 360), 0.035)
    clasp = _fill([(0.46, 0.52), (0.54, 0.52), (0.54, 0.60), (0.46, 0.60)], smooth=1)
    color = _paint((0.42, 0.13, 0.05), (clasp, (0.85, 0.62, 0.25)))
    return _inflate(np.maximum(body, handle), color, 34, 0.2, 0.06)


def _sneaker() -> Traced:
    upper = _fill(
        [(0.06, 0.30), (0.30, 0.26), (0.36, 0.36), (0.62, 0.48), (0.93, 0.56), (0.96, 0.70), (0.06, 0.70)]
    )
    sole = _fill([(0.04, 0.66), (0.97, 0.64), (0.98, 0.76), (0.05, 0.76)])
    stripes = np.max([_line([(x, 0.40), (x - 0.06, 0.66)], 0.02) for x in (0.40, 0.48, 0.56)], axis=0)
    color = _paint((0.05, 0.25, 0.16), (sole, (0.8, 0.8, 0.78)), (stripes, (0.8, 0.8, 0.78)))
    return _inflate(np.maximum(upper, sole), color, 35, 0.3, 0.05)


def _sunglasses() -> Traced:
    lenses = _fill(_arc((0.30, 0.5), (0.17, 0.14), 0, 360), _arc((0.70, 0.5), (0.17, 0.14), 0, 360), smooth=0)
    bridge = _line(_arc((0.5, 0.50), (0.05, 0.05), 180, 360), 0.022)
    arms = np.maximum(_line([(0.14, 0.45), (0.05, 0.40)], 0.03), _line([(0.86, 0.45), (0.95, 0.40)], 0.03))
    area = np.maximum(np.maximum(lenses, bridge), arms)
    glass = cv2.erode(lenses, np.ones((31, 31), np.uint8))
    worn = _inflate(area, _paint((0.30, 0.11, 0.03), (glass, (0.02, 0.02, 0.025))), 36, 0.0, 0.03)
    rows, columns = (np.flatnonzero((area > 0).any(axis=axis)) for axis in (1, 0))
    seen = glass[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / 255
    passing = cv2.resize(seen, worn.opacity.shape[::-1], interpolation=cv2.INTER_AREA)
    return Traced(worn.color, worn.opacity, 0.35 * passing)


GARMENTS: dict[str, Callable[[], Traced]] = {
    function.__name__.removeprefix("_").replace("_", " "): function
    for function in (_shirt_with_print, _white_shirt, _trousers, _handbag, _sneaker, _sunglasses)
}
