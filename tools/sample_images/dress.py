"""Draw the sample photo `dress.jpg`: a linen wrap dress, pinned flat to a light wall.

The dress is an outline with shaded folds and a woven texture. `python -m tools.sample_images.dress`
writes the file.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studio.seed import IMAGES_DIR

Array = NDArray[np.floating[Any]]
PATH = IMAGES_DIR / "dress.jpg"

WIDTH, HEIGHT = 1200, 1600
_CENTER, _WAIST, _HEM = 600.0, 690.0, 1440.0
_WALL = np.array([0.905, 0.895, 0.88], dtype=np.float32)
_LINEN = np.array([0.80, 0.705, 0.565], dtype=np.float32)
# The right half of the outline from the neck down. The left half is its mirror image.
_SIDE = [
    (78, 236),
    (150, 250),
    (222, 286),
    (330, 470),
    (362, 560),
    (262, 612),
    (214, 520),
    (186, 476),
    (176, 560),
]
_SKIRT = [(150, 660), (146, 700), (186, 790), (236, 960), (284, 1150), (322, 1330), (340, 1436)]
_KNOT = (_CENTER + 84, _WAIST + 4)


def draw() -> Image.Image:
    """Draw the dress in front of the wall."""
    random = np.random.default_rng(2041)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    dress, neck = _fill(_outline()), _fill(_neckline())
    back = _fill(_back_of_neck())
    wall = _wall(x, y, random) * _shadow_on_wall(np.maximum(dress * (1 - neck), back))[..., None]
    cloth = _LINEN * _light(x, y, random)[..., None] * _weave(random)[..., None]
    inside = _LINEN * 0.60 * _weave(random)[..., None] * (0.9 + 0.2 * (y[..., None] - 236) / 200)
    visible = dress * (1 - neck)
    image = wall * (1 - back[..., None]) + inside * back[..., None]
    image = image * (1 - visible[..., None]) + cloth * visible[..., None]
    image = _with_belt(image, x, y, random)
    noise = random.normal(0, 0.006, (HEIGHT, WIDTH, 1))
    return Image.fromarray((np.clip(image + noise, 0, 1) * 255 + 0.5).astype(np.uint8))


def _smooth(points: Sequence[tuple[float, float]], steps: int = 12) -> NDArray[np.float64]:
    """Return the points on a Catmull-Rom spline: cloth has no corners."""
    chain = np.array(points, dtype=float)
    ends = np.vstack([2 * chain[0] - chain[1], chain, 2 * chain[-1] - chain[-2]])
    curve = []
    for before, start, end, after in zip(ends[:-3], ends[1:-2], ends[2:-1], ends[3:], strict=True):
        for t in np.linspace(0, 1, steps, endpoint=False):
            bend = (2 * before - 5 * start + 4 * end - after) * t**2
            bend += (3 * start - before - 3 * end + after) * t**3
            curve.append(start + 0.5 * ((end - before) * t + bend))
    return np.array([*curve, chain[-1]])


def _translate(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move points relative to the middle of the dress to their place in the image."""
    return points + np.array([_CENTER, 0.0])


def _outline() -> NDArray[np.float64]:
    sleeve = _smooth(_SIDE[:4])
    cuff = _smooth(_SIDE[3:6], 6)
    under = _smooth(_SIDE[5:])
    half = np.vstack([sleeve, cuff, under, _smooth([_SIDE[-1], *_SKIRT])])
    across = np.linspace(1, -1, 90)
    wave = 5 * np.sin(across * 11) + 3 * np.sin(across * 19 + 1) - 26 * across**2
    hem = np.stack([340 * across, _HEM + 22 + wave], axis=1)
    whole = np.vstack([half, hem, half[::-1] * (-1, 1)])
    return _translate(whole)


def _neckline() -> NDArray[np.float64]:
    """Return the outline of the neck opening. It ends where the right front crosses the left one."""
    left, right = _smooth([(-80, 228), (-66, 330), (0, 490)]), _smooth([(0, 490), (52, 350), (80, 228)])
    return _translate(np.vstack([left, right]))


def _back_of_neck() -> NDArray[np.float64]:
    """Return the outline of the visible part of the back's inside."""
    top = _smooth([(-80, 236), (-40, 262), (0, 270), (40, 262), (80, 236)])
    low = _smooth([(80, 240), (52, 350), (0, 492), (-66, 330), (-80, 240)])
    return _translate(np.vstack([top, low]))


def _fill(points: NDArray[np.float64], blur: float = 0.8) -> Array:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), blur)


def _wall(x: Array, y: Array, random: np.random.Generator) -> Array:
    """Return a painted wall with light from a window on the left."""
    light = 1.03 - 0.10 * (x / WIDTH) - 0.05 * (y / HEIGHT)
    plaster = cv2.GaussianBlur(random.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 5)
    return _WALL * (light + 0.004 * plaster / plaster.std())[..., None]


def _shadow_on_wall(mask: Array) -> Array:
    """Return a wide soft shadow to the lower right and a narrow one directly behind the cloth."""
    far = cv2.GaussianBlur(np.roll(mask, (34, 30), (0, 1)), (0, 0), 30)
    near = cv2.GaussianBlur(np.roll(mask, (9, 8), (0, 1)), (0, 0), 8)
    return (1 - 0.20 * far) * (1 - 0.18 * near)


