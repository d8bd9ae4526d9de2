"""Place the product on the canvas: framing, margins, crop and angle, combined into one projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from studio.rendering.color import luminance
from studio.rendering.compose.variation import Variation
from studio.rendering.model import CutOut, Framing, Pixels, ViewAngle

Pose = Literal["standing", "lying", "hanging", "bleeding", "framed", "extended"]

MAX_ENLARGEMENT = 6.0
"""The most pixels of the canvas per pixel of the photo."""
# Share of the safe area that the fitted product fills. With the default padding of 8 percent, the longer side
# of a product fills 84 to 88 percent of the image: marketplaces ask for 85 (Amazon, "Product image guide").
_FILL: dict[str, float] = {"FULL_BODY": 1.0, "STILL_LIFE": 1.0, "FLAT_LAY": 0.99}
# Share of the variation's zoom that applies to a fitted product: more would leave too much empty space.
_FITTED_ZOOM = 0.3
# Above this enlargement, JPEG blocks of the photo would be visible.
_MAX_PLAIN_ENLARGEMENT = 1.5
# Share of a tall product's height that is shown, and the enlargement of a wide product relative to fitted.
_CROP: dict[str, tuple[float, float]] = {
    "THREE_QUARTER": (0.76, 1.10),
    "HALF_BODY": (0.54, 1.28),
    "CLOSE_UP": (0.46, 1.55),
    "DETAIL": (0.30, 2.50),
}
# Canvas pixels per photo pixel that still look sharp; and the minimum enlargement relative to fitted, even if
# it does not look sharp, because a detail must show a part of the product.
_MAX_SHARP_ENLARGEMENT, _MIN_ENLARGEMENT = 1.6, 1.45


@dataclass(frozen=True, eq=False)
class Placement:
    """Position of a product on the canvas."""

    matrix: np.ndarray
    """3 x 3 projection from pixels of the cut-out to pixels of the canvas."""
    scale: float
    pose: Pose
    box: tuple[float, float, float, float]
    """Left, top, right, bottom of the whole product on the canvas, including parts outside of it."""
    bleeds: frozenset[str]
    """Sides of the canvas that cut the product off on purpose."""
    margin: float
    """Requested clear pixels on each side that does not bleed."""
    angle: float
    yaw: float


def place_product(
    cut_out: CutOut,
    area: tuple[float, float, float, float],
    framing: Framing,
    view_angle: ViewAngle,
    air_percent: float,
    variation: Variation,
    framed: bool = False,
) -> Placement:
    """Return the projection of the product into an area of the canvas.

    Args:
        area: Left, top, right, bottom in pixels.
        air_percent: Clear space on each side, in percent of the area's shorter side.
        framed: Whether the cut-out is an opaque crop of the photo.
    """
    left, top, right, bottom = area
    width, height = right - left, bottom - top
    air = min(width, height) * min(air_percent, 42.0) / 100.0
    across, down = cut_out.alpha.shape[1], cut_out.alpha.shape[0]
    fitted = min((width - 2 * air) / across, (height - 2 * air) / down)
    pose = choose_pose(cut_out, framing, view_angle, framed)
    zoom, bleeds = variation.zoom, set[str]()
    center_x = (left + right) / 2 + variation.shift_x * width
    if framed:
        across_ratio, down_ratio = (width - 2 * air) / across, (height - 2 * air) / down
        # A crop of the area's own shape covers it completely, without a gap from rounding.
        same_shape = max(across_ratio, down_ratio) < 1.01 * fitted
        scale = max(across_ratio, down_ratio) if same_shape else fitted
        center_x, offset_y = (left + right) / 2, (top + bottom) / 2 - scale * down / 2
        bleeds = {"left", "top", "right", "bottom"} if air == 0 else set()
    elif cut_out.touches and pose != "lying":
        scale, center_x, offset_y = _fit_bleeding(cut_out, area, air, framing, max(1.0, zoom), center_x)
        bleeds = set(cut_out.touches)
    elif framing in _CROP:
        scale, center_x, offset_y = _fit_cropped(cut_out, area, air, framing, zoom, center_x)
        if framing == "DETAIL":
            # Off-center, so that the image's edge clearly cuts the product instead of just touching it.
            center_x -= 0.09 * width * float(np.sign(variation.light_x))
            offset_y += 0.06 * height * float(np.sign(variation.shift_y))
    else:
        # Zoom must not reduce the margins.
        scale = fitted * min(1.0, _FILL[framing] * (1 + _FITTED_ZOOM * (zoom - 1)))
        middle = (top + bottom) / 2 + variation.shift_y * height
        if pose == "standing":
            middle += 0.03 * height
        offset_y = float(
            np.clip(middle - scale * down / 2, top + air, max(top + air, bottom - air - scale * down))
        )
    if scale > MAX_ENLARGEMENT:
        # What becomes smaller keeps its middle, or stays at the edge that cuts it off.
        offset_y += _get_anchor(bleeds) * (scale - MAX_ENLARGEMENT) * down
        scale = MAX_ENLARGEMENT
    offset_x = center_x - scale * across / 2
    if not framed and framing not in _CROP and not bleeds:
        offset_x = float(np.clip(offset_x, left + air, max(left + air, right - air - scale * across)))
    box = (offset_x, offset_y, offset_x + scale * across, offset_y + scale * down)
    bleeds |= _list_outside_sides(box, area, air * 0.5) if framing in _CROP else set()
    angle = {"lying": 1.0, "hanging": 0.25, "framed": 0.0}.get(pose, 0.0) * variation.angle
    if cut_out.touches and pose != "lying":
        angle = 0.0  # turned, the cut would come away from the edge of the image
    yaw = 0.0 if framed or bleeds or pose == "extended" else variation.yaw * (0.5 if pose == "lying" else 1.0)
    matrix = _projection(cut_out, scale, offset_x, offset_y, angle, yaw, pose)
    clear = air * 0.5 if framing in _CROP else air
    return Placement(matrix, scale, pose, box, frozenset(bleeds), clear, angle, yaw)


def choose_pose(cut_out: CutOut, framing: Framing, view_angle: ViewAngle, framed: bool) -> Pose:
    """Return how the product meets its surroundings, which determines its shadow."""
    if framed:
        return "framed"
    if cut_out.is_extended:
        return "extended"
    if framing == "FLAT_LAY" or view_angle == "TOP":
        return "lying"
    if cut_out.touches:
        # What the upper edge cuts off hangs from something. A shadow on the ground would be wrong below it,
        # and below a product of which the photo lacks a part.
        return "hanging" if cut_out.touches == {"top"} else "bleeding"
    tall = cut_out.alpha.shape[0] / max(1, cut_out.alpha.shape[1]) > 1.3
    if cut_out.standing and (framing == "STILL_LIFE" or not tall):
        return "standing"
    return "hanging"


def _get_anchor(bleeds: set[str]) -> float:
    """Return the height that keeps its place when a product becomes smaller: 0 is its top, 1 its bottom."""
    if "top" in bleeds:
        return 0.0
    return 1.0 if "bottom" in bleeds else 0.5


def _fit_bleeding(
    cut_out: CutOut,
    area: tuple[float, float, float, float],
    air: float,
    framing: Framing,
    zoom: float,
    center_x: float,
) -> tuple[float, float, float]:
    """Fit a product that its photo cuts off, so that the same sides of the image cut it off.

    Returns:
        Scale, center x and top y on the canvas.
    """
    left, top, right, bottom = area
    across, down = cut_out.alpha.shape[1], cut_out.alpha.shape[0]
    room_x = (right - left) - (0 if cut_out.touches & {"left", "right"} else 2 * air)
    room_y = (bottom - top) - (2 * air, 1.2 * air, 0)[len(cut_out.touches & {"top", "bottom"})]
    scale = min(room_x / across, room_y / down) * min(zoom, 1.04)
    if {"left", "right"} <= cut_out.touches:
        scale = max(scale, (right - left) / across)
    if {"top", "bottom"} <= cut_out.touches:
        scale = max(scale, (bottom - top) / down)
    if framing in _CROP:
        scale *= 1 + 0.5 * (_CROP[framing][1] - 1)
    offset_y = (top + bottom - scale * down) / 2
    if "bottom" in cut_out.touches:
        offset_y = bottom - scale * down
    if "top" in cut_out.touches or framing in _CROP:
        offset_y = top if "top" in cut_out.touches else top + air
    if "left" in cut_out.touches:
        center_x = left + scale * across / 2
    elif "right" in cut_out.touches:
        center_x = right - scale * across / 2
    return scale, center_x, offset_y


def _fit_cropped(
    cut_out: CutOut,
    area: tuple[float, float, float, float],
    air: float,
    framing: Framing,
    zoom: float,
    center_x: float,
) -> tuple[float, float, float]:
    """Fit a framing that shows a part: the top of tall products, the most detailed region for details.

    Returns:
        Scale, center x and top y on the canvas.
    """
    left, top, right, bottom = area
    width, height = right - left, bottom - top
    across, down = cut_out.alpha.shape[1], cut_out.alpha.shape[0]
    shown, enlarged = _CROP[framing]
    fitted = min((width - 2 * air) / across, (height - 2 * air) / down)
    enlarged = _limit_enlargement(enlarged, fitted)
    tall = down / across > 1.25
    if framing in ("CLOSE_UP", "DETAIL"):
        scale = fitted * enlarged * max(1.0, zoom)
        focus_x, focus_y = find_most_detailed_region(cut_out.product, cut_out.alpha, 1 / enlarged)
        middle = (top + bottom) / 2
        return scale, center_x + scale * (across / 2 - focus_x), middle - scale * focus_y
    if tall:
        scale = min((height - air) / (down * shown), (width - air * 0.7) / across) * zoom
        scale = max(min(scale, max(1.25 * _MAX_SHARP_ENLARGEMENT, fitted * _MIN_ENLARGEMENT)), fitted)
        return scale, _clamp_center(center_x, scale * across, left, right, air * 0.6), top + air
    scale = min(fitted * enlarged * zoom, (width - 1.2 * air) / across)
    center_x = _clamp_center(center_x, scale * across, left, right, air * 0.6)
    return scale, center_x, (top + bottom) / 2 - scale * down / 2


def _clamp_center(center: float, size: float, first: float, last: float, air: float) -> float:
    """Move the center so that a product that fits keeps its distance from the edges."""
    reach = size / 2 + air
    return float(np.clip(center, first + reach, last - reach)) if 2 * reach < last - first else center


def _limit_enlargement(enlarged: float, fitted: float) -> float:
    """Limit the enlargement to the photo's resolution, keeping the order of the framings."""
    closest = _CROP["DETAIL"][1]
    room = max(_MAX_SHARP_ENLARGEMENT / fitted, _MIN_ENLARGEMENT)
    return float(enlarged if room >= closest else room ** (np.log(enlarged) / np.log(closest)))


