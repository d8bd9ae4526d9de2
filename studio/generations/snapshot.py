"""Freeze resolved inputs into the JSON that a generation stores.

What a worker renders depends on these plain values only, not on later changes of the rows. Keys, values and
their order are stored and read by workers of other versions: `tests/studio/generation_snapshots.json` has
examples. Nothing here reads or writes the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.base import new_id
from db.errors import Conflict
from db.models.generation_models import GenerationModel
from db.models.generations import Generation, Prediction
from db.models.media import MediaResource
from db.models.products import ProductImage
from db.models.shootings import Shot
from db.models.styles import Style
from studio.catalog.marketplaces import ImageRules, find_rules
from studio.generations.inputs import Background, ResolvedInputs
from studio.generations.prompt import build_prompt
from studio.generations.request import REQUEST_DEFAULTS, GenerationRequest
from studio.providers import compute, openai_images
from studio.providers.registry import PROVIDERS, can_render

MAX_RANDOM_SEED = 2_000_000_000
DEFAULT_SIZE = (1536, 2048)
DEFAULT_QUALITY = 90
DEFAULT_MARGIN = 8
DEFAULT_BACKGROUND = {"kind": "SWEEP", "color": "#F2F0EC", "color_end": None, "shadow": "SOFT", "image": None}
WHITE_BACKGROUND = {"kind": "SOLID", "color": "#FFFFFF", "color_end": None, "shadow": "NONE", "image": None}

FRAMINGS = ("FULL_BODY", "THREE_QUARTER", "HALF_BODY", "CLOSE_UP", "DETAIL", "FLAT_LAY", "STILL_LIFE")
VIEW_ANGLES = ("FRONT", "BACK", "SIDE", "TOP")
LIGHTS = ("left", "right", "top", "front", "soft", "hard")

_ALWAYS_USED = (
    "shot_id model_id generation_type generation_strategy tool evaluation_provider batch_size seed"
    " cancel_after_seconds"
)
_USED_BY_STRATEGY = {
    "GENERATE": "product_id product_slug style_id style_slug shot_type_id shot_type_string width height",
    "REFINE": "source_prediction_id scale_factor target_width target_height width height",
    "BACKGROUND_FIXING": "source_prediction_id",
    "IMAGE_ADJUSTING": "source_prediction_id style_id style_slug",
    "EDITING": "source_prediction_id",
    "FACE_FIXING": "source_prediction_id",
}
_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}


class ResolutionNotSupported(Conflict):
    """The image would be larger than the model renders."""

    code = "resolution_not_supported"
    default_detail = "The model does not support images of this size"


@dataclass(frozen=True)
class GenerationDraft:
    """The columns of a generation that is checked but not written. The shot is locked."""

    organization_id: UUID | None
    owner_id: UUID
    shot: Shot | None
    model_id: UUID | None
    source_prediction_id: UUID | None
    generation_type: str
    generation_strategy: str
    batch_size: int
    seed: int | None
    inputs: Mapping[str, Any]
    """The frozen inputs, plain JSON values."""
    retry_of_id: UUID | None = None

    @property
    def cost_credits(self) -> int:
        """The price: one credit per prediction."""
        return self.batch_size

    @property
    def deadline_seconds(self) -> int | None:
        """The seconds from the creation to the deadline; None for no deadline."""
        seconds: int | None = self.inputs.get("asked", {}).get("cancel_after_seconds")
        return seconds


def freeze(resolved: ResolvedInputs) -> GenerationDraft:
    """Return the draft with the inputs frozen, and with a random seed if the request has none.

    Raises:
        ResolutionNotSupported: The image would be larger than the model renders.
    """
    request, model = resolved.request, resolved.model
    scene = _build_scene(resolved)
    _require_supported_size(model, scene)
    used = _list_used_inputs(resolved)
    fallback = model.fallback_provider
    inputs: dict[str, Any] = {
        "asked": _build_request_snapshot(resolved),
        "scene": scene,
        "rows": list(_list_provenance(resolved)),
        "ignored": _list_ignored_inputs(request, used, model.provider),
        "fallback_ignored": _list_ignored_inputs(request, used, fallback),
        "model": {
            "name": model.name,
            "provider": model.provider,
            "fallback_provider": fallback
            if can_render(fallback, request.generation_strategy, scene["width"], scene["height"])
            else None,
        },
    }
    if openai_images.PROVIDER in (inputs["model"]["provider"], inputs["model"]["fallback_provider"]):
        inputs["prompt"] = build_prompt(resolved, scene)
    return GenerationDraft(
        organization_id=resolved.tenant.organization_id,
        owner_id=resolved.tenant.owner_id,
        shot=resolved.shot,
        model_id=model.id,
        source_prediction_id=request.source_prediction_id,
        generation_type=request.generation_type,
        generation_strategy=request.generation_strategy,
        batch_size=request.batch_size,
        # Derived from an id, because the mock gives out the same ids, and so the same seeds, in each run.
        seed=request.seed if request.seed is not None else new_id().int % MAX_RANDOM_SEED,
        inputs=inputs,
    )


def get_render_inputs(generation: Generation) -> dict[str, Any]:
    """Return the frozen inputs of the renderer; empty for a generation that has none."""
    return dict((generation.inputs or {}).get("scene") or {})


def _build_request_snapshot(resolved: ResolvedInputs) -> dict[str, Any]:
    """Return the request as the generation shows it, with the model, tool and rows that were chosen."""
    request = resolved.request
    values = {name: str(value) if isinstance(value, UUID) else value for name, value in vars(request).items()}
    values["model_id"] = str(resolved.model.id)
    values["tool"] = request.required_tool
    for name in ("product", "subject", "style", "shot_type"):
        row = getattr(resolved, name)
        if row is not None:
            values[f"{name}_id"] = str(row.id)
    return values


def _build_scene(resolved: ResolvedInputs) -> dict[str, Any]:
    """Return the inputs of the renderer."""
    if resolved.source is not None and resolved.request.generation_strategy != "GENERATE":
        return _build_scene_from_source(resolved, resolved.source)
    request, guidelines, shot_type = resolved.request, resolved.guidelines, resolved.shot_type
    width, height = _choose_size(resolved)
    scene: dict[str, Any] = {
        "width": width,
        "height": height,
        "file_format": guidelines.file_format if guidelines else "WEBP",
        "quality": guidelines.quality if guidelines else DEFAULT_QUALITY,
        "margin_percent": guidelines.margin_percent if guidelines else DEFAULT_MARGIN,
        "padding_percent": shot_type.default_padding_percent if shot_type else 0,
        "framing": _parse_enum(request.framing, FRAMINGS)
        or (shot_type.framing if shot_type else "STILL_LIFE"),
        "view_angle": _parse_enum(request.perspective, VIEW_ANGLES)
        or (shot_type.view_angle if shot_type else "FRONT"),
        "background": _build_background(resolved.background),
        "grade": _build_grade(resolved.style, request.tone, request.lighting),
        "product": _to_photo_reference(resolved.product_media, resolved.product_image),
        "subject": _to_file_reference(resolved.subject_media),
    }
    if resolved.has_unknown_background:
        scene["unknown_background"] = True
    if resolved.subject_media is not None and resolved.product is not None and resolved.product.category:
        scene["product_category"] = resolved.product.category
    rules = _find_rules(resolved)
    if rules is None or guidelines is None:
        return scene
    return {**scene, "marketplace": guidelines.marketplace, **_follow_rules(resolved, scene, rules)}


def _find_rules(resolved: ResolvedInputs) -> ImageRules | None:
    return find_rules(resolved.guidelines.marketplace) if resolved.guidelines is not None else None


def _follow_rules(resolved: ResolvedInputs, scene: Mapping[str, Any], rules: ImageRules) -> dict[str, Any]:
    """Return the inputs that change so that the image meets the rules of its marketplace.

    What the request names itself stays: the compliance of the prediction then shows that a rule is broken.
    """
    changes: dict[str, Any] = {}
    if scene["file_format"] not in rules.formats:
        changes["file_format"] = rules.formats[0]
    if not rules.white_share:
        return changes
    if not resolved.background.is_requested:
        changes["background"] = dict(WHITE_BACKGROUND)
    # The main image of a marketplace shows the product alone.
    return {**changes, "subject": None}


def _build_scene_from_source(resolved: ResolvedInputs, source: Prediction) -> dict[str, Any]:
    request, strategy = resolved.request, resolved.request.generation_strategy
    previous = get_render_inputs(source.generation)
    scene: dict[str, Any] = {
        "width": source.width,
        "height": source.height,
        "file_format": _FORMATS.get(source.content_type, "WEBP"),
        "quality": previous.get("quality", 92),
        "framing": previous.get("framing", "STILL_LIFE"),
        "source": _to_source_reference(source),
    }
    scene |= {name: previous[name] for name in ("marketplace", "product_category") if name in previous}
    if strategy == "REFINE":
        max_pixels = _get_limits(resolved.model)[0]
        scene["width"], scene["height"] = _choose_refined_size(
            request, source.width, source.height, max_pixels
        )
        return scene
    if strategy in ("EDITING", "FACE_FIXING"):
        return scene
    if strategy == "IMAGE_ADJUSTING":
        # The light is part of the source: only the style can ask for another grade of it.
        return {**scene, "grade": _build_grade(resolved.style, request.tone)}
    # BACKGROUND_FIXING starts from the product photo, if the source was rendered from one: the photo has no
    # shadow that would have to be cut away.
    fallback = {
        "margin_percent": 0,
        "padding_percent": 4,
        "view_angle": "FRONT",
        "subject": None,
        "grade": _build_grade(None),
        "product": scene["source"],
    }
    reused = {name: previous[name] for name in fallback if previous.get("product") and name in previous}
    background = _build_background(resolved.background)
    scene = {**fallback, **reused, **scene, "background": background, "source": None}
    if resolved.has_unknown_background:
        scene["unknown_background"] = True
    return scene


def _choose_size(resolved: ResolvedInputs) -> tuple[int, int]:
    """Return width and height: requested, by the ratio of the preset, or the default reduced to the limit.

    The default is that of the marketplace if there is one whose rules the preset does not meet.
    """
    request, preset = resolved.request, resolved.resolution
    width, height = (preset.width, preset.height) if preset is not None else DEFAULT_SIZE
    if request.width or request.height:
        return _complete_size(request.width, request.height, width, height)
    rules = _find_rules(resolved)
    if rules is not None and not rules.accepts_size(width, height):
        preset, (width, height) = None, rules.size
    max_pixels = _get_limits(resolved.model)[0]
    if preset is None and width * height > max_pixels:
        factor = (max_pixels / (width * height)) ** 0.5
        return max(1, int(width * factor)), max(1, int(height * factor))
    return width, height


def _choose_refined_size(
    request: GenerationRequest, width: int, height: int, max_pixels: int
) -> tuple[int, int]:
    """Return the size after refining: the target size, the requested size, or a multiple of the source."""
    if request.target_width or request.target_height:
        return _complete_size(request.target_width, request.target_height, width, height)
    if request.width or request.height:
        return _complete_size(request.width, request.height, width, height)
    factor = request.scale_factor
    if factor is None:
        factor = max(1.0, min(2.0, (max_pixels / (width * height)) ** 0.5))
        return int(width * factor), int(height * factor)
    return round(width * factor), round(height * factor)


def _complete_size(
    requested_width: int | None, requested_height: int | None, width: int, height: int
) -> tuple[int, int]:
    """Return the requested size; a missing side follows from the ratio of `width` and `height`."""
    if requested_width and requested_height:
        return requested_width, requested_height
    if requested_width:
        return requested_width, max(1, round(requested_width * height / width))
    return max(1, round((requested_height or 0) * width / height)), requested_height or 0


def _get_limits(model: GenerationModel) -> tuple[int, int, int]:
    """Return the most pixels, width and height: those of the model, never more than the provider's."""
    provider = PROVIDERS[model.provider]
    return (
        min(model.max_size_pixels or provider.max_pixels, provider.max_pixels),
        min(model.max_output_width or provider.max_side, provider.max_side),
        min(model.max_output_height or provider.max_side, provider.max_side),
    )