def _ridges(position: Array, knots: int, random: np.random.Generator) -> Array:
    """Return a smooth random curve over 0..1 with about `knots` bends and values in -1..1."""
    values = random.normal(0, 1, knots + 3)
    scaled = np.clip(position, 0, 1) * knots
    index = scaled.astype(int)
    t = scaled - index
    t = t * t * (3 - 2 * t)
    return np.asarray(np.tanh(values[index] * (1 - t) + values[index + 1] * t))


def _light(x: Array, y: Array, random: np.random.Generator) -> Array:
    """Return the brightness of the cloth, lit from the left: folds below the knot, gathers on the fronts."""
    angle = np.arctan2(x - _KNOT[0], np.maximum(y - _KNOT[1] + 170, 1))
    below = np.clip((y - _WAIST) / (_HEM - _WAIST), 0, 1)
    drift = 0.02 * np.sin(y / 90 + 2 * _ridges(y / HEIGHT, 5, random))
    folds = _ridges(angle / 1.6 + 0.55 + drift * below, 26, random)
    small = _ridges(angle / 1.6 + 0.55 + drift, 60, random)
    skirt = (0.9 * folds + 0.4 * small) * np.sqrt(np.clip(below * 1.6 + 0.12, 0, 1))
    slant = (x - _CENTER) * 0.62 + (y - 236) * np.where(x < _CENTER + (y - 520) * 0.4, -0.34, 0.42)
    gathers = 0.8 * _ridges((slant + 400) / 800, 34, random) * np.clip((y - 330) / 330, 0, 1)
    upper = np.clip((_WAIST - y) / 40, 0, 1)
    height = (skirt * (1 - upper) + gathers * upper).astype(np.float32)
    height = cv2.GaussianBlur(height, (0, 0), 4)
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=5) / 60
    crumple = cv2.GaussianBlur(random.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 9)
    slope += 0.05 * cv2.Sobel(crumple / crumple.std(), cv2.CV_32F, 1, 1, ksize=3)
    body = 1.05 - 0.16 * ((x - _CENTER + 120) / 380) ** 2 - 0.05 * (x - _CENTER) / 300
    shade = body + 0.13 * height - 0.30 * np.tanh(slope * 3.0)
    return np.clip(shade - _seam(x, y), 0.25, 1.16)


def _seam(x: Array, y: Array) -> Array:
    """Return the shadow at the edge of the upper front, from the left shoulder down to the hem."""
    upper = _CENTER - 76 + (y - 240) * 0.40
    lower = _KNOT[0] + (y - _WAIST) * 0.10 + 12 * np.sin((y - _WAIST) / 130)
    edge = np.where(y < _WAIST, np.minimum(upper, _KNOT[0]), lower)
    beyond = x - edge
    shadow = 0.26 * np.exp(-np.clip(beyond, 0, None) / 13) * (beyond > 0)
    stitch = 0.06 * np.exp(-(((beyond + 16) / 1.6) ** 2))
    return np.asarray((shadow + stitch) * (y > 300), dtype=np.float32)


def _weave(random: np.random.Generator) -> Array:
    """Return a texture of horizontal and vertical threads of uneven thickness."""
    across = random.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    along = random.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    threads = cv2.GaussianBlur(across, (0, 0), sigmaX=9, sigmaY=0.7)
    threads += cv2.GaussianBlur(along, (0, 0), sigmaX=0.7, sigmaY=9)
    return np.asarray(1 + 0.024 * threads / threads.std())


def _with_belt(image: Array, x: Array, y: Array, random: np.random.Generator) -> Array:
    """Draw the belt around the waist, with a knot and two hanging ends."""
    bow_x, bow_y = _KNOT
    tails = [
        [(-6, 8), (-30, 110), (-22, 250), (-44, 372), (2, 366), (18, 240), (12, 110), (14, 8)],
        [(0, 8), (26, 90), (44, 220), (38, 300), (84, 288), (80, 200), (50, 80), (20, 4)],
    ]
    band = [
        (-152, 664),
        (-80, 676),
        (0, 680),
        (80, 676),
        (152, 664),
        (150, 712),
        (80, 724),
        (0, 728),
        (-80, 724),
        (-150, 712),
    ]
    for points, origin, tone in [
        (band, (_CENTER, 0), 0.93),
        *((tail, (bow_x, bow_y), 0.98) for tail in tails),
        (
            [(-26, -26), (6, -34), (30, -18), (32, 18), (8, 32), (-24, 22), (-34, 0), (-26, -26)],
            (bow_x, bow_y),
            1.02,
        ),
    ]:
        mask = _fill(_smooth(points) + origin)
        under = cv2.GaussianBlur(np.roll(mask, (7, 6), (0, 1)), (0, 0), 5)
        image = image * (1 - 0.42 * under * (1 - mask))[..., None]
        depth = cv2.GaussianBlur(mask, (0, 0), 7)
        rim = np.clip((depth - 0.5) * 2, 0, 1) ** 0.6
        crease = 0.05 * np.sin((x - origin[0]) / 9 + (y - origin[1]) / 31) + 0.04 * np.sin(
            (y - origin[1]) / 8
        )
        shade = tone * (0.78 + 0.24 * rim + crease) - 0.06 * (x - _CENTER) / 300
        cloth = _LINEN * shade[..., None] * _weave(random)[..., None]
        image = image * (1 - mask[..., None]) + cloth * mask[..., None]
    return image


def main() -> None:
    """Write the sample photo."""
    target = io.BytesIO()
    draw().save(target, "JPEG", quality=88, subsampling=0)
    PATH.write_bytes(target.getvalue())


if __name__ == "__main__":
    main()
