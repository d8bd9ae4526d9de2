"""Compose a lookboard: a subject's image and a product on one background."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from studio.rendering.cut_out import cut_out_product
from studio.rendering.framed_crop import crop_to_frame
from studio.rendering.framing import Placement, place_product
from studio.rendering.model import CutOut, RenderRequest
from studio.rendering.variation import Variation

Arrangement = list[tuple[CutOut, Placement]]


def arrange_lookboard(request: RenderRequest, variation: Variation) -> tuple[Arrangement, dict[str, Any]]:
    """Return subject and product with their placements, back to front, and facts for the provenance.

    The subject is on the side away from the light, cut off where its own image cuts it off. The product
    beside it is always shown whole.
    """
    subject = _get_subject(request.subject_image)
    width, height = float(request.width), float(request.height)
    air = max(request.padding_percent, request.margin_percent)
    edge = min(width, height) * min(air, 30) / 100
    neutral = replace(variation, zoom=1.0, shift_x=0.0, shift_y=0.0, yaw=0.0, angle=0.0)
    left_side = variation.light_x > 0
    wide = width > 1.25 * height
    cut = (0.46 if wide else 0.52) * width
    top = height * (0.34 if wide else 0.20)
    subject_area = (0.0, 0.0, cut, height) if left_side else (width - cut, 0.0, width, height)
    product_area = (cut, top, width, height) if left_side else (0.0, top, width - cut, height)
    arranged: Arrangement = [_place(subject, subject_area, 3.0, request, neutral, edge)]
    product = request.cut_out
    facts: dict[str, Any] = {"composition": "lookboard", "subject_cut_out": subject.method}
    product_variation = replace(variation, zoom=0.96 + 0.5 * (variation.zoom - 1), shift_x=0.0, shift_y=0.0)
    arranged.append(_place(product, product_area, 5.0, request, product_variation, edge))
    return arranged, facts


def _get_subject(image: Image.Image | CutOut | None) -> CutOut:
    if isinstance(image, CutOut):
        return image
    if image is None:
        raise ValueError("A lookboard needs a subject.")
    return cut_out_product(image)


def _place(
    cut_out: CutOut,
    area: tuple[float, float, float, float],
    air: float,
    request: RenderRequest,
    variation: Variation,
    edge: float,
) -> tuple[CutOut, Placement]:
    left, top, right, bottom = area
    framed = not cut_out.is_trusted
    inner = (left + edge * 0.3, top + edge * 0.5, right - edge * 0.3, bottom - edge * 0.7)
    if framed:
        size = (inner[2] - inner[0], inner[3] - inner[1])
        cut_out, _ = crop_to_frame(cut_out, size, "FULL_BODY", variation)
        return cut_out, place_product(cut_out, inner, "FULL_BODY", "FRONT", air, variation, framed=True)
    if cut_out.touches:
        # A product that its photo cuts off must be cut off by the edge of the image.
        inner = (left, top + edge * 0.5, right, bottom)
        return cut_out, place_product(cut_out, inner, "FULL_BODY", "FRONT", air, variation)
    view = "TOP" if request.framing == "FLAT_LAY" else request.view_angle
    placement = place_product(cut_out, inner, "FULL_BODY", view, air, variation)
    if placement.pose in ("standing", "hanging") and view != "TOP":
        # The subject is a person with feet; a garment beside it hangs.
        stands = cut_out.standing or cut_out is not request.cut_out
        placement = _ground(placement, inner[3] - 0.02 * (bottom - top), inner[1], stands)
    return cut_out, placement


def _ground(placement: Placement, ground: float, ceiling: float, stands: bool) -> Placement:
    """Return the placement moved down to the common ground, on which it stands or above which it hangs."""
    left, top, right, bottom = placement.box
    shift = max(ceiling - top, ground - bottom)
    matrix = placement.matrix.copy()
    matrix[1] += shift * matrix[2]
    box = (left, top + shift, right, bottom + shift)
    return replace(placement, matrix=matrix, box=box, pose="standing" if stands else placement.pose)
