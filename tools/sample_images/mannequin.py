"""Draw the mannequin of the public subject's base images: an abstract figure of smooth volumes.

The figure is a signed distance field of blended rounded cones, in orthographic projection and shaded by its
normals. Equal calls return equal bytes. Run as a program, the module writes the two images of the seed.
"""

from __future__ import annotations

import io
import itertools
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studio.seed import IMAGES_DIR

Array = NDArray[np.floating[Any]]
View = Literal["front", "three_quarter"]

WIDTH, HEIGHT = 1200, 1600
_SCALE = 1 / 2
# Chains of (x, y, depth, radius) in head heights, y from the crown down; limbs are mirrored.
_HEAD = (
    (0, 0.30, 0.02, 0.25),
    (0, 0.44, 0.02, 0.285),
    (0, 0.58, 0.0, 0.27),
    (0, 0.74, -0.04, 0.20),
    (0, 0.86, -0.07, 0.135),
)
_NECK = ((0, 0.72, 0.04, 0.135), (0, 1.05, 0.05, 0.125), (0, 1.34, 0.06, 0.165))
_TORSO = (
    (0.20, 1.50, 0.03, 0.175),
    (0.22, 1.78, -0.02, 0.225),
    (0.19, 2.05, -0.03, 0.225),
    (0.125, 2.35, 0.0, 0.205),
    (0.105, 2.60, 0.0, 0.20),
    (0.15, 2.85, 0.02, 0.235),
    (0.20, 3.15, 0.04, 0.275),
    (0.205, 3.42, 0.04, 0.275),
)
_ARM = (
    (0.40, 1.50, 0.02, 0.150),
    (0.56, 1.60, 0.02, 0.140),
    (0.66, 1.95, 0.04, 0.122),
    (0.74, 2.50, 0.05, 0.094),
    (0.78, 2.72, 0.02, 0.096),
    (0.83, 3.30, -0.10, 0.066),
    (0.84, 3.45, -0.13, 0.070),
    (0.84, 3.68, -0.18, 0.062),
    (0.82, 3.86, -0.22, 0.034),
)
_LEG = (
    (0.215, 3.35, 0.03, 0.275),
    (0.225, 3.75, 0.01, 0.245),
    (0.225, 4.40, -0.01, 0.185),
    (0.225, 4.80, -0.02, 0.155),
    (0.225, 5.20, 0.05, 0.160),
    (0.225, 5.70, 0.06, 0.118),
    (0.225, 6.25, 0.06, 0.078),
    (0.23, 6.42, 0.02, 0.090),
    (0.25, 6.52, -0.22, 0.060),
)
_BLEND = 26.0
_BAND_ROWS = 40


def encode_mannequin(view: View = "front") -> bytes:
    """Return a PNG of 1200 x 1600 pixels: the figure with transparency."""
    target = io.BytesIO()
    draw(view).save(target, "PNG", compress_level=6)
    return target.getvalue()


def draw(view: View = "front") -> Image.Image:
    """Return the figure as an RGBA image."""
    normal, coverage = _trace(np.radians(0.0 if view == "front" else 38.0))
    alpha = np.clip((coverage - 0.30) / 0.6, 0, 1)
    grain = np.random.default_rng(2).normal(0, 0.6, (*alpha.shape, 1)).astype(np.float32)
    color = _shade(normal) * 255 + grain
    rgba = np.dstack([np.clip(color + 0.5, 0, 255), alpha * 255 + 0.5]).astype(np.uint8)
    return Image.fromarray(rgba, "RGBA")


def _shade(normal: Array) -> Array:
    """Return the color of satin lacquer under a large soft box (upper left) and a weak one (right)."""

    def lamp(x: float, y: float, z: float, wrap: float) -> Array:
        direction = np.array([x, y, z], dtype=np.float32)
        direction /= np.linalg.norm(direction)
        return np.clip((normal @ direction + wrap) / (1 + wrap), 0, 1)

    key, fill, rim = lamp(-0.75, -0.6, 0.7, 0.35), lamp(0.9, -0.1, 0.5, 0.4), lamp(0.95, -0.25, -0.1, 0.0)
    gloss = lamp(-0.42, -0.55, 1.25, 0.0) ** 26
    tone = 0.30 + 0.70 * key**1.3 + 0.10 * fill + 0.16 * rim**3 + 0.10 * gloss
    lacquer = np.array([0.93, 0.905, 0.875], dtype=np.float32)
    cool = np.array([0.985, 1.0, 1.025], dtype=np.float32)
    lit = tone[..., None] * lacquer * (cool + (1 - cool) * np.clip(tone, 0, 1)[..., None])
    return np.clip(lit, 0, 1).astype(np.float32)


def _chains(angle: float) -> list[Array]:
    """Return all chains, rotated around the vertical axis: rows of x, y, depth and radius in pixels."""
    unit = HEIGHT / 7.05
    cosine, sine = np.cos(angle), np.sin(angle)
    torsos = [np.array(_TORSO), np.array(_TORSO) * (-1, 1, 1, 1), np.array(_TORSO) * (0, 1, 1, 1)]
    limbs = [np.array(chain) * (side, 1, 1, 1) for chain in (_ARM, _LEG) for side in (1, -1)]
    rotated = []
    for chain in [np.array(_HEAD), np.array(_NECK), *torsos, *limbs]:
        x, depth = chain[:, 0] * unit, chain[:, 2] * unit
        columns = [
            x * cosine - depth * sine + WIDTH / 2,
            (chain[:, 1] + 0.20) * unit,
            x * sine + depth * cosine,
            chain[:, 3] * unit,
        ]
        rotated.append(_round_chain(np.stack(columns, axis=1)).astype(np.float32))
    return rotated


