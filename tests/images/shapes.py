"""Solid shapes as signed distance functions, and their image by ray marching.

A shape takes points (rows of x right, y up, z away from the camera) and returns their distances to its
surface, negative inside. The distance functions are those of Quilez ("Distance functions").
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Shape = Callable[[Array], Array]
Vector = tuple[float, float, float]
Texture = Callable[[Array], Array]
"""Takes points on a surface; returns their colors, linear RGB 0..1."""

_SIDE, _COARSE_SIDE = 480, 80
# Distance of the camera, width of its view at a distance of 1, and radius of what it can see.
_EYE, _ZOOM, _REACH = 5.0, 0.46, 1.6
_TILT = np.radians(14.0)
"""The angle by which the camera looks down."""


@dataclass(frozen=True)
class Part:
    """A shape and what it is made of."""

    shape: Shape
    color: Vector | Texture
    gloss: float = 0.1
    """0: matt; 1: mirrors its surroundings at grazing angles like lacquer."""
    is_metal: bool = False
    transmission: float = 0.0
    """Share of the light from behind that passes, as through glass."""


@dataclass(frozen=True, eq=False)
class Traced:
    """The image of an object on a transparent ground."""

    color: Array
    """sRGB 0..1, height x width x 3."""
    opacity: Array
    """Share of each pixel that the object covers, also where one can see through it."""
    transmission: Array
    """Share of the light from behind that passes, 0..1."""


def _vector(values: Sequence[float]) -> Array:
    return np.array(values, dtype=np.float32)


def sphere(center: Vector, radius: float, stretch: Vector = (1, 1, 1)) -> Shape:
    """Return a ball, stretched along the axes."""
    scale = _vector(stretch)
    return lambda p: (np.linalg.norm((p - _vector(center)) / scale, axis=1) - radius) * float(scale.min())


def box(center: Vector, half: Vector, rounding: float = 0.02) -> Shape:
    """Return a box with rounded edges; `half` are half of its sides."""

    def distance(p: Array) -> Array:
        away = np.abs(p - _vector(center)) - (_vector(half) - rounding)
        outside = np.linalg.norm(np.maximum(away, 0), axis=1)
        return outside + np.minimum(away.max(axis=1), 0) - rounding

    return distance


def torus(center: Vector, radius: float, thickness: float, axis: int = 1) -> Shape:
    """Return a ring around an axis (0: x, 1: y, 2: z)."""

    def distance(p: Array) -> Array:
        q = p - _vector(center)
        around = np.hypot(q[:, axis - 2], q[:, axis - 1]) - radius
        return np.hypot(around, q[:, axis]) - thickness

    return distance


def rod(start: Vector, end: Vector, radius: float, end_radius: float | None = None) -> Shape:
    """Return a rounded rod that may taper."""
    first, along = _vector(start), _vector(end) - _vector(start)
    grown = (radius if end_radius is None else end_radius) - radius

    def distance(p: Array) -> Array:
        share = np.clip((p - first) @ along / float(along @ along), 0, 1)
        return (np.linalg.norm(p - first - share[:, None] * along, axis=1) - radius - share * grown) * 0.9

    return distance


def chain(points: Sequence[Vector], radius: float) -> Shape:
    """Return a tube along a line of points."""
    return join(*(rod(start, end, radius) for start, end in itertools.pairwise(points)))


def turned(outline: Sequence[tuple[float, float]], center: Vector = (0, 0, 0)) -> Shape:
    """Return a solid of revolution around the y axis, from a closed polygon of radius and height."""
    corners = np.array(outline, dtype=np.float32)

    def distance(p: Array) -> Array:
        q = p - _vector(center)
        x, y = np.hypot(q[:, 0], q[:, 2]), q[:, 1]
        nearest = np.full(len(p), np.inf, dtype=np.float32)
        sign = np.ones(len(p), dtype=np.float32)
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            edge_x, edge_y = end - start
            from_x, from_y = x - start[0], y - start[1]
            share = np.clip((from_x * edge_x + from_y * edge_y) / (edge_x**2 + edge_y**2), 0, 1)
            nearest = np.minimum(nearest, np.hypot(from_x - share * edge_x, from_y - share * edge_y))
            crosses = (y >= start[1]) != (y >= end[1])
            left = (edge_x * from_y > from_x * edge_y) == (end[1] > start[1])
            sign = np.where(crosses & left, -sign, sign)
        return nearest * sign - 0.008

    return distance


def join(*shapes: Shape) -> Shape:
    """Return the union."""
    return lambda p: np.min([shape(p) for shape in shapes], axis=0)


def cut(shape: Shape, *removed: Shape) -> Shape:
    """Return a shape without others."""
    return lambda p: np.max([shape(p), *(-other(p) for other in removed)], axis=0)


def move(shape: Shape, by: Vector) -> Shape:
    """Return a shape moved by a vector."""
    return lambda p: shape(p - _vector(by))


def turn(shape: Shape, degrees: float, axis: int = 1, pivot: Vector = (0, 0, 0)) -> Shape:
    """Return a shape or a texture rotated around an axis through the pivot."""
    angle = np.radians(degrees)
    matrix = np.eye(3, dtype=np.float32)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    matrix[one, one] = matrix[two, two] = np.cos(angle)
    matrix[one, two], matrix[two, one] = -np.sin(angle), np.sin(angle)
    return lambda p: shape((p - _vector(pivot)) @ matrix + _vector(pivot))


def trace(parts: Sequence[Part]) -> Traced:
    """Return the image of the parts, without empty rows and columns, about 480 pixels on its longer side."""
    solid = join(*(part.shape for part in parts))
    coarse = _look(solid, np.linspace(0, 1, _COARSE_SIDE), np.linspace(0, 1, _COARSE_SIDE))[2]
    seen = coarse.reshape(_COARSE_SIDE, _COARSE_SIDE) < _ZOOM * _EYE / _COARSE_SIDE
    top, bottom, left, right = (
        float(value) / (_COARSE_SIDE - 1)
        for axis in (1, 0)
        for value in np.flatnonzero(seen.any(axis=axis))[[0, -1]]
    )
    step = max(bottom - top, right - left) / _SIDE
    rows, columns = np.arange(top, bottom, step), np.arange(left, right, step)
    points, direction, closest = _look(solid, rows, columns)
    pixel = step * _ZOOM * _EYE
    opacity = np.clip(1 - closest / pixel, 0, 1).astype(np.float32)
    covered = np.flatnonzero(opacity > 0)
    color = np.zeros((len(opacity), 3), dtype=np.float32)
    transmission = np.zeros(len(opacity), dtype=np.float32)
    color[covered], transmission[covered] = _shade(parts, solid, points[covered], direction[covered])
    shape = (len(rows), len(columns))
    return Traced(color.reshape(*shape, 3), opacity.reshape(shape), transmission.reshape(shape))


def _look(solid: Shape, rows: Array, columns: Array) -> tuple[Array, Array, Array]:
    """Return where the rays of an image come closest to the shape, their directions, and how close they come.

    Args:
        rows: Positions of the rows in the camera's view, 0..1 from the top.
        columns: Positions of the columns, 0..1 from the left.
    """
    eye = _vector((0, _EYE * np.sin(_TILT), -_EYE * np.cos(_TILT)))
    forward, upward = _vector((0, -np.sin(_TILT), np.cos(_TILT))), _vector((0, np.cos(_TILT), np.sin(_TILT)))
    up, across = (axis.ravel() for axis in np.meshgrid(0.5 - rows, columns - 0.5, indexing="ij"))
    direction = forward + _ZOOM * (across[:, None] * _vector((1, 0, 0)) + up[:, None] * upward)
    direction = (direction / np.linalg.norm(direction, axis=1, keepdims=True)).astype(np.float32)
    traveled, closest = _march(solid, eye, direction)
    return eye + traveled[:, None] * direction, direction, closest


def _march(solid: Shape, eye: Array, direction: Array) -> tuple[Array, Array]:
    """Return how far each ray travels to its nearest approach, and the distance to the surface there."""
    count = len(direction)
    traveled = np.full(count, _EYE - _REACH, dtype=np.float32)
    closest, closest_at = np.full(count, np.inf, dtype=np.float32), traveled.copy()
    active = np.arange(count)
    for _ in range(90):
        distance = solid(eye + traveled[active, None] * direction[active])
        closer = distance < closest[active]
        closest[active[closer]], closest_at[active[closer]] = distance[closer], traveled[active[closer]]
        traveled[active] += np.maximum(0.9 * distance, 5e-4)
        active = active[(distance > 4e-4) & (traveled[active] < _EYE + _REACH)]
        if not len(active):
            break
    return closest_at, np.maximum(closest, 0)


def _shade(parts: Sequence[Part], solid: Shape, points: Array, view: Array) -> tuple[Array, Array]:
    """Return the colors of points on the surface (sRGB) and the light that passes."""
    step = 1.5e-3
    slopes = [solid(points + step * row) - solid(points - step * row) for row in np.eye(3, dtype=np.float32)]
    normal = np.stack(slopes, axis=1)
    normal = normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9)
    owner = np.argmin([part.shape(points) for part in parts], axis=0)
    lamp = _vector((-0.62, 0.62, -0.48))
    facing = np.clip(normal @ lamp, 0, 1) * _light_reaching(solid, points + 0.01 * normal, lamp)
    depths = (0.03, 0.08, 0.18)
    occlusion = sum(np.clip(depth - solid(points + depth * normal), 0, depth) / depth for depth in depths)
    open_sky = np.clip(1 - 0.30 * occlusion, 0.15, 1)
    diffuse = 0.95 * facing[:, None] + (0.42 + 0.22 * normal[:, 1:2]) * open_sky[:, None]
    cosine = np.clip(-(view * normal).sum(axis=1), 0, 1)
    mirrored = _surroundings(view + 2 * cosine[:, None] * normal) * open_sky[:, None]
    color, passing = np.zeros_like(points), np.zeros(len(points), dtype=np.float32)
    for index, part in enumerate(parts):
        own = np.flatnonzero(owner == index)
        if not len(own):
            continue
        paint = part.color(points[own]) if callable(part.color) else _vector(part.color)
        fresnel = (0.04 + 0.96 * (1 - cosine[own, None]) ** 5) * part.gloss
        if part.is_metal:
            color[own] = paint * (0.9 * mirrored[own] + 0.15 * diffuse[own])
        else:
            color[own] = (1 - part.transmission) * paint * diffuse[own] + fresnel * mirrored[own] * 1.4
        # Thick glass at the outline lets less light through.
        passing[own] = part.transmission * (0.35 + 0.65 * cosine[own])
    return np.clip(color, 0, 1) ** (1 / 2.2), passing


def _light_reaching(solid: Shape, points: Array, lamp: Array) -> Array:
    """Return the share of a large lamp that each point sees."""
    share, traveled = np.ones(len(points), dtype=np.float32), 0.02
    for _ in range(12):
        distance = solid(points + traveled * lamp)
        share = np.minimum(share, np.clip(0.5 + 5.0 * distance / traveled, 0, 1))
        traveled *= 1.45
    return share


def _surroundings(direction: Array) -> Array:
    """Return what glossy surfaces mirror: a dim studio, a large lamp on the left and a strip on the right."""
    x, y = direction[:, 0], direction[:, 1]
    light = 0.16 + 0.30 * np.clip(y, 0, 1) + 0.12 * np.clip(-y, 0, 1)
    light = light + 1.5 * _smooth(0.35, 0.55, -x) * _smooth(-0.35, 0.0, y) * _smooth(-0.95, -0.75, -y)
    light = light + 0.9 * _smooth(0.62, 0.70, x) * _smooth(-0.90, -0.82, -x)
    return np.repeat(light[:, None], 3, axis=1).astype(np.float32)


def _smooth(low: float, high: float, value: Array) -> Array:
    unit = np.clip((value - low) / (high - low), 0, 1)
    return unit * unit * (3 - 2 * unit)


def resize(traced: Traced, height: int) -> Traced:
    """Return the image in another height."""
    size = (max(1, round(traced.opacity.shape[1] * height / traced.opacity.shape[0])), height)
    method = cv2.INTER_AREA if height < traced.opacity.shape[0] else cv2.INTER_CUBIC
    layers = [
        np.clip(cv2.resize(layer, size, interpolation=method), 0, 1)
        for layer in (traced.color, traced.opacity, traced.transmission)
    ]
    return Traced(*layers)