def _require_supported_size(model: GenerationModel, scene: Mapping[str, Any]) -> None:
    max_pixels, max_width, max_height = _get_limits(model)
    width, height = scene["width"], scene["height"]
    if width * height > max_pixels or width > max_width or height > max_height:
        raise ResolutionNotSupported(
            f"{width} x {height} pixels exceed the maximum of the model {model.name}: {max_width} x"
            f" {max_height} and {max_pixels} pixels in total"
        )


def _parse_enum(text: str | None, members: tuple[str, ...]) -> str | None:
    """Return the member that a text names, in whatever case and with spaces or dashes; None for others."""
    normalized = "_".join((text or "").upper().replace("-", " ").replace("_", " ").split())
    return normalized if normalized in members else None


def _build_background(background: Background) -> dict[str, Any]:
    if background.color is not None:
        return {**DEFAULT_BACKGROUND, "kind": "SOLID", "color": background.color}
    preset = background.preset
    if preset is None:
        return dict(DEFAULT_BACKGROUND)
    image = _to_file_reference(preset.image_media)
    return {
        "kind": preset.kind if preset.kind != "IMAGE" or image else "SWEEP",
        "color": preset.color or DEFAULT_BACKGROUND["color"],
        "color_end": preset.color_end,
        "shadow": preset.shadow,
        "image": image,
    }


