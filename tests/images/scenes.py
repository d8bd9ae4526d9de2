"""Backgrounds of the image set: plain paper, and busy rooms, tables, plants and walls. All are drawn."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from tests.images.shapes import Array

Random = np.random.Generator
Scene = Callable[[int, int, Random], Array]
"""Takes width, height and a random generator; returns sRGB 0..1, height x width x 3."""


def _axes(width: int, height: int) -> tuple[Array, Array]:
    down, across = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return down, across


def _clouds(width: int, height: int, size: tuple[float, float], random: Random) -> Array:
    """Return smooth noise around 0 with a deviation of 1, of a size in pixels across and down."""
    grid = (max(2, round(width / size[0])), max(2, round(height / size[1])))
    noise = random.normal(0, 1, grid[::-1]).astype(np.float32)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def white(width: int, height: int, random: Random) -> Array:
    """Return a white studio background, which is never quite white in a photo."""
    down, across = _axes(width, height)
    light = 0.975 - 0.02 * (across**2 + down**2) * random.uniform(0.2, 1)
    return np.repeat(light[..., None], 3, axis=2) * (1, 1, random.uniform(0.985, 1))


def gray_falloff(width: int, height: int, random: Random) -> Array:
    """Return a gray sweep that a lamp on one side leaves darker on the other."""
    down, across = _axes(width, height)
    side = random.choice((-1, 1))
    light = random.uniform(0.5, 0.75) + 0.17 * side * across - 0.10 * down
    bend = 0.05 / (1 + np.exp(-(down - 0.45) * 14))
    return np.repeat((light + bend)[..., None], 3, axis=2)


def colored_paper(width: int, height: int, random: Random) -> Array:
    """Return paper of one color, with a soft lamp."""
    down, across = _axes(width, height)
    colors = (
        (0.86, 0.72, 0.66),
        (0.62, 0.74, 0.80),
        (0.88, 0.82, 0.62),
        (0.66, 0.76, 0.66),
        (0.30, 0.33, 0.40),
    )
    light = 1.02 - 0.08 * (across - 0.3) ** 2 - 0.06 * down + 0.004 * _clouds(width, height, (5, 5), random)
    return light[..., None] * np.array(colors[int(random.integers(len(colors)))])


def dark_paper(width: int, height: int, random: Random) -> Array:
    """Return black paper with a faint lamp."""
    down, across = _axes(width, height)
    light = 0.10 + 0.07 * np.exp(-((across + 0.2) ** 2 + (down + 0.3) ** 2))
    return light[..., None] * np.array((1, 1, 1.06))


def wooden_table(width: int, height: int, random: Random) -> Array:
    """Return planks seen from above, in focus."""
    grain = _clouds(width, height, (180, 3), random) + 0.6 * _clouds(width, height, (60, 1.5), random)
    rings = np.sin(6 * _clouds(width, height, (420, 46), random))
    color = np.array(((0.52, 0.36, 0.22), (0.68, 0.54, 0.38), (0.34, 0.24, 0.17))[int(random.integers(3))])
    image = color * (1 + 0.07 * grain + 0.08 * rings)[..., None]
    planks = int(random.integers(5, 9))
    for number in range(planks):
        first, last = height * number // planks, height * (number + 1) // planks
        image[first:last] *= random.uniform(0.86, 1.1)
        image[first : first + 3] *= 0.45
    return image


def brick_wall(width: int, height: int, random: Random) -> Array:
    """Return a wall of bricks above a floor."""
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    tall, long = height / 22, height / 9
    row = np.floor(down / tall)
    column = np.floor(across / long + 0.5 * (row % 2))
    seed = np.sin(row * 12.9898 + column * 78.233) * 43758.5453
    tone = 0.8 + 0.4 * (seed - np.floor(seed))
    joint = ((down % tall) < 4) | (((across + 0.5 * (row % 2) * long) % long) < 4)
    image = (
        np.array((0.52, 0.27, 0.20))
        * tone[..., None]
        * (1 + 0.06 * _clouds(width, height, (3, 3), random))[..., None]
    )
    image[joint] = (0.62, 0.58, 0.54)
    floor = round(0.76 * height)
    image[floor:] = wooden_table(width, height - floor, random) * 0.8
    return image


def blurred_room(width: int, height: int, random: Random) -> Array:
    """Return a room out of focus: furniture, a window and lamps behind a table."""
    image = np.full((height, width, 3), (0.74, 0.71, 0.66), dtype=np.float32) * random.uniform(0.75, 1.1)
    for _ in range(16):
        color = np.clip(random.uniform(0.08, 0.85) + random.normal(0, 0.12, 3), 0, 1).tolist()
        left, top = random.uniform(-0.1, 1) * width, random.uniform(-0.1, 0.7) * height
        right, bottom = left + random.uniform(0.08, 0.4) * width, top + random.uniform(0.08, 0.5) * height
        cv2.rectangle(image, (round(left), round(top)), (round(right), round(bottom)), color, -1)
    for _ in range(7):
        place = (round(random.uniform(0, width)), round(random.uniform(0, 0.6 * height)))
        cv2.circle(image, place, round(random.uniform(0.01, 0.05) * width), (1.0, 0.95, 0.82), -1)
    image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.012, 0.025) * width)
    table = round(random.uniform(0.66, 0.74) * height)
    image[table:] = wooden_table(width, height - table, random)
    edge = cv2.GaussianBlur(image, (0, 0), 6)
    image[table - 30 : table + 12] = edge[table - 30 : table + 12]
    return image


def foliage(width: int, height: int, random: Random) -> Array:
    """Return leaves, in focus in front and blurred behind."""
    image = np.full((height, width, 3), (0.10, 0.14, 0.08), dtype=np.float32)
    for depth in range(4):
        for _ in range(260):
            tone = random.uniform(0.35, 1.0) * (0.5 + 0.16 * depth)
            color = (tone * np.array((0.42, 0.66, 0.26)) * random.uniform(0.85, 1.15, 3)).tolist()
            place = (round(random.uniform(0, width)), round(random.uniform(0, height)))
            long = random.uniform(0.02, 0.055) * width
            axes = (round(long), max(2, round(long * random.uniform(0.25, 0.45))))
            cv2.ellipse(image, place, axes, random.uniform(0, 180), 0, 360, color, -1, cv2.LINE_AA)
        image = cv2.GaussianBlur(image, (0, 0), 9 / (1 + 2 * depth))
    return image


def bookshelf(width: int, height: int, random: Random) -> Array:
    """Return shelves full of books, in focus."""
    image = np.full((height, width, 3), (0.14, 0.11, 0.09), dtype=np.float32)
    shelf = height // 4
    for first in range(0, height, shelf):
        left = 0
        while left < width:
            thick = int(random.uniform(0.018, 0.05) * width)
            top = first + int(random.uniform(0.08, 0.3) * shelf)
            color = np.clip(random.uniform(0.15, 0.8) + random.normal(0, 0.15, 3), 0.04, 0.95)
            image[top : first + shelf - 14, left : left + thick - 2] = color
            image[top + 14 : top + 24, left + 3 : left + thick - 5] = 1 - color
            left += thick
        image[first + shelf - 14 : first + shelf] = (0.48, 0.33, 0.2)
    return image


def patterned_cloth(width: int, height: int, random: Random) -> Array:
    """Return a tablecloth with checks and dots."""
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    step = width / random.uniform(9, 14)
    check = ((across // step) % 2 + (down // step) % 2) / 2
    colors = np.clip(random.uniform(0.25, 0.9, (2, 3)), 0, 1)
    image = colors[0] * (1 - check[..., None]) + colors[1] * check[..., None]
    dots = ((across % step - step / 2) ** 2 + (down % step - step / 2) ** 2) < (0.2 * step) ** 2
    image[dots] = 1 - image[dots] * 0.8
    folds = _clouds(width, height, (260, 200), random)
    return image * (1 + 0.06 * folds + 0.02 * random.normal(0, 1, (height, width)))[..., None]


PLAIN: tuple[Scene, ...] = (white, gray_falloff, colored_paper)
BUSY: tuple[Scene, ...] = (blurred_room, wooden_table, foliage, brick_wall, bookshelf, patterned_cloth)
