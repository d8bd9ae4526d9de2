"""The image set: photographs of drawn products with a known mask, the same on each machine.

Each product is photographed on a plain ground, on a busy one, and once under conditions in which a mask may
well be wrong. Every second product belongs to the half that calibrates the confidence; the other half is held
out.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image

from tests.images import scenes
from tests.images.garments import GARMENTS
from tests.images.objects import SOLIDS
from tests.images.shapes import Array, Traced, resize, trace

Kind = Literal["plain", "busy", "hard"]
TruePose = Literal["standing", "lying", "hanging"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES = (*SOLIDS, *GARMENTS)
"""The products, in the order in which they alternate between the two halves."""
_WIDTH, _HEIGHT = 900, 1200
# These are photographed on a ground of their own color: white on white and dark on dark.
_ON_WHITE = frozenset(("teapot", "bowl", "white shirt", "shakers", "wine glass", "laptop"))
_ON_BLACK = frozenset(("camera", "phone", "vase", "shirt with print"))
# These do not stand on the ground.
_HANGING, _LYING = frozenset(("pendant lamp",)), frozenset((*GARMENTS, "bangle", "scissors"))


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph of which the mask is known."""

    name: str
    kind: Kind
    condition: str
    """The ground, or what makes a hard photograph hard."""
    is_held_out: bool
    data: bytes
    """The JPEG file."""
    truth: Array
    """Share of each pixel that the product covers, 0..1."""
    pose: TruePose


@cache
def _trace_product(name: str) -> Traced:
    return trace(SOLIDS[name]()) if name in SOLIDS else GARMENTS[name]()


def get_pose(name: str) -> TruePose:
    """Return how a product is photographed."""
    return "hanging" if name in _HANGING else "lying" if name in _LYING else "standing"


def take_photograph(name: str, kind: Kind) -> Photograph:
    """Return the photograph of a product: ground, shadow, product, lens, noise and JPEG."""
    number = NAMES.index(name)
    random = np.random.default_rng(zlib.crc32(f"{name} {kind}".encode()))
    condition = _CONDITIONS[number % len(_CONDITIONS)] if kind == "hard" else ""
    scene = _choose_scene(name, kind, condition, number)
    size = (_WIDTH, _HEIGHT) if (number + KINDS.index(kind)) % 3 else (_HEIGHT, _WIDTH)
    ground = np.asarray(scene(*size, random), dtype=np.float32)
    product, left, top = _place(_trace_product(name), size, condition, name, random)
    layer = _put(product, size, left, top)
    if condition == "camouflage":
        ground = ground * 0.35 + 0.65 * _mean_color(layer)
    if condition == "clutter":
        ground = _scatter(ground, random)
    image = _composite(_darken(ground, layer, name, condition, random), layer)
    if condition == "dim":
        image = image * random.uniform(0.16, 0.24)
    blur = random.uniform(3.0, 4.5) if condition == "unsharp" else 0.7
    image = cv2.GaussianBlur(image, (0, 0), blur)
    tint = 1 + random.normal(0, 0.012, 3)
    noise = random.normal(0, 0.030 if condition == "dim" else 0.008, image.shape)
    pixels = (np.clip(image * tint + noise, 0, 1) * 255 + 0.5).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=92)
    name_of_condition = condition or scene.__name__.replace("_", " ")
    return Photograph(
        name, kind, name_of_condition, number % 2 == 1, encoded.getvalue(), layer.opacity, get_pose(name)
    )


# What makes the hard photographs hard.
_CONDITIONS = ("camouflage", "clutter", "tiny", "cut off", "unsharp", "hard shadow", "dim")


def _choose_scene(name: str, kind: Kind, condition: str, number: int) -> scenes.Scene:
    if kind == "plain" and name in _ON_WHITE:
        return scenes.white
    if kind == "plain" and name in _ON_BLACK:
        return scenes.dark_paper
    if kind == "plain" or condition == "hard shadow":
        return scenes.PLAIN[number % len(scenes.PLAIN)]
    return scenes.BUSY[(number + 3 * (kind == "hard")) % len(scenes.BUSY)]


