"""Render the sample photo `mug.jpg` with ray tracing: a stoneware mug on a table near a window.

`python -m tools.sample_images.photograph` writes the file in some minutes. It is stored like a portrait
photo of a phone: rotated, with EXIF orientation 6, a camera model and a fictitious location.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from studio.seed import IMAGES_DIR

Array = NDArray[np.floating[Any]]
PATH = IMAGES_DIR / "mug.jpg"

_WIDTH, _HEIGHT, _SAMPLES = 1500, 2000, 18
_RADIUS, _TALL, _TURN = 0.44, 0.96, np.radians(-24)
_EYE = np.array([0.25, 1.62, -4.6], dtype=np.float32)
_TARGET = np.array([0.10, 0.43, 0.0], dtype=np.float32)
_WALL = 2.2
_WINDOW = np.array([-3.2, 2.9, -1.6], dtype=np.float32)
_WINDOW_EDGES = (np.array([0.5, 0, -1.5], np.float32), np.array([0, 1.6, 0], np.float32))


def load_phone_photo() -> bytes:
    """Return the committed sample photo, a JPEG like those of a phone."""
    return PATH.read_bytes()


@cache
def open_small_photo() -> Image.Image:
    """Return the committed sample photo, upright, in the size of a small prediction. Do not change it."""
    photo = Image.open(io.BytesIO(load_phone_photo()))
    return ImageOps.exif_transpose(photo).convert("RGB").resize((600, 800), Image.Resampling.LANCZOS)


def _body(point: Array) -> Array:
    """Return the signed distance to the mug: a shell with a rounded foot and lip, and a handle."""
    x, y, z = point[:, 0], point[:, 1], point[:, 2]
    cosine, sine = np.float32(np.cos(_TURN)), np.float32(np.sin(_TURN))
    x, z = cosine * x - sine * z, sine * x + cosine * z
    around = np.sqrt(x * x + z * z)
    # The wall is slightly wider in the middle and has the faint rings of hand-thrown pottery.
    belly = _RADIUS + 0.030 * np.sin(np.clip(y / _TALL, 0, 1) * np.pi) + 0.0022 * np.sin(y * 58)
    outer = _rounded_distance(around - belly, np.abs(y - _TALL / 2) - _TALL / 2, 0.055)
    inner = _rounded_distance(around - (belly - 0.045), np.abs(y - 0.07 - _TALL) - _TALL, 0.09)
    ring = np.sqrt((x - 0.47) ** 2 + ((y - 0.50) * 0.86) ** 2) - 0.255
    handle = np.sqrt((ring * 1.15) ** 2 + (z * 0.72) ** 2) - 0.054
    blend = np.clip(0.5 + 0.5 * (handle - outer) / 0.07, 0, 1)
    joined = handle + (outer - handle) * blend - 0.07 * blend * (1 - blend)
    lip = np.clip(0.5 - 0.5 * (joined + inner) / 0.022, 0, 1)
    hollow = joined + (-inner - joined) * lip + 0.022 * lip * (1 - lip)
    return (hollow * 0.82).astype(np.float32)


def _rounded_distance(across: Array, along: Array, radius: float) -> Array:
    across, along = across + radius, along + radius
    outside = np.sqrt(np.maximum(across, 0) ** 2 + np.maximum(along, 0) ** 2)
    return np.minimum(np.maximum(across, along), 0) + outside - radius


def _march(origin: Array, direction: Array, steps: int = 70) -> Array:
    """Return the distance to the mug along each ray, or infinity if the ray misses it."""
    center = np.array([0.08, 0.48, 0.0], dtype=np.float32)
    offset = origin - center
    along = -(offset * direction).sum(axis=1)
    closest = (offset * offset).sum(axis=1) - along * along
    reach = np.sqrt(np.maximum(0.92**2 - closest, 0))
    result = np.full(len(origin), np.inf, dtype=np.float32)
    active = np.flatnonzero((closest < 0.92**2) & (along + reach > 0))
    traveled = np.maximum(along[active] - reach[active], 1e-3).astype(np.float32)
    for _ in range(steps):
        if not len(active):
            break
        distance = _body(origin[active] + traveled[:, None] * direction[active])
        hit = distance < 0.0008
        result[active[hit]] = traveled[hit]
        traveled = traveled + np.maximum(distance, 0.0008)
        going = ~hit & (traveled < along[active] + reach[active])
        active, traveled = active[going], traveled[going]
    return result


def _normal(point: Array) -> Array:
    step = 0.0025
    slopes = [
        _body(point + np.eye(3, dtype=np.float32)[axis] * step)
        - _body(point - np.eye(3, dtype=np.float32)[axis] * step)
        for axis in range(3)
    ]
    return _unit(np.stack(slopes, axis=1))


def _unit(vector: Array) -> Array:
    return (vector / (np.linalg.norm(vector, axis=-1, keepdims=True) + 1e-9)).astype(np.float32)


class _Noise:
    """A smooth random texture of several octaves, evaluated by position."""

    def __init__(self, seed: int) -> None:
        self._grid = np.random.default_rng(seed).random((256, 256)).astype(np.float32)

    def __call__(self, u: Array, v: Array, octaves: int = 4) -> Array:
        total, share = np.zeros_like(u, dtype=np.float32), 0.5
        for octave in range(octaves):
            scale = 2.0**octave
            x, y = np.mod(u * scale + 17 * octave, 256), np.mod(v * scale + 31 * octave, 256)
            value = self._at(x, y)
            total += share * value
            share *= 0.5
        return total

    def _at(self, x: Array, y: Array) -> Array:
        left, top = np.floor(x).astype(int), np.floor(y).astype(int)
        u, v = x - left, y - top
        u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
        left, top, right, low = left % 256, top % 256, (left + 1) % 256, (top + 1) % 256
        upper = self._grid[top, left] * (1 - u) + self._grid[top, right] * u
        lower = self._grid[low, left] * (1 - u) + self._grid[low, right] * u
        return (upper * (1 - v) + lower * v).astype(np.float32)


_clay, _plaster, _speckle = _Noise(3), _Noise(4), _Noise(5)


def _room(direction: Array) -> Array:
    """Return the light of the room in a direction that hits no object: bright left, dim and warm right."""
    left = np.clip(-direction[:, 0] * 0.5 + 0.5, 0, 1)
    up = np.clip(direction[:, 1] * 0.5 + 0.5, 0, 1)
    cool, warm = np.array([0.80, 0.88, 1.0], np.float32), np.array([0.60, 0.50, 0.42], np.float32)
    light = (0.26 + 0.75 * left**2 + 0.34 * up)[:, None]
    return (light * (warm + (cool - warm) * left[:, None])).astype(np.float32)


def _window_seen(origin: Array, direction: Array) -> Array:
    """Return whether a ray reaches the window between its bars, as 0 or 1."""
    across, upward = _WINDOW_EDGES
    normal = np.cross(across, upward)
    slope = direction @ normal
    distance = ((_WINDOW - origin) @ normal) / np.where(np.abs(slope) < 1e-6, 1e-6, slope)
    local = origin + distance[:, None] * direction - _WINDOW
    u, v = local @ across / (across @ across), local @ upward / (upward @ upward)
    inside = (distance > 0) & (np.abs(u) < 1) & (np.abs(v) < 1)
    bars = (np.abs(u) < 0.035) | (np.abs(v - 0.15) < 0.03)
    return (inside & ~bars).astype(np.float32)


def _surface(origin: Array, direction: Array) -> tuple[Array, Array, Array, NDArray[np.uint8]]:
    """Return distance, normal, albedo and kind (0 wall, 1 table, 2 clay, 3 glaze) of the hit surfaces."""
    mug = _march(origin, direction)
    down = np.where(direction[:, 1] < -1e-4, -origin[:, 1] / np.minimum(direction[:, 1], -1e-4), np.inf)
    back = np.where(
        direction[:, 2] > 1e-4, (_WALL - origin[:, 2]) / np.maximum(direction[:, 2], 1e-4), np.inf
    )
    distance = np.minimum(np.minimum(mug, down), back).astype(np.float32)
    finite = np.where(np.isfinite(distance), distance, 40.0).astype(np.float32)
    point = origin + finite[:, None] * direction
    kind = np.where(distance == back, 0, 1).astype(np.uint8)
    normal = np.zeros_like(point)
    normal[kind == 0, 2], normal[kind == 1, 1] = -1, 1
    albedo = np.empty_like(point)
    rough = _plaster._at(point[:, 0] * 1.7 + 90, (point[:, 1] + point[:, 2]) * 1.7 + 90)
    fine = _plaster(point[:, 0] * 24 + 900, (point[:, 1] + point[:, 2]) * 24 + 900, 3)
    grain = _plaster(point[:, 0] * 3 + 500, point[:, 2] * 46 + 500, 4)
    wall = np.array([0.66, 0.635, 0.60], np.float32) * (0.96 + 0.05 * rough + 0.03 * fine)[:, None]
    table = (
        np.array([0.60, 0.545, 0.485], np.float32) * (0.90 + 0.09 * rough + 0.14 * (grain - 0.45))[:, None]
    )
    albedo[:] = np.where((kind == 0)[:, None], wall, table)
    on_mug = np.flatnonzero((mug <= distance) & np.isfinite(mug))
    if len(on_mug):
        normal[on_mug] = _normal(point[on_mug])
        albedo[on_mug], glazed = _pottery(point[on_mug])
        kind[on_mug] = np.where(glazed, 3, 2)
    return finite, normal, albedo, kind


def _pottery(point: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return the albedo of the mug and where it is glazed.

    It has speckled clay below an uneven line and glaze above, which turns brown at the lip.
    """
    x, y, z = point[:, 0], point[:, 1], point[:, 2]
    angle = np.arctan2(z, x)
    around = np.sqrt(x * x + z * z)
    line = 0.245 + 0.016 * np.sin(angle * 2 + 1.2) + 0.05 * (_clay(angle * 3 + 40, y * 2 + 40, 3) - 0.45)
    glazed = (y > line) | (around < _RADIUS - 0.03)
    u, v = angle * 22 + 100, y * 22 + around * 22 + 100
    clouds = _clay(u * 0.35, v * 0.35, 4)
    speckles = np.clip((_speckle(u * 2.6, v * 2.6, 2) - 0.585) * 16, 0, 1)
    clay = np.array([0.50, 0.335, 0.225], np.float32) * (0.80 + 0.40 * clouds)[:, None]
    clay = clay * (1 - 0.65 * speckles[:, None])
    glaze = np.array([0.040, 0.150, 0.165], np.float32) * (0.45 + 1.15 * clouds)[:, None]
    pooled = np.exp(-(((y - line) / 0.035) ** 2))[:, None]
    glaze = glaze * (1 - 0.45 * pooled) + 0.10 * speckles[:, None] * np.array([0.5, 0.4, 0.25], np.float32)
    lip = np.clip((y - (_TALL - 0.034)) / 0.03, 0, 1)[:, None] * (0.5 + 0.5 * clouds)[:, None]
    glaze = glaze + (np.array([0.23, 0.125, 0.06], np.float32) - glaze) * np.clip(lip * 1.2, 0, 0.85)
    return np.where(glazed[:, None], glaze, clay).astype(np.float32), glazed