def _build_grade(style: Style | None, tone: str | None = None, lighting: str | None = None) -> dict[str, Any]:
    """Return color and light of the style; the requested tone and lighting come first."""
    return {
        "contrast": style.contrast if style else 0,
        "saturation": style.saturation if style else 0,
        "temperature": style.temperature if style else 0,
        "tone": tone or (style.tone if style else None),
        "lighting": lighting or (style.lighting if style else None),
    }


def _to_file_reference(media: MediaResource | None) -> dict[str, str] | None:
    """Return what a worker needs to load a stored file."""
    if media is None:
        return None
    return {"media_id": str(media.id), "extension": media.extension, "content_hash": media.content_hash}


def _to_source_reference(source: Prediction) -> dict[str, Any]:
    """Return the file of a prediction and how it was made, for 0.1.0 by its provider: no file says it."""
    provider = PROVIDERS.get(source.provenance.get("provider", ""))
    source_type = source.provenance.get("digital_source_type") or (provider and provider.source_type)
    reference = _to_file_reference(source.media) or {}
    return {**reference, "digital_source_type": str(source_type) if source_type else None}


def _to_photo_reference(media: MediaResource | None, image: ProductImage | None) -> dict[str, Any] | None:
    """Return what a worker needs to load a photo, and to cut out what a person chose in it."""
    reference: dict[str, Any] | None = _to_file_reference(media)
    if reference is None or image is None:
        return reference
    reference["product_image_id"] = str(image.id)
    if image.region is not None:
        reference["region"] = dict(image.region)
    if image.mask_media is not None:
        reference["mask"] = _to_file_reference(image.mask_media)
    return reference