def find_most_detailed_region(product: Pixels, alpha: Pixels, share: float) -> tuple[float, float]:
    """Return the center of the window with the most detail well inside the product.

    Args:
        share: Size of the window relative to the product.
    """
    factor = 160 / max(alpha.shape)
    size = (max(8, round(alpha.shape[1] * factor)), max(8, round(alpha.shape[0] * factor)))
    small = cv2.resize(product, size, interpolation=cv2.INTER_AREA)
    solid = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    inner = cv2.erode((solid > 0.95).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    detail = np.abs(cv2.Laplacian(luminance(small), cv2.CV_32F)) * inner
    window = (max(3, round(size[0] * share)) | 1, max(3, round(size[1] * share)) | 1)
    value = cv2.blur(np.minimum(detail, 24), window, borderType=cv2.BORDER_CONSTANT)
    value *= cv2.blur(solid, window, borderType=cv2.BORDER_CONSTANT) ** 3
    row, column = np.unravel_index(int(np.argmax(value)), value.shape)
    return float(column) / size[0] * alpha.shape[1], float(row) / size[1] * alpha.shape[0]


def _list_outside_sides(
    box: tuple[float, float, float, float], area: tuple[float, float, float, float], slack: float
) -> set[str]:
    names = ("left", "top", "right", "bottom")
    signs = (1, 1, -1, -1)
    return {
        name
        for name, box_edge, area_edge, sign in zip(names, box, area, signs, strict=True)
        if sign * (box_edge - area_edge) < slack
    }


def _projection(
    cut_out: CutOut, scale: float, offset_x: float, offset_y: float, angle: float, yaw: float, pose: Pose
) -> np.ndarray:
    """Return scale, rotation around the product's center (its base if it stands) and shift as one matrix."""
    across, down = cut_out.alpha.shape[1], cut_out.alpha.shape[0]
    pivot_y = down if pose == "standing" else down / 2
    to_pivot = np.array([[1, 0, -across / 2], [0, 1, -pivot_y], [0, 0, 1]], dtype=np.float64)
    yaw_angle, tilt = np.radians(yaw), np.radians(angle)
    # A camera at a distance of five product widths moves around it: one side grows, the width shrinks.
    keystone = np.array(
        [[np.cos(yaw_angle), 0, 0], [0, 1, 0], [np.sin(yaw_angle) / (5 * across), 0, 1]], dtype=np.float64
    )
    rotation = np.array(
        [[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]], dtype=np.float64
    )
    translation = np.array(
        [[scale, 0, offset_x + scale * across / 2], [0, scale, offset_y + scale * pivot_y], [0, 0, 1]],
        dtype=np.float64,
    )
    return translation @ rotation @ keystone @ to_pivot


def project_product(
    pixels: Pixels, alpha: Pixels, placement: Placement, width: int, height: int
) -> tuple[Pixels, Pixels, tuple[int, int]]:
    """Return the projected pixels and opacity of the product, and their position (x, y) on the canvas."""
    across, down = alpha.shape[1], alpha.shape[0]
    corners = np.array([[[0, 0], [across, 0], [across, down], [0, down]]], dtype=np.float64)
    projected = cv2.perspectiveTransform(corners, placement.matrix)[0]
    # What is beyond the canvas is one transparent pixel at its edge.
    left, top = (
        min(max(0, int(np.floor(value)) - 2), side - 1)
        for value, side in zip(projected.min(axis=0), (width, height), strict=True)
    )
    right = min(width, int(np.ceil(projected[:, 0].max())) + 2)
    bottom = min(height, int(np.ceil(projected[:, 1].max())) + 2)
    size = (max(1, right - left), max(1, bottom - top))
    matrix = placement.matrix
    if placement.scale < 0.9:
        # The projection samples single pixels; averaging first prevents moiré on fine fabrics.
        small = (max(1, round(across * placement.scale)), max(1, round(down * placement.scale)))
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA).astype(np.uint8)
        alpha = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA).astype(np.uint8)
        matrix = matrix @ np.diag([across / small[0], down / small[1], 1.0])
    elif placement.scale > _MAX_PLAIN_ENLARGEMENT:
        pixels = _remove_blocks(pixels)
    # Pixel centers are at .5 in the geometry above, but at whole numbers in OpenCV.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    shift = np.array([[1, 0, -left - 0.5], [0, 1, -top - 0.5], [0, 0, 1]])
    matrix = shift @ matrix @ half
    sampling = cv2.INTER_LANCZOS4 if placement.scale > 1 else cv2.INTER_CUBIC
    color = cv2.warpPerspective(pixels, matrix, size, flags=sampling, borderMode=cv2.BORDER_REPLICATE)
    if placement.bleeds:
        # No soft rim may show between the product and the edge that cuts it off.
        alpha = cv2.copyMakeBorder(alpha, 3, 3, 3, 3, cv2.BORDER_REPLICATE)
        matrix = matrix @ np.array([[1, 0, -3], [0, 1, -3], [0, 0, 1]], dtype=np.float64)
    opacity = cv2.warpPerspective(alpha, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return color.astype(np.uint8), opacity.astype(np.uint8), (left, top)


def _remove_blocks(pixels: Pixels) -> Pixels:
    """Return the pixels without the noise and the block edges of JPEG; stronger edges stay."""
    return cv2.bilateralFilter(pixels, 7, 12, 3.0).astype(np.uint8)