def _direct_light(point: Array, normal: Array, random: np.random.Generator) -> Array:
    """Return the light from one random spot of the window at each point; 0 if the mug blocks it."""
    across, upward = _WINDOW_EDGES
    spot = random.uniform(-1, 1, (len(point), 2)).astype(np.float32)
    target = _WINDOW + spot[:, :1] * across + spot[:, 1:] * upward
    path = target - point
    distance = np.linalg.norm(path, axis=1)
    direction = _unit(path)
    facing = np.clip((normal * direction).sum(axis=1), 0, 1)
    blocked = np.isfinite(_march(point + normal * 0.006, direction, 44))
    power = 27.0 * facing / (distance * distance) * ~blocked
    return (power[:, None] * np.array([1.0, 0.985, 0.955], np.float32)).astype(np.float32)


def _scatter(normal: Array, random: np.random.Generator) -> Array:
    sphere = _unit(random.normal(size=normal.shape).astype(np.float32))
    return _unit(normal + sphere * 0.999)


def _trace(origin: Array, direction: Array, random: np.random.Generator) -> Array:
    """Return the light (0 or more) along each ray: direct, one bounce, and the reflection of the glaze."""
    distance, normal, albedo, kind = _surface(origin, direction)
    point = origin + distance[:, None] * direction
    light = _direct_light(point, normal, random)
    bounce = _scatter(normal, random)
    start = point + normal * 0.006
    bounce_distance, bounce_normal, bounce_albedo, _ = _surface(start, bounce)
    near = bounce_distance < 6
    bounce_point = start + bounce_distance[:, None] * bounce
    indirect = _room(bounce)
    indirect[near] = bounce_albedo[near] * (
        0.30 + 0.9 * _direct_light(bounce_point[near], bounce_normal[near], random)
    )
    color = albedo * (light + 0.85 * indirect)
    shiny = np.flatnonzero(kind >= 2)
    if len(shiny):
        view, facing_normal = direction[shiny], normal[shiny]
        cosine = np.clip(-(view * facing_normal).sum(axis=1), 0, 1)
        mirrored = view + 2 * cosine[:, None] * facing_normal
        blur = np.where(kind[shiny] == 3, 0.035, 0.40).astype(np.float32)[:, None]
        mirrored = _unit(mirrored + blur * random.normal(size=mirrored.shape).astype(np.float32))
        begin = point[shiny] + facing_normal * 0.006
        fresnel = (0.045 + 0.955 * (1 - cosine) ** 5) * np.where(kind[shiny] == 3, 1.0, 0.35)
        depth, _, seen_albedo, _ = _surface(begin, mirrored)
        seen = np.where((depth < 6)[:, None], seen_albedo * 0.62, _room(mirrored))
        window = _window_seen(begin, mirrored) * ~np.isfinite(_march(begin, mirrored, 40))
        seen = seen + 6.5 * window[:, None]
        color[shiny] += fresnel[:, None].astype(np.float32) * seen
    return color


