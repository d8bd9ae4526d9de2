"""Measure a finished image file against the image rules of a marketplace.

The pixels are those of the decoded file: a lossy encoder may change what the renderer painted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from studio.catalog.marketplaces import MEGABYTE, ImageRules
from studio.media.inspection import open_stored
from studio.rendering.model import Pixels

CODEC_REACH = 16
"""Pixels next to the product that are not counted: lossy encoders change whole blocks of this size."""


# A pixel of a photo on white paper that is darker than this shows the product.
_PAPER = 240


def find_colored(pixels: Pixels) -> Pixels:
    """Return the opacity of what a photo on white paper shows, without knowing its outline."""
    return np.where(pixels.min(axis=2) < _PAPER, 255, 0).astype(np.uint8)


@dataclass(frozen=True)
class Result:
    """How an image meets one rule; `Compliance` in the contract."""

    rule: str
    required: str
    measured: str
    passed: bool


def measure_compliance(
    image: bytes, product: Pixels, is_framed: bool, rules: ImageRules
) -> list[dict[str, Any]]:
    """Return how the image meets each rule, as plain JSON values.

    Args:
        image: The encoded file.
        product: Opacity of the product, of the size of the image.
        is_framed: Whether a photo was placed in a frame, instead of a product that was cut out.
    """
    with open_stored(image) as opened:
        file_format = opened.format or ""
        pixels = np.asarray(opened.convert("RGB"))
    height, width = pixels.shape[:2]
    results = [
        *(_measure_background(pixels, product, is_framed, rules.white_share) if rules.white_share else ()),
        *([_measure_fill(product, rules.fill)] if rules.fill else ()),
        _measure_min_side(width, height, rules),
        _check(
            "max_side", f"at most {rules.max_side}", max(width, height), max(width, height) <= rules.max_side
        ),
        *([_measure_aspect_ratio(width, height, rules)] if rules.aspect_ratio else ()),
        _check("format", ", ".join(rules.formats), file_format, file_format in rules.formats),
        _check(
            "file_size",
            f"at most {rules.max_file_size // MEGABYTE} MB",
            f"{len(image) / MEGABYTE:.2f} MB",
            len(image) <= rules.max_file_size,
        ),
    ]
    return [asdict(result) for result in results]


def _check(rule: str, required: str, measured: object, passed: bool) -> Result:
    return Result(rule, required, str(measured), bool(passed))


def _measure_background(pixels: Pixels, product: Pixels, is_framed: bool, required: float) -> list[Result]:
    """Measure whether the background, and the rim of the image, is white."""
    white = pixels.min(axis=2) == 255
    side = 2 * CODEC_REACH + 1
    near = cv2.dilate((product > 0).astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    background = int(np.count_nonzero(~near))
    # A product that reaches every edge leaves no background; the rim below then shows it.
    share = int(np.count_nonzero(white & ~near)) / background if background else 1.0
    rim = 1.0 if is_framed else _rim_share(white)
    return [
        _check("background_white", f"at least {required:.4f}", _floor(share), share >= required),
        _check("border", "at most 0.0000", f"{rim:.4f}", rim == 0.0),
    ]


def _floor(share: float) -> str:
    """Return a share with four digits, which reads 1.0000 only if it is exactly 1."""
    return f"{np.floor(share * 10_000) / 10_000:.4f}"


def _rim_share(white: np.ndarray) -> float:
    """Return the share of the image's rim, one percent of its shorter side, that is not white."""
    depth = max(1, min(white.shape) // 100)
    inner = np.zeros_like(white)
    inner[depth:-depth, depth:-depth] = True
    return int(np.count_nonzero(~white & ~inner)) / int(np.count_nonzero(~inner))


def _measure_fill(product: Pixels, limits: tuple[float, float]) -> Result:
    solid = product > 127
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    height, width = solid.shape
    fill = 0.0
    if len(rows):
        across, down = 1 + int(columns[-1]) - int(columns[0]), 1 + int(rows[-1]) - int(rows[0])
        fill = max(across / width, down / height)
    low, high = limits
    return _check("fill", f"{low:.2f} to {high:.2f}", f"{fill:.4f}", low <= fill <= high)


def _measure_min_side(width: int, height: int, rules: ImageRules) -> Result:
    longer, shorter = max(width, height), min(width, height)
    passed = longer >= rules.min_longer_side and shorter >= rules.min_shorter_side
    required = f"at least {rules.min_longer_side} x {rules.min_shorter_side}"
    return _check("min_side", required, f"{longer} x {shorter}", passed)


def _measure_aspect_ratio(width: int, height: int, rules: ImageRules) -> Result:
    passed = rules.accepts_aspect_ratio(width, height)
    return _check("aspect_ratio", f"{rules.aspect_ratio:.4f}", f"{width / height:.4f}", passed)
