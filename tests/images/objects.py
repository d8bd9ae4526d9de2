"""The products of the image set: household things, tools and furniture as solid shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from tests.images.shapes import (
    Array,
    Part,
    Texture,
    Vector,
    box,
    chain,
    cut,
    join,
    move,
    rod,
    sphere,
    torus,
    turn,
    turned,
)

WHITE, IVORY, GRAY = (0.80, 0.80, 0.79), (0.72, 0.68, 0.60), (0.30, 0.31, 0.32)
BLACK, STEEL, GOLD = (0.015, 0.015, 0.017), (0.72, 0.74, 0.77), (0.83, 0.60, 0.25)
TEAL, RED, OAK = (0.03, 0.20, 0.22), (0.45, 0.035, 0.03), (0.36, 0.20, 0.09)


def printed(ground: Vector, ink: Vector, words: Sequence[str], size: tuple[float, float]) -> Texture:
    """Return a label: words on a ground, printed on the front of a shape.

    Args:
        size: Width and height of the printed area around the origin.
    """
    sheet = np.zeros((256, 256), dtype=np.uint8)
    for number, word in enumerate(words):
        place, line = (18, 256 * (number + 1) // (len(words) + 1) + 20), cv2.LINE_AA
        cv2.putText(sheet, word, place, cv2.FONT_HERSHEY_TRIPLEX, 6.6 / max(4, len(word)), 255, 4, line)
    cv2.rectangle(sheet, (6, 6), (249, 249), 255, 4)

    def paint(points: Array) -> Array:
        column = np.clip((points[:, 0] / size[0] + 0.5) * 255, 0, 255).astype(int)
        row = np.clip((0.5 - points[:, 1] / size[1]) * 255, 0, 255).astype(int)
        on_front = (np.abs(points[:, 0]) < size[0] / 2) & (np.abs(points[:, 1]) < size[1] / 2)
        share = (sheet[row, column] / 255.0 * on_front * (points[:, 2] < 0))[:, None]
        return np.array(ground) * (1 - share) + np.array(ink) * share

    return paint


def wooden(color: Vector) -> Texture:
    """Return the grain of wood."""

    def paint(points: Array) -> Array:
        rings = np.sin(26 * points[:, 0] + 5 * np.sin(3.1 * points[:, 1]) + 9 * points[:, 2])
        return np.array(color) * (1 + 0.22 * rings[:, None])

    return paint


def _round(outline: list[tuple[float, float]], times: int = 2) -> list[tuple[float, float]]:
    """Return an open outline with its corners cut (Chaikin); its ends stay."""
    points = np.array(outline)
    for _ in range(times):
        before, after = points[:-1], points[1:]
        middle = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], axis=1)
        points = np.vstack([points[:1], middle.reshape(-1, 2), points[-1:]])
    return [(float(x), float(y)) for x, y in points]


def _mug() -> list[Part]:
    body = cut(
        turned([(0, -0.5), (0.42, -0.5), (0.46, 0.5), (0, 0.5)]), turned([(0, -0.4), (0.40, 0.6), (0, 0.6)])
    )
    return [Part(join(body, torus((0.52, 0.02, 0), 0.25, 0.06, 2)), TEAL, 0.9)]


def _teapot() -> list[Part]:
    body = sphere((0, 0, 0), 0.5, (1.1, 0.85, 1.1))
    spout = chain([(-0.45, -0.1, 0), (-0.72, 0.08, 0), (-0.86, 0.34, 0)], 0.07)
    handle = cut(torus((0.62, 0.05, 0), 0.28, 0.05, 2), box((0.3, 0, 0), (0.1, 1, 1)))
    lid = join(sphere((0, 0.38, 0), 0.26, (1, 0.3, 1)), sphere((0, 0.50, 0), 0.07))
    return [Part(join(body, spout, handle, lid), WHITE, 0.8)]


def _bowl() -> list[Part]:
    outer = [
        (0, -0.3),
        (0.3, -0.3),
        (0.62, -0.05),
        (0.78, 0.3),
        (0.73, 0.3),
        (0.57, 0),
        (0.27, -0.22),
        (0, -0.22),
    ]
    return [Part(turned(_round(outer, 1)), IVORY, 0.7)]


def _vase() -> list[Part]:
    outline = [(0, -0.8), (0.3, -0.8), (0.48, -0.35), (0.34, 0.15), (0.12, 0.45), (0.2, 0.8), (0, 0.8)]
    return [Part(turned(_round(outline)), (0.02, 0.022, 0.03), 1.0)]


def _bottle() -> list[Part]:
    glass = [(0, -0.85), (0.32, -0.85), (0.34, 0.1), (0.12, 0.45), (0.12, 0.75), (0, 0.75)]
    cap = turned([(0, 0.72), (0.15, 0.72), (0.15, 0.92), (0, 0.92)])
    return [Part(turned(_round(glass)), (0.05, 0.16, 0.42), 1.0, transmission=0.62), Part(cap, BLACK, 0.4)]


def _wine_glass() -> list[Part]:
    cup = [
        (0, -0.05),
        (0.3, 0.15),
        (0.36, 0.45),
        (0.28, 0.8),
        (0.26, 0.8),
        (0.33, 0.45),
        (0.27, 0.18),
        (0, 0),
    ]
    foot = [(0, -0.75), (0.34, -0.75), (0.34, -0.72), (0.05, -0.66), (0.035, -0.05), (0, -0.05)]
    wine = turned([(0, 0.02), (0.24, 0.18), (0.31, 0.36), (0, 0.36)])
    glass = join(turned(_round(cup)), turned(foot))
    return [Part(glass, (0.5, 0.55, 0.58), 1.0, transmission=0.72), Part(wine, (0.16, 0.005, 0.02), 0.8)]


def _perfume() -> list[Part]:
    flask = box((0, -0.25, 0), (0.42, 0.42, 0.2), 0.06)
    label = box((0, -0.25, -0.2), (0.22, 0.16, 0.012), 0.004)
    cap = join(box((0, 0.33, 0), (0.16, 0.16, 0.13), 0.02), box((0, 0.18, 0), (0.1, 0.06, 0.1), 0.01))
    paper = printed((0.7, 0.68, 0.62), BLACK, ["", "NO. 4", ""], (0.4, 0.9))
    return [
        Part(flask, (0.55, 0.30, 0.16), 1.0, transmission=0.55),
        Part(label, paper),
        Part(cap, GOLD, is_metal=True),
    ]


def _flask() -> list[Part]:
    body = turned([(0, -0.85), (0.28, -0.85), (0.28, 0.35), (0.18, 0.52), (0, 0.52)])
    lid = turned([(0, 0.5), (0.2, 0.5), (0.2, 0.85), (0, 0.85)])
    return [Part(body, STEEL, is_metal=True), Part(lid, BLACK, 0.3)]


def _kettle() -> list[Part]:
    body = turned([(0, -0.5), (0.52, -0.5), (0.5, -0.1), (0.3, 0.25), (0, 0.28)])
    spout = rod((-0.4, -0.05, 0), (-0.72, 0.3, 0), 0.1, 0.06)
    handle = cut(torus((0, 0.2, 0), 0.42, 0.045, 2), box((0, -0.2, 0), (1, 0.38, 1)))
    return [
        Part(join(body, spout), STEEL, is_metal=True),
        Part(handle, BLACK, 0.3),
        Part(sphere((0, 0.3, 0), 0.06), BLACK),
    ]


def _bangle() -> list[Part]:
    return [Part(turn(torus((0, 0, 0), 0.6, 0.09), 62, 0), GOLD, is_metal=True)]


def _watch() -> list[Part]:
    strap = cut(
        turned([(0.50, -0.2), (0.58, -0.2), (0.58, 0.2), (0.50, 0.2)]), box((0, 0, 0.56), (0.06, 1, 0.12))
    )
    case = turn(turned([(0, -0.07), (0.34, -0.07), (0.34, 0.07), (0, 0.07)]), 90, 0)
    dial = turn(turned([(0, -0.02), (0.27, -0.02), (0.27, 0.02), (0, 0.02)]), 90, 0)

    return [
        Part(strap, (0.10, 0.045, 0.02), 0.2),
        Part(move(case, (0, 0, -0.6)), STEEL, is_metal=True),
        Part(move(dial, (0, 0, -0.67)), WHITE, 0.5),
    ]


def _table_lamp() -> list[Part]:
    shade = turned([(0.30, 0.3), (0.16, 0.8), (0.14, 0.8), (0.28, 0.3)])
    stand = join(
        turned([(0, -0.8), (0.26, -0.8), (0.24, -0.75), (0, -0.74)]), rod((0, -0.8, 0), (0, 0.6, 0), 0.022)
    )
    return [Part(shade, (0.78, 0.70, 0.55)), Part(stand, BLACK, 0.5)]


def _pendant_lamp() -> list[Part]:
    dome = turned([(0.55, -0.55), (0.42, -0.18), (0.12, 0.02), (0.10, 0.02), (0.40, -0.20), (0.52, -0.55)])
    cord = rod((0, 0, 0), (0, 1.3, 0), 0.014)
    return [Part(dome, RED, 0.8), Part(cord, BLACK)]


def _chair() -> list[Part]:
    legs = [
        rod((x, -0.85, z), (0.85 * x, -0.1, 0.85 * z), 0.026, 0.036)
        for x in (-0.36, 0.36)
        for z in (-0.34, 0.34)
    ]
    posts = [rod((x, -0.1, 0.3), (1.05 * x, 0.82, 0.42), 0.03) for x in (-0.32, 0.32)]
    bars = [rod((-0.33, y, 0.30 + 0.12 * y), (0.33, y, 0.30 + 0.12 * y), 0.026) for y in (0.3, 0.55, 0.78)]
    wood = wooden(OAK)
    return [
        Part(turn(join(*legs, *posts, *bars), 28), wood, 0.2),
        Part(turn(box((0, -0.08, 0), (0.4, 0.035, 0.38), 0.02), 28), wood, 0.2),
    ]


def _stool() -> list[Part]:
    seat = cut(box((0, 0.4, 0), (0.5, 0.05, 0.34), 0.03), box((0, 0.4, 0), (0.14, 0.2, 0.035), 0.03))
    legs = [rod((x, -0.6, z), (0.8 * x, 0.4, 0.8 * z), 0.045) for x in (-0.46, 0.46) for z in (-0.3, 0.3)]
    return [Part(turn(join(seat, *legs), 24), wooden((0.52, 0.38, 0.22)), 0.1)]


def _camera() -> list[Part]:
    body = join(box((0, 0, 0), (0.62, 0.36, 0.18), 0.06), box((0, 0.4, 0), (0.2, 0.1, 0.15), 0.05))
    lens = turn(turned([(0, 0.15), (0.28, 0.15), (0.28, 0.5), (0.23, 0.5), (0.2, 0.42), (0, 0.42)]), -90, 0)
    button = turned([(0, 0.34), (0.08, 0.34), (0.08, 0.42), (0, 0.42)], (0.42, 0, 0))
    return [
        Part(turn(body, 18), (0.03, 0.03, 0.032), 0.5),
        Part(turn(lens, 18), (0.02, 0.02, 0.024), 1.0),
        Part(turn(button, 18), STEEL, is_metal=True),
    ]


def _phone() -> list[Part]:
    body = box((0, 0, 0), (0.38, 0.78, 0.045), 0.04)
    screen = box((0, 0, -0.045), (0.35, 0.74, 0.006), 0.004)
    return [Part(turn(body, -20), (0.06, 0.06, 0.065), 0.6), Part(turn(screen, -20), BLACK, 1.0)]


def _book() -> list[Part]:
    cover = cut(box((0, 0, 0), (0.52, 0.74, 0.11), 0.015), box((0.06, 0, 0), (0.5, 0.76, 0.085), 0.004))
    pages = box((0, 0, 0), (0.49, 0.71, 0.09), 0.004)
    ink = printed((0.62, 0.27, 0.05), IVORY, ["THE ART", "OF SEEING", "LIGHT"], (0.86, 1.2))

    return [Part(turn(cover, 26), turn(ink, 26), 0.3), Part(turn(pages, 26), WHITE)]


def _carton() -> list[Part]:
    label = printed((0.50, 0.34, 0.19), BLACK, ["OAT", "FLAKES", "500 G"], (0.75, 1.0))
    return [Part(box((0, 0, 0), (0.46, 0.66, 0.2), 0.01), label)]


def _tin() -> list[Part]:
    body = turned([(0, -0.55), (0.42, -0.55), (0.42, 0.55), (0, 0.55)])
    label = printed(RED, WHITE, ["TOMATO", "SOUP"], (0.7, 0.9))
    lid = join(torus((0, 0.56, 0), 0.41, 0.025), torus((0, -0.55, 0), 0.41, 0.025))
    return [Part(body, label, 0.3), Part(lid, STEEL, is_metal=True)]


def _headphones() -> list[Part]:
    band = cut(torus((0, 0.05, 0), 0.55, 0.05, 2), box((0, -0.55, 0), (1, 0.55, 1)))
    cup = turn(turned([(0, -0.1), (0.26, -0.1), (0.26, 0.1), (0, 0.1)]), 90, 2)
    cups = join(move(cup, (-0.52, -0.12, 0)), move(cup, (0.52, -0.12, 0)))
    return [Part(turn(band, 30), (0.55, 0.52, 0.48), 0.3), Part(turn(cups, 30), BLACK, 0.4)]


def _candlesticks() -> list[Part]:
    stick = [(0, -0.6), (0.22, -0.6), (0.2, -0.54), (0.05, -0.45), (0.04, 0.1), (0.11, 0.2), (0, 0.2)]
    candle = [(0, 0.18), (0.06, 0.18), (0.055, 0.75), (0, 0.76)]
    places = ((-0.36, 0, 0.1), (0.36, 0, -0.1))
    return [
        Part(join(*(turned(stick, place) for place in places)), GOLD, is_metal=True),
        Part(join(*(turned(candle, place) for place in places)), IVORY, 0.2),
    ]


def _shakers() -> list[Part]:
    outline = [(0, -0.45), (0.26, -0.45), (0.2, 0.1), (0.22, 0.3), (0, 0.42)]
    return [
        Part(turned(outline, (-0.34, 0, 0)), WHITE, 0.7),
        Part(turned(outline, (0.34, 0, 0.1)), (0.05, 0.05, 0.055), 0.7),
    ]


def _plant() -> list[Part]:
    random = np.random.default_rng(6)
    leaves = []
    for angle in np.linspace(0, 2 * np.pi, 9, endpoint=False):
        reach, tall = random.uniform(0.3, 0.6), random.uniform(0.35, 0.8)
        x, z = reach * np.cos(angle), reach * np.sin(angle)
        leaves.append(rod((0.1 * x, -0.2, 0.1 * z), (x, tall, z), 0.05, 0.008))
    pot = turned([(0, -0.8), (0.3, -0.8), (0.4, -0.2), (0, -0.2)])
    return [Part(join(*leaves), (0.06, 0.20, 0.05), 0.3), Part(pot, (0.42, 0.17, 0.09), 0.05)]


def _scissors() -> list[Part]:
    blades = join(
        rod((0.06, -0.1, 0), (-0.14, 0.85, 0), 0.05, 0.012),
        rod((-0.06, -0.1, 0), (0.14, 0.85, 0), 0.05, 0.012),
    )
    rings = join(torus((-0.24, -0.5, 0), 0.19, 0.05, 2), torus((0.24, -0.5, 0), 0.19, 0.05, 2))
    arms = join(rod((0.06, -0.1, 0), (-0.14, -0.34, 0), 0.05), rod((-0.06, -0.1, 0), (0.14, -0.34, 0), 0.05))
    return [Part(blades, STEEL, is_metal=True), Part(join(rings, arms), (0.55, 0.20, 0.02), 0.4)]


def _laptop() -> list[Part]:
    base = box((0, -0.45, -0.1), (0.72, 0.025, 0.46), 0.02)
    lid = turn(box((0, 0.02, 0.42), (0.72, 0.48, 0.02), 0.018), -12, 0, (0, -0.45, 0.36))
    screen = turn(box((0, 0.03, 0.398), (0.66, 0.42, 0.006), 0.004), -12, 0, (0, -0.45, 0.36))
    keys = box((0, -0.425, -0.02), (0.6, 0.006, 0.22), 0.004)
    return [
        Part(turn(join(base, lid), 16), (0.66, 0.67, 0.68), 0.4),
        Part(turn(screen, 16), (0.02, 0.025, 0.04), 0.9),
        Part(turn(keys, 16), (0.12, 0.12, 0.13), 0.1),
    ]


SOLIDS: dict[str, Callable[[], list[Part]]] = {
    function.__name__.removeprefix("_").replace("_", " "): function
    for function in (
        _mug,
        _teapot,
        _bowl,
        _vase,
        _bottle,
        _wine_glass,
        _perfume,
        _flask,
        _kettle,
        _bangle,
        _watch,
        _table_lamp,
        _pendant_lamp,
        _chair,
        _stool,
        _camera,
        _phone,
        _book,
        _carton,
        _tin,
        _headphones,
        _candlesticks,
        _shakers,
        _plant,
        _scissors,
        _laptop,
    )
}