def _list_provenance(resolved: ResolvedInputs) -> Iterator[dict[str, Any]]:
    """List the rows and files that the predictions are made from."""
    if resolved.request.generation_strategy != "GENERATE":
        if resolved.source is not None:
            yield _to_provenance("source_prediction", resolved.source.id, resolved.source.content_hash)
        if resolved.background.preset is not None:
            yield _to_provenance("background_preset", resolved.background.preset.id)
        return
    for kind, row in (
        ("resolution_preset", resolved.resolution),
        ("background_preset", resolved.background.preset),
        ("product", resolved.product),
        ("subject", resolved.subject),
        ("style", resolved.style),
        ("shot_type", resolved.shot_type),
        ("guidelines", resolved.guidelines),
        ("brand", resolved.brand),
    ):
        if row is not None:
            yield _to_provenance(kind, row.id)
    for kind, media in (
        ("product_image", resolved.product_media),
        ("subject_image", resolved.subject_media),
    ):
        if media is not None:
            yield _to_provenance(kind, media.id, media.content_hash)


def _to_provenance(kind: str, row_id: UUID, content_hash: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "id": str(row_id), "content_hash": content_hash}


def _list_used_inputs(resolved: ResolvedInputs) -> set[str]:
    """Return the names of the inputs that make a difference, whatever the provider."""
    request, strategy = resolved.request, resolved.request.generation_strategy
    used = {"product_image", *_ALWAYS_USED.split(), *_USED_BY_STRATEGY[strategy].split()}
    rules = _find_rules(resolved)
    if resolved.subject_media is not None and (rules is None or not rules.white_share):
        used |= {"subject_id", "subject_slug"}
    if resolved.background.is_requested:
        used.add("background")
    if strategy in ("GENERATE", "IMAGE_ADJUSTING"):
        used.add("tone")  # the renderer reports a tone that it does not know
    if strategy == "GENERATE":
        if _parse_enum(request.framing, FRAMINGS):
            used.add("framing")
        if _parse_enum(request.perspective, VIEW_ANGLES):
            used.add("perspective")
        if any(word in (request.lighting or "").lower() for word in LIGHTS):
            used.add("lighting")
    return used


def _list_ignored_inputs(request: GenerationRequest, used: set[str], provider_name: str | None) -> list[str]:
    """Return the names of inputs that differ from their defaults and that this provider does not use."""
    if provider_name is not None:
        used = used | PROVIDERS[provider_name].supported_inputs
    if provider_name in (compute.PROVIDER, openai_images.PROVIDER):
        # Remote providers are not asked whether an image is good enough.
        used = used - {"generation_type"}
    elif request.generation_type == "AGENTIC":
        used = used | {"max_attempts", "min_confidence_score"}
    return [
        name
        for name, value in vars(request).items()
        if value not in (None, REQUEST_DEFAULTS[name]) and name not in used
    ]