def trace_image() -> Image.Image:
    """Render the scene and return the upright image."""
    width, height = _WIDTH, _HEIGHT
    forward = _unit(_TARGET - _EYE)
    right = _unit(np.cross(np.array([0, 1, 0], np.float32), forward))
    upward = np.cross(forward, right).astype(np.float32)
    total = np.zeros((height, width, 3), dtype=np.float32)
    rows_at_once = max(1, 120_000 // width)
    for first in range(0, height, rows_at_once):
        last = min(height, first + rows_at_once)
        random = np.random.default_rng(first)
        rows, columns = (axis.astype(np.float32).ravel() for axis in np.mgrid[first:last, 0:width])
        for _ in range(_SAMPLES):
            jitter = random.random((2, len(rows)), dtype=np.float32)
            x = (columns + jitter[0] - width / 2) / height * 0.50
            y = (height / 2 - rows - jitter[1]) / height * 0.50
            direction = _unit(forward + x[:, None] * right + y[:, None] * upward)
            origin = np.broadcast_to(_EYE, direction.shape).astype(np.float32)
            seen = np.minimum(_trace(origin, direction, random), 4.0)
            total[first:last] += seen.reshape(last - first, width, 3)
    return _develop(total / _SAMPLES)


def _develop(light: Array) -> Image.Image:
    """Convert linear light to an image like a phone's: denoised, soft highlights, vignetting and grain."""
    height, width = light.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = light * (1 - 0.10 * (rows**2 + columns**2))[..., None] * 0.92
    mapped = np.clip(light * (1 + light / 9.0) / (1 + light * 0.55), 0, 1) ** (1 / 2.2)
    mapped = mapped + 0.30 * mapped * (1 - mapped) * (mapped - 0.5)
    eight = np.clip(mapped * 255, 0, 255).astype(np.uint8)
    calm = cv2.fastNlMeansDenoisingColored(eight, None, 5, 6, 5, 15).astype(np.float32)
    grain = np.random.default_rng(11).normal(0, 1.7, (height, width, 1)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.6)[..., None] * 1.6
    return Image.fromarray(np.clip(calm + grain + 0.5, 0, 255).astype(np.uint8))


def encode_as_phone(image: Image.Image) -> bytes:
    """Return the image as a JPEG of a phone: rotated, with orientation, camera and location in EXIF."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = 6, "Sartiq", "Sample phone"
    location = exif.get_ifd(0x8825)
    location.update({1: "N", 2: (55.0, 40.0, 34.0), 3: "E", 4: (12.0, 34.0, 6.0)})
    target = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(target, "JPEG", quality=82, exif=exif, optimize=True)
    return target.getvalue()


if __name__ == "__main__":
    PATH.write_bytes(encode_as_phone(trace_image()))