def _round_chain(chain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the chain with two more points per segment, on a Catmull-Rom spline: bodies have no corners."""
    ends = np.vstack([2 * chain[0] - chain[1], chain, 2 * chain[-1] - chain[-2]])
    points = []
    for before, start, end, after in zip(ends[:-3], ends[1:-2], ends[2:-1], ends[3:], strict=True):
        for t in (0.0, 1 / 3, 2 / 3):
            bend = (2 * before - 5 * start + 4 * end - after) * t**2 + (
                3 * start - before - 3 * end + after
            ) * t**3
            points.append(start + 0.5 * ((end - before) * t + bend))
    return np.array([*points, chain[-1]])


def _trace(angle: float) -> tuple[Array, Array]:
    """Return the figure's normals (x right, y down, z to the camera) and its coverage of each pixel."""
    width, height = round(WIDTH * _SCALE), round(HEIGHT * _SCALE)
    chains = _chains(angle)
    normal = np.zeros((height, width, 3), dtype=np.float32)
    covered = np.zeros((height, width), dtype=np.float32)
    reach = max(float(np.abs(chain[:, 0] - WIDTH / 2).max()) for chain in chains) + 60
    left, right = (round((WIDTH / 2 + sign * reach) * _SCALE) for sign in (-1, 1))
    for first in range(0, height, _BAND_ROWS):
        last = min(height, first + _BAND_ROWS)
        part = _visible_parts(chains, first / _SCALE, last / _SCALE)
        if part:
            normal[first:last, left:right], covered[first:last, left:right] = _band(
                part, first, last, left, right
            )
    normal = cv2.resize(
        cv2.GaussianBlur(normal, (0, 0), 5.0), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR
    )
    normal /= np.linalg.norm(normal, axis=2, keepdims=True) + 1e-6
    # Close the holes where a ray that grazes two volumes stopped before it reached either.
    covered = cv2.morphologyEx(covered, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(np.float32)
    return normal, cv2.resize(covered, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def _visible_parts(chains: list[Array], top: float, bottom: float) -> list[Array]:
    """Return the parts of the chains that are visible between two rows, to skip the others."""
    parts = []
    for chain in chains:
        close = (chain[:, 1] + chain[:, 3] > top - 40) & (chain[:, 1] - chain[:, 3] < bottom + 40)
        indices = np.flatnonzero(close)
        if len(indices):
            start, end = max(0, int(indices[0]) - 1), min(len(chain), int(indices[-1]) + 2)
            parts.append(chain[start:end])
    return parts


def _band(chains: list[Array], first: int, last: int, left: int, right: int) -> tuple[Array, Array]:
    """Return normals and coverage of some rows, by marching each ray to the surface."""
    rows, columns = (
        axis.astype(np.float32) / np.float32(_SCALE) for axis in np.mgrid[first:last, left:right]
    )
    far = 260.0
    depth = np.full(rows.shape, -far, dtype=np.float32)
    closest = np.full(rows.shape, np.inf, dtype=np.float32)
    closest_depth = depth.copy()
    alive = np.ones(rows.shape, dtype=bool)
    for _ in range(48):
        distance = np.full(depth.shape, np.inf, dtype=np.float32)
        distance[alive] = _distance(columns[alive], rows[alive], depth[alive], chains)
        closer = distance < closest
        closest[closer], closest_depth[closer] = distance[closer], depth[closer]
        depth[alive] += distance[alive] * 0.95
        alive &= (distance > 0.15) & (depth < far)
        if not alive.any():
            break
    # Include the pixels just outside the outline, so that the rim has no seam.
    known = closest < 8
    x, y, z = columns[known], rows[known], closest_depth[known]
    slopes = [
        _distance(x + 4 * (axis == 0), y + 4 * (axis == 1), z + 4 * (axis == 2), chains)
        - _distance(x - 4 * (axis == 0), y - 4 * (axis == 1), z - 4 * (axis == 2), chains)
        for axis in range(3)
    ]
    normal = np.zeros((*rows.shape, 3), dtype=np.float32)
    normal[known] = np.stack([slopes[0], slopes[1], -slopes[2]], axis=1)
    return normal, np.clip(1 - closest * _SCALE, 0, 1).astype(np.float32)


def _distance(x: Array, y: Array, z: Array, chains: list[Array]) -> Array:
    """Return the smooth union (Quilez's polynomial) of the distances to all chains."""
    total = np.full_like(x, 1e4)
    for chain in chains:
        distance = np.full_like(x, 1e4)
        for start, end in itertools.pairwise(chain):
            axis = end[:3] - start[:3]
            share = (x - start[0]) * axis[0] + (y - start[1]) * axis[1] + (z - start[2]) * axis[2]
            share = np.clip(share / float(axis @ axis), 0, 1)
            away = (
                (x - start[0] - share * axis[0]) ** 2
                + (y - start[1] - share * axis[1]) ** 2
                + (z - start[2] - share * axis[2]) ** 2
            )
            distance = np.minimum(distance, np.sqrt(away) - (start[3] + share * (end[3] - start[3])))
        blend = np.maximum(_BLEND - np.abs(total - distance), 0) / _BLEND
        total = np.minimum(total, distance) - blend * blend * (_BLEND / 4)
    return total


if __name__ == "__main__":
    for each in get_args(View):
        draw(each).save(IMAGES_DIR / f"mannequin_{each}.webp", "WEBP", quality=90, method=6)
