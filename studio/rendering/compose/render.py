"""Render one prediction: place the cut-out, paint the background, add the shadow, grade and encode.

Pure and deterministic: on one machine the same request gives the same bytes. The canvas is composed in
strips, so that large images need about three bytes of memory per pixel too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from studio.catalog.marketplaces import find_rules
from studio.rendering.color import parse_color
from studio.rendering.compose import backgrounds, grading, shadows
from studio.rendering.compose.compliance import find_colored, measure_compliance
from studio.rendering.compose.encode import encode
from studio.rendering.compose.fill import follow_fill
from studio.rendering.compose.framed_crop import crop_to_frame, frame_margin_percent
from studio.rendering.compose.framing import Placement, place_product, project_product
from studio.rendering.compose.lookboard import arrange_lookboard, settle_subject
from studio.rendering.compose.quality import MEASURED_SIDE, score
from studio.rendering.compose.variation import Variation, sample_variation
from studio.rendering.cut_out.cut_out import shrink_cut_out
from studio.rendering.model import (
    MAX_SHARP_ENLARGEMENT,
    RENDERER_VERSION,
    Background,
    CutOut,
    Floats,
    Grade,
    Pixels,
    PredictionWarning,
    Preview,
    Progress,
    Quality,
    Rendering,
    RenderRequest,
)

logger = logging.getLogger(__name__)

_STRIP_ROWS = 192
# Inputs of which an extended photo shows nothing (`_keep_white`).
_UNUSED_BY_EXTENDED_PHOTOS = frozenset(
    ("background", "shadow", "contrast", "saturation", "temperature", "lighting", "tone")
)
# The best score of an image whose product was not cut out.
_MAX_SCORE_NOT_CUT_OUT = 0.4


@dataclass(frozen=True, eq=False)
class Layer:
    """A product projected on the canvas, with its shadow and, if a style asks for it, its light."""

    pixels: Pixels
    alpha: Pixels
    x: int
    y: int
    placement: Placement
    shadow: Floats | None
    """Darkness on the small canvas; None if it could not be computed."""
    light: Floats | None
    """Factors of the light on the small canvas; None leaves the product as it was photographed."""


def render(request: RenderRequest, progress: Progress | None = None) -> Rendering:
    """Render one prediction of exactly the requested size.

    Args:
        progress: Called with the share of the work that is done, 0..1.

    Raises:
        ValueError: The requested width or height is below one pixel.
    """
    if request.width < 1 or request.height < 1:
        raise ValueError("width and height must be at least 1 pixel")
    report_progress = progress or (lambda share: None)
    pixels, alpha, quality, provenance, warnings = _paint(request, report_progress)
    image, content_type = encode(pixels, request.file_format, request.quality)
    rules = find_rules(request.marketplace)
    compliance = []
    if rules is not None:
        if provenance["pose"] == "extended":
            alpha = find_colored(pixels)
        compliance = measure_compliance(image, alpha, provenance["pose"] == "framed", rules)
    report_progress(1.0)
    return Rendering(
        image,
        content_type,
        request.width,
        request.height,
        quality,
        provenance,
        compliance,
        warnings,
    )


def measure_preview(request: RenderRequest) -> Preview:
    """Return the score and the warnings of a prediction, without rendering it in its full size.

    The score is measured on a canvas of at most `MEASURED_SIDE` pixels a side, like that of the prediction
    itself. Photo and canvas are reduced by the same factor, so that the composition is the same.
    """
    factor = MEASURED_SIDE / max(request.width, request.height)
    if factor < 1:
        subject = request.subject_image
        request = replace(
            request,
            width=max(1, round(request.width * factor)),
            height=max(1, round(request.height * factor)),
            cut_out=shrink_cut_out(request.cut_out, factor),
            subject_image=shrink_cut_out(subject, factor) if isinstance(subject, CutOut) else subject,
        )
    _, _, quality, _, warnings = _paint(request, lambda share: None)
    return Preview(quality.score, warnings)


def _paint(
    request: RenderRequest, report_progress: Progress
) -> tuple[Pixels, Pixels, Quality, dict[str, Any], tuple[PredictionWarning, ...]]:
    """Return the pixels, the opacity of the product, the quality, the provenance and the warnings."""
    is_subject_requested = request.subject_image is not None
    request = settle_subject(request)
    variation = sample_variation(request.seed + request.variant, request.grade.lighting)
    report_progress(0.02)
    cut_out, painted = request.cut_out, _keep_white(request)
    layers, facts = build_layers(painted, variation)
    report_progress(0.25)
    pixels, alpha = compose(painted, layers, variation, lambda share: report_progress(0.25 + 0.45 * share))
    main = layers[-1].placement
    warnings = _list_warnings(request, main)
    if is_subject_requested and request.subject_image is None:
        warnings = (*warnings, "subject_not_shown")
    # A framed crop is filled by the product to its edges, like a detail.
    framing = "DETAIL" if main.pose == "framed" else request.framing
    if main.pose == "extended":
        alpha = np.where(pixels.min(axis=2) < 255, alpha, 0).astype(np.uint8)
    quality = score(pixels, alpha, framing, _edge_confidence(cut_out), main.margin, main.bleeds, main.scale)
    most = _MAX_SCORE_NOT_CUT_OUT if "not_cut_out" in warnings else 1.0
    quality = replace(quality, score=min(quality.score, most), confidence=cut_out.confidence)
    report_progress(0.75)
    has_shadow = all(layer.shadow is not None for layer in layers)
    provenance = {**_build_provenance(request, variation, main, has_shadow), **facts}
    return pixels, alpha, quality, provenance, warnings


def _keep_white(request: RenderRequest) -> RenderRequest:
    """Return the request, with the photo's own background if the photo is extended.

    A shadow, a grade or another background would show where the photo ends.
    """
    if not request.cut_out.is_extended:
        return request
    return replace(request, background=Background("SOLID", "#FFFFFF", shadow="NONE"), grade=Grade())


def _list_warnings(request: RenderRequest, placement: Placement) -> tuple[PredictionWarning, ...]:
    """Return the warnings about the cut-out and those about its place in this prediction."""
    warnings = list(request.cut_out.warnings)
    if request.cut_out.is_extended and not _asks_for_white(request.background):
        warnings.insert(0, "not_cut_out")
    if placement.scale > MAX_SHARP_ENLARGEMENT:
        warnings.append("enlarged")
    return tuple(warnings)


def _asks_for_white(background: Background) -> bool:
    return background.kind == "SOLID" and bool((parse_color(background.color) == 255).all())


def _edge_confidence(cut_out: CutOut) -> float:
    """Return the confidence in the rim. A framed crop has clean edges, but is not the requested cut-out."""
    if cut_out.is_extended:
        return 1.0
    return (
        0.5
        if not cut_out.is_trusted
        else 0.35 * cut_out.confidence + 0.65 * cut_out.confidence_parts.get("contrast", cut_out.confidence)
    )


def build_layers(request: RenderRequest, variation: Variation) -> tuple[list[Layer], dict[str, Any]]:
    """Return the products on the canvas, back to front, and facts for the provenance."""
    width, height = request.width, request.height
    air = max(request.padding_percent, request.margin_percent)
    area = (0.0, 0.0, float(width), float(height))
    if request.subject_image is not None:
        arranged, facts = arrange_lookboard(request, variation)
        layers = [build_layer(cut_out, placement, request, variation) for cut_out, placement in arranged]
        return layers, facts
    cut_out, facts = request.cut_out, dict[str, Any]()
    framed = not cut_out.is_trusted
    if framed:
        air = frame_margin_percent(request.framing)
        margins = 2 * min(width, height) * air / 100
        size = (width - margins, height - margins)
        cut_out, crop = crop_to_frame(cut_out, size, request.framing, variation)
        facts["framed_crop"] = list(crop)
    placement = place_product(cut_out, area, request.framing, request.view_angle, air, variation, framed)
    rules = find_rules(request.marketplace)
    placement = follow_fill(placement, cut_out, request.framing, rules, (width, height), variation)
    return [build_layer(cut_out, placement, request, variation)], facts


def build_layer(cut_out: CutOut, placement: Placement, request: RenderRequest, variation: Variation) -> Layer:
    """Return the cut-out projected on the canvas, with its shadow and light."""
    width, height = request.width, request.height
    pixels, alpha, (x, y) = project_product(cut_out.product, cut_out.alpha, placement, width, height)
    factor = min(1.0, shadows.SMALL_SIDE / max(width, height))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    canvas = np.zeros((height, width), dtype=np.uint8)
    canvas[y : y + alpha.shape[0], x : x + alpha.shape[1]] = alpha
    small = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    shadow = _build_shadow(small, placement, request, variation)
    return Layer(pixels, alpha, x, y, placement, shadow, _build_light(small, placement, request, variation))


def _build_shadow(
    small: Floats, placement: Placement, request: RenderRequest, variation: Variation
) -> Floats | None:
    """Return the darkness of the shadow; None if it cannot be computed.

    A shadow only decorates: a failure costs the shadow and not the image.
    """
    try:
        return shadows.shadow_map(small, request.background.shadow, placement.pose, variation)
    except Exception:
        logger.exception("the image has no shadow, because it could not be computed")
        return None


def _build_light(
    small: Floats, placement: Placement, request: RenderRequest, variation: Variation
) -> Floats | None:
    """Return the factors of the requested lighting; None leaves the product as it was photographed."""
    if not request.grade.lighting:
        return None
    is_framed = placement.pose == "framed"
    return shadows.room_light(small, variation) if is_framed else shadows.light_map(small, variation)


def compose(
    request: RenderRequest, layers: list[Layer], variation: Variation, report_progress: Progress
) -> tuple[Pixels, Pixels]:
    """Return the pixels of the canvas and the opacity of the products on it."""
    width, height = request.width, request.height
    paper = backgrounds.build_painter(request.background, width, height, variation, _get_surface(layers))
    product_curve = grading.compile_grade(request.grade)
    # A solid color may be a brand color and stays exact; other backgrounds get less than half of the grade.
    background_curve = grading.compile_grade(
        request.grade, 0.0 if request.background.kind == "SOLID" else 0.4
    )
    random = np.random.default_rng(np.random.PCG64(abs(variation.seed) + 1))
    dither = request.background.kind != "SOLID"
    result = np.empty((height, width, 3), dtype=np.uint8)
    covered = np.zeros((height, width), dtype=np.uint8)
    for first in range(0, height, _STRIP_ROWS):
        last = min(height, first + _STRIP_ROWS)
        strip = grading.apply_grade(background_curve, paper(first, last))
        noise = random.random((last - first, width), dtype=np.float32)
        for layer in layers:
            strip = _apply_shadow(strip, layer, width, height, first, last)
            strip = _composite(strip, covered, layer, product_curve, (width, height), first, last)
        # Dithering instead of rounding prevents banding on smooth gradients.
        offset = noise[..., None] if dither else 0.5 + (noise[..., None] - 0.5) * 0.98 * (strip % 1 > 0.004)
        result[first:last] = np.clip(strip + offset, 0, 255).astype(np.uint8)
        report_progress(last / height)
    return result, covered


def _get_surface(layers: list[Layer]) -> backgrounds.Surface:
    """Return what the paper is for the products: a table below, a wall behind, or a sweep of both."""
    poses = {layer.placement.pose for layer in layers}
    return "table" if "lying" in poses else "wall" if poses == {"hanging"} else "sweep"


def _apply_shadow(strip: Floats, layer: Layer, width: int, height: int, first: int, last: int) -> Floats:
    if layer.shadow is None:
        # A copy as below: the product is drawn into it.
        return strip.copy()
    dark = shadows.upscale(layer.shadow, width, height, first, last)
    return strip * (1 - dark)[..., None]


def _composite(
    strip: Floats,
    covered: Pixels,
    layer: Layer,
    curve: grading.GradeCurve,
    canvas: tuple[int, int],
    first: int,
    last: int,
) -> Floats:
    """Return the strip with the part of the product that overlaps it; update `covered` in place."""
    top, bottom = max(first, layer.y), min(last, layer.y + layer.alpha.shape[0])
    if top >= bottom:
        return strip
    left, right = layer.x, layer.x + layer.alpha.shape[1]
    alpha = layer.alpha[top - layer.y : bottom - layer.y]
    pixels = layer.pixels[top - layer.y : bottom - layer.y].astype(np.float32)
    lit: Floats = pixels
    if layer.light is not None:
        factor = shadows.upscale(layer.light, *canvas, top, bottom)[:, left:right]
        lit = pixels * factor[..., None]
        # Added light fades as a pixel gets near white, so that white fabric keeps its detail.
        lit = np.where(lit > pixels, pixels + (lit - pixels) * (1 - pixels / 255.0) * 1.6, lit)
    lit = grading.apply_grade(curve, lit)
    share = alpha.astype(np.float32)[..., None] / 255.0
    strip = strip.copy() if not strip.flags.writeable else strip
    part = strip[top - first : bottom - first, left:right]
    strip[top - first : bottom - first, left:right] = part + (lit - part) * share
    covered[top:bottom, left:right] = np.maximum(covered[top:bottom, left:right], alpha)
    return strip


def _build_provenance(
    request: RenderRequest, variation: Variation, placement: Placement, has_shadow: bool
) -> dict[str, Any]:
    """Return the provenance that is stored with the prediction, with the honored and the ignored inputs."""
    grade = request.grade
    honored = [
        "product",
        "framing",
        "background",
        "shadow",
        "size",
        "seed",
        "contrast",
        "saturation",
        "temperature",
    ]
    honored += ["subject"] if request.subject_image is not None else []
    honored += ["lighting"] if grade.lighting else []
    honored += ["tone"] if grading.known_tones(grade.tone) else []
    honored += ["view_angle"] if request.view_angle in ("FRONT", "TOP") else []
    ignored = ["tone"] if grade.tone and not grading.known_tones(grade.tone) else []
    ignored += ["view_angle"] if request.view_angle in ("BACK", "SIDE") else []
    if not has_shadow:
        honored.remove("shadow")
        ignored.append("shadow")
    if request.cut_out.is_extended:
        ignored += [name for name in honored if name in _UNUSED_BY_EXTENDED_PHOTOS]
        honored = [name for name in honored if name not in _UNUSED_BY_EXTENDED_PHOTOS]
    return {
        "renderer_version": RENDERER_VERSION,
        "cut_out": request.cut_out.method,
        "trust": round(request.cut_out.confidence, 4),
        "trust_parts": dict(request.cut_out.confidence_parts),
        "seed": request.seed + request.variant,
        "light": variation.light,
        "shadow": request.background.shadow if has_shadow and not request.cut_out.is_extended else "NONE",
        "pose": placement.pose,
        "crop": [round(value) for value in placement.box],
        "angle": round(placement.angle, 3),
        "yaw": round(placement.yaw, 3),
        "honoured_inputs": honored,
        "ignored_inputs": ignored,
    }
