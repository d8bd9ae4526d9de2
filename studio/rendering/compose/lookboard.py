"""Compose a lookboard: a product that stands beside a subject, in a size that fits the subject.

Only bags, luggage and shoes are composed: they look right on the floor beside a person. A garment would have
to be worn, which takes a generative model.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from PIL import Image

from studio.rendering.compose.framing import Placement, place_product
from studio.rendering.compose.variation import Variation
from studio.rendering.cut_out.cut_out import cut_out_product
from studio.rendering.model import DOUBTFUL, CutOut, Framing, RenderRequest

Arrangement = list[tuple[CutOut, Placement]]

# The longer side of the product relative to the height of the person. The products stand a little nearer to
# the camera than the person, so that they are slightly larger than in life.
_SIZES_BY_WORDS = {
    (
        "bag",
        "handbag",
        "backpack",
        "rucksack",
        "tote",
        "purse",
        "clutch",
        "satchel",
        "daypack",
        "duffel",
    ): 0.30,
    ("luggage", "suitcase", "trolley"): 0.42,
    ("shoe", "footwear", "sneaker", "trainer", "boot", "sandal", "heel", "loafer", "pump", "slipper"): 0.26,
}
_SIZES = {word: size for words, size in _SIZES_BY_WORDS.items() for word in words}
# Width divided by height of a product alone. A bag that a person carries is narrower.
_MIN_ASPECT, _MAX_ASPECT = 0.55, 3.2
# Height divided by width of a whole standing person.
_MIN_FIGURE = 1.8
_PERSON_FRAMINGS: frozenset[Framing] = frozenset(("FULL_BODY", "THREE_QUARTER", "HALF_BODY"))
# Empty space between person and product, and how much lower the nearer product stands, in person heights.
_GAP, _NEARER = 0.05, 0.03
_MIN_EDGE_PERCENT = 5.0


def settle_subject(request: RenderRequest) -> RenderRequest:
    """Return the request with the cut-out of its subject, or without the subject if it cannot be shown.

    A product that is shown alone is shown whole: framings such as "head to hip" are about the person.
    """
    if request.subject_image is None:
        return request
    if _find_size(request) is not None:
        subject = _cut_out_subject(request.subject_image)
        down, across = subject.alpha.shape
        if _is_whole(subject) and down >= _MIN_FIGURE * across:
            return replace(request, subject_image=subject)
    framing: Framing = "STILL_LIFE" if request.framing in _PERSON_FRAMINGS else request.framing
    return replace(request, subject_image=None, framing=framing)


def _is_whole(cut_out: CutOut) -> bool:
    """Return whether this is a cut-out without doubt that its photo shows whole."""
    is_doubtful = cut_out.is_extended or not cut_out.is_trusted or not DOUBTFUL.isdisjoint(cut_out.warnings)
    return not is_doubtful and not cut_out.touches


def _find_size(request: RenderRequest) -> float | None:
    """Return the longer side of the product relative to a person, None if it cannot stand beside one."""
    product = request.cut_out
    aspect = product.alpha.shape[1] / product.alpha.shape[0]
    if request.view_angle == "TOP" or request.framing not in (*_PERSON_FRAMINGS, "STILL_LIFE"):
        return None
    if not _is_whole(product) or not _MIN_ASPECT <= aspect <= _MAX_ASPECT:
        return None
    # The last word says what a thing is: "shoe care" is no shoe, "women / ankle boots" are boots.
    words = re.findall(r"[a-z]+", (request.product_category or "").lower())
    if not words:
        return None
    return next((_SIZES[form] for form in _singular_forms(words[-1]) if form in _SIZES), None)


def _singular_forms(word: str) -> tuple[str, ...]:
    return (word, word.removesuffix("s"), word.removesuffix("es"))


def _cut_out_subject(image: Image.Image | CutOut) -> CutOut:
    return image if isinstance(image, CutOut) else cut_out_product(image)


def arrange_lookboard(request: RenderRequest, variation: Variation) -> tuple[Arrangement, dict[str, Any]]:
    """Return subject and product with their placements, back to front, and facts for the provenance.

    Args:
        request: A request that `settle_subject` returned with a subject.

    Raises:
        ValueError: The request has no subject that can be shown.
    """
    subject, product, size = request.subject_image, request.cut_out, _find_size(request)
    if not isinstance(subject, CutOut) or size is None:
        raise ValueError("the request has no subject that can be shown")
    width, height = float(request.width), float(request.height)
    air = max(request.padding_percent, request.margin_percent, _MIN_EDGE_PERCENT)
    edge = min(width, height) * min(air, 30) / 100
    # In heights of the person.
    person_width = subject.alpha.shape[1] / subject.alpha.shape[0]
    across, down = (side * size / max(product.alpha.shape) for side in product.alpha.shape[::-1])
    total_width = person_width + _GAP + across
    unit = min((width - 2 * edge) / total_width, (height - 2 * edge) / (1 + _NEARER))
    unit *= min(1.0, max(0.93, variation.zoom))
    left, ground = (width - total_width * unit) / 2, (height + unit) / 2
    # The subject is on the side away from the light.
    is_first = variation.light_x > 0
    person_left = left if is_first else left + (across + _GAP) * unit
    product_left = left + (person_width + _GAP) * unit if is_first else left
    person_area = (person_left, ground - unit, person_left + person_width * unit, ground)
    near = ground + _NEARER * unit
    product_area = (product_left, near - down * unit, product_left + across * unit, near)
    arranged = [
        (subject, _stand(subject, person_area, edge, replace(variation, yaw=0.0))),
        (product, _stand(product, product_area, edge, variation)),
    ]
    return arranged, {"composition": "lookboard", "subject_cut_out": subject.method}


def _stand(
    cut_out: CutOut, area: tuple[float, float, float, float], edge: float, variation: Variation
) -> Placement:
    """Return the placement that fills an area of the cut-out's own shape, standing on its bottom."""
    fixed = replace(variation, zoom=1.0, shift_x=0.0, shift_y=0.0, angle=0.0)
    placement = place_product(cut_out, area, "FULL_BODY", "FRONT", 0.0, fixed)
    return replace(placement, pose="standing", margin=edge)