def _place(
    product: Traced, size: tuple[int, int], condition: str, name: str, random: np.random.Generator
) -> tuple[Traced, int, int]:
    """Return the product in its size in the photograph, and its left and top there."""
    width, height = size
    share = random.uniform(0.09, 0.13) if condition == "tiny" else random.uniform(0.55, 0.72)
    tall, wide = product.opacity.shape
    factor = share * min(width / wide, height / tall, 1.25 * min(size) / max(tall, wide))
    product = resize(product, max(8, round(tall * factor)))
    tall, wide = product.opacity.shape
    left = round((width - wide) * random.uniform(0.38, 0.62))
    top = (
        round(0.82 * height) - tall
        if name not in _LYING
        else round((height - tall) * random.uniform(0.4, 0.6))
    )
    if condition == "cut off":
        left = int(random.choice((-round(0.32 * wide), width - round(0.68 * wide))))
    if name in _HANGING:
        top = 0
    return product, left, max(top, 0 if name in _HANGING else round(0.03 * height))


def _put(product: Traced, size: tuple[int, int], left: int, top: int) -> Traced:
    """Return the product on a transparent canvas of the size of the photograph."""
    width, height = size
    tall, wide = product.opacity.shape
    first, last = max(0, left), min(width, left + wide)
    bottom = min(height, top + tall)
    color = np.zeros((height, width, 3), dtype=np.float32)
    opacity, transmission = (np.zeros((height, width), dtype=np.float32) for _ in range(2))
    there, here = np.s_[top:bottom, first:last], np.s_[: bottom - top, first - left : last - left]
    color[there], opacity[there] = product.color[here], product.opacity[here]
    transmission[there] = product.transmission[here]
    return Traced(color, opacity, transmission)


def _mean_color(layer: Traced) -> Array:
    return layer.color[layer.opacity > 0.5].mean(axis=0)


def _scatter(ground: Array, random: np.random.Generator) -> Array:
    """Return the ground with other things on it, which a photographer would have put away."""
    height, width = ground.shape[:2]
    others = [name for name in ("mug", "tin", "bangle", "stool", "perfume") if name in SOLIDS]
    for _ in range(5):
        other = _trace_product(str(random.choice(others)))
        other = resize(other, round(random.uniform(0.12, 0.26) * height))
        tall, wide = other.opacity.shape
        left, top = random.integers(0, max(1, width - wide)), random.integers(0, max(1, height - tall))
        ground = _composite(ground, _put(other, (width, height), int(left), int(top)))
    return ground


def _darken(ground: Array, layer: Traced, name: str, condition: str, random: np.random.Generator) -> Array:
    """Return the ground with the product's shadow."""
    opacity = layer.opacity * (1 - 0.5 * layer.transmission)
    height, width = opacity.shape
    rows = np.flatnonzero((layer.opacity > 0.5).any(axis=1))
    base, tall = int(rows[-1]), int(rows[-1] - rows[0])
    side = random.choice((-1, 1))
    if name in _HANGING or name in _LYING:
        move = np.array([[1, 0, side * 0.03 * tall], [0, 1, 0.03 * tall]])
        shadow = cv2.warpAffine(opacity, move, (width, height))
        return ground * (1 - 0.35 * cv2.GaussianBlur(shadow, (0, 0), 0.02 * tall + 1))[..., None]
    flat = 0.30 if condition == "hard shadow" else 0.16
    lean = side * (1.1 if condition == "hard shadow" else 0.5)
    squash = np.array([[1, -lean, lean * base], [0, flat, (1 - flat) * base - 0.01 * tall]])
    soft = 1.2 if condition == "hard shadow" else 0.03 * tall + 1
    shadow = cv2.GaussianBlur(cv2.warpAffine(opacity, squash, (width, height)), (0, 0), soft)
    foot = opacity.copy()
    foot[: base - max(3, round(0.06 * tall))] = 0
    contact = cv2.GaussianBlur(foot, (0, 0), 0.012 * tall + 1)
    dark = 1 - (1 - (0.62 if condition == "hard shadow" else 0.32) * shadow) * (1 - 0.5 * contact)
    return ground * (1 - dark)[..., None]


def _composite(ground: Array, layer: Traced) -> Array:
    """Return the product before the ground; what shows through glass is displaced and slightly soft."""
    moved = cv2.GaussianBlur(np.roll(ground, (6, -9), (0, 1)), (0, 0), 2.5)
    share, passing = layer.opacity[..., None], layer.transmission[..., None]
    tint = 0.55 + 0.45 * layer.color / np.maximum(layer.color.max(axis=2, keepdims=True), 0.05)
    seen = layer.color * (1 - 0.4 * passing) + moved * passing * tint
    return (ground * (1 - share) + np.clip(seen, 0, 1) * share).astype(np.float32)
