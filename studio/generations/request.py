"""Asking for pictures: finds and checks what was asked for, and freezes the inputs.

`orders.py` makes the row of it, `studio/jobs` works it off. Nothing here renders, and nothing here knows
HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import new_id
from db.errors import Conflict, NotFound
from db.models.generation_models import GenerationModel
from db.models.generations import Generation
from db.models.shootings import Shot
from db.session import current_session
from db.tenancy import current_caller
from studio.generations.create import GenerationDraft, create_generation
from studio.generations.defaults import REQUEST_DEFAULTS
from studio.generations.inputs import (
    ResolvedInputs,
    ResolveImage,
    build_background,
    build_grade,
    build_render_inputs,
    get_render_inputs,
    resolve_inputs,
    to_file_reference,
)
from studio.providers import compute
from studio.providers.registry import PROVIDERS, can_render
from studio.state_machines import next_shot_status

MAX_RANDOM_SEED = 2_000_000_000

TOOL_OF_STRATEGY = {
    "GENERATE": "BASE_GENERATION",
    "EDITING": "EDITING",
    "REFINE": "REFINE",
    "VIDEO": "VIDEO",
    "BACKGROUND_FIXING": "BACKGROUND_FIX",
    "IMAGE_ADJUSTING": "IMAGE_ADJUST",
    "FACE_FIXING": "FACE_FIX",
}

_ALWAYS_USED = (
    "shot_id model_id generation_type generation_strategy tool evaluation_provider batch_size seed"
    " cancel_after_seconds"
)
_USED = {
    "GENERATE": "product_id product_slug style_id style_slug shot_type_id shot_type_string width height",
    "REFINE": "source_prediction_id scale_factor target_width target_height width height",
    "BACKGROUND_FIXING": "source_prediction_id",
    "IMAGE_ADJUSTING": "source_prediction_id style_id style_slug",
    "EDITING": "source_prediction_id",
    "FACE_FIXING": "source_prediction_id",
}
_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}


class NothingToGenerate(Conflict):
    """The order names neither a product that has a photograph nor, where one is needed, a source picture."""

    code = "nothing_to_generate"
    default_detail = "There is no photograph of a product to work from"


class StrategyNotSupported(Conflict):
    """The chosen model has not the tool that the strategy needs."""

    code = "strategy_not_supported"
    default_detail = "The model does not support this strategy"


class ResolutionNotSupported(Conflict):
    """The picture would be larger than the chosen model makes them."""

    code = "resolution_not_supported"
    default_detail = "The model does not make pictures of this size"


def request_generation(
    parameters: Mapping[str, Any],
    organization_id: UUID | None,
    shot: Shot | None,
    resolve_image: ResolveImage,
) -> Generation:
    """The new pending generation, paid for. `shot`, if any, is locked and belongs to the scope given.

    Refused as `check_order` and `place_order` say.
    """
    return create_generation(validate_request(parameters, organization_id, shot, resolve_image))


def validate_request(
    parameters: Mapping[str, Any],
    organization_id: UUID | None,
    shot: Shot | None,
    resolve_image: ResolveImage,
) -> GenerationDraft:
    """The order with all its inputs found and frozen; nothing is written.

    Refused with NothingToGenerate, StrategyNotSupported, ResolutionNotSupported, ShotBusy or
    InvalidTransition; NotFound and ScopeMismatch for what the order refers to.
    """
    order = {**REQUEST_DEFAULTS, **parameters}
    personal_owner = shot.owner_id if shot is not None and organization_id is None else None
    owner_id = personal_owner or current_caller().user_id
    model = _choose_model(order)
    resolved = resolve_inputs(order, organization_id, owner_id, shot, resolve_image)
    if shot is not None:
        next_shot_status(shot.status, "generate")  # said before what its inputs lack, which may change
    scene = _build_render_inputs(order, resolved, _get_limits(model)[0])
    _require_size(model, scene)
    # Drawn by the one who gives out ids, so that a mock draws the same each time.
    seed = order["seed"] if order["seed"] is not None else new_id().int % MAX_RANDOM_SEED
    columns = {
        "model_id": model.id,
        "source_prediction_id": order["source_prediction_id"],
        "generation_type": order["generation_type"],
        "generation_strategy": order["generation_strategy"],
        "batch_size": order["batch_size"],
        "seed": seed,
        "inputs": {
            "asked": _snapshot(order, resolved, model),
            "scene": scene,
            "rows": resolved.rows,
            "ignored": _list_ignored(order, resolved.used, model.provider),
            "fallback_ignored": _list_ignored(order, resolved.used, model.fallback_provider),
            "model": {
                "name": model.name,
                "provider": model.provider,
                "fallback_provider": _usable_fallback(model, order["generation_strategy"], scene),
            },
        },
    }
    return GenerationDraft(organization_id, owner_id, shot, columns)


def _choose_model(request: Mapping[str, Any]) -> GenerationModel:
    """The model asked for, else a recommended one with the tool; StrategyNotSupported when it lacks the
    tool.
    """
    tool = TOOL_OF_STRATEGY[request["generation_strategy"]]
    if request["model_id"] is not None:
        model = current_session().scalar(
            select(GenerationModel).where(GenerationModel.id == request["model_id"])
        )
        if model is None:
            raise NotFound()
        models = [model]
    else:
        best_first = (GenerationModel.recommended.desc(), GenerationModel.created_at, GenerationModel.id)
        models = list(current_session().scalars(select(GenerationModel).order_by(*best_first)))
    able = [model for model in models if tool in model.tool_types]
    able = [model for model in able if request["generation_strategy"] in PROVIDERS[model.provider].strategies]
    if not able or request["tool"] not in (None, tool):
        raise StrategyNotSupported()
    return able[0]


def _get_limits(model: GenerationModel) -> tuple[int, int, int]:
    """Most pixels, largest width, largest height: the model's, never beyond the provider's."""
    provider = PROVIDERS[model.provider]
    return (
        min(model.max_size_pixels or provider.max_pixels, provider.max_pixels),
        min(model.max_output_width or provider.max_side, provider.max_side),
        min(model.max_output_height or provider.max_side, provider.max_side),
    )


def _require_size(model: GenerationModel, scene: Mapping[str, Any]) -> None:
    pixels, largest_width, largest_height = _get_limits(model)
    width, height = scene["width"], scene["height"]
    if width * height > pixels or width > largest_width or height > largest_height:
        raise ResolutionNotSupported(f"{width} x {height} is larger than {model.name} makes pictures")


def _usable_fallback(model: GenerationModel, strategy: str, scene: Mapping[str, Any]) -> str | None:
    """Who makes the pictures when the model's provider cannot, if that one is able to."""
    able = can_render(model.fallback_provider, strategy, scene["width"], scene["height"])
    return model.fallback_provider if able else None


def _build_render_inputs(
    request: Mapping[str, Any], resolved: ResolvedInputs, max_pixels: int
) -> dict[str, Any]:
    """The provider's inputs as plain values; NothingToGenerate when there is nothing to start from."""
    strategy = request["generation_strategy"]
    if strategy == "GENERATE":
        if resolved.product_media is None:
            raise NothingToGenerate()
        return build_render_inputs(resolved, request, max_pixels)
    source = resolved.source
    if source is None:
        raise NothingToGenerate(f"{strategy} needs a source picture")
    resolved.record_provenance("source_prediction", source.id, source.content_hash)
    before = get_render_inputs(source.generation)
    scene = {
        "width": source.width,
        "height": source.height,
        "file_format": _FORMATS.get(source.content_type, "WEBP"),
        "quality": before.get("quality", 92),
        "framing": before.get("framing", "STILL_LIFE"),
        "source": to_file_reference(source.media),
    }
    if strategy == "REFINE":
        scene["width"], scene["height"] = _get_refined_size(request, source.width, source.height, max_pixels)
        return scene
    if strategy in ("EDITING", "FACE_FIXING"):
        return scene
    if strategy == "IMAGE_ADJUSTING":
        return {**scene, "grade": build_grade(resolved, {**request, "lighting": None})}
    # The product's own photograph is the better start, if the picture was made from one: no shadow to cut
    # away.
    fallback = {
        "margin_percent": 0,
        "padding_percent": 4,
        "view_angle": "FRONT",
        "subject": None,
        "grade": build_grade(ResolvedInputs(None, resolved.owner_id), REQUEST_DEFAULTS),
        "product": scene["source"],
    }
    kept = {name: before[name] for name in fallback if before.get("product") and name in before}
    return {**fallback, **kept, **scene, "background": build_background(resolved, request), "source": None}


def _get_refined_size(
    request: Mapping[str, Any], width: int, height: int, max_pixels: int
) -> tuple[int, int]:
    """The size after refining: the target or the size asked for (one side keeps the ratio), else a factor."""
    for names in (("target_width", "target_height"), ("width", "height")):
        wide, high = request[names[0]], request[names[1]]
        if wide and high:
            return wide, high
        if wide:
            return wide, max(1, round(wide * height / width))
        if high:
            return max(1, round(high * width / height)), high
    factor = request["scale_factor"]
    if factor is None:
        factor = max(1.0, min(2.0, (max_pixels / (width * height)) ** 0.5))
        return int(width * factor), int(height * factor)
    return round(width * factor), round(height * factor)


def _snapshot(request: Mapping[str, Any], resolved: ResolvedInputs, model: GenerationModel) -> dict[str, Any]:
    """The order as the generation shows it for ever, with what was filled in."""
    shown = {name: str(value) if isinstance(value, UUID) else value for name, value in request.items()}
    shown["model_id"] = str(model.id)
    shown["tool"] = TOOL_OF_STRATEGY[request["generation_strategy"]]
    for name in ("product", "subject", "style", "shot_type"):
        row = getattr(resolved, name)
        if row is not None:
            shown[f"{name}_id"] = str(row.id)
    return {name: shown[name] for name in REQUEST_DEFAULTS}


def _list_ignored(
    request: Mapping[str, Any], effective_inputs: set[str], provider_name: str | None
) -> list[str]:
    """What the caller gave, beyond what is said by silence, and this provider does not use."""
    used = {*_ALWAYS_USED.split(), *_USED[request["generation_strategy"]].split(), *effective_inputs}
    if provider_name is not None:
        used |= PROVIDERS[provider_name].supported_inputs
    if provider_name == compute.PROVIDER:
        # Which of its pictures are good enough, a Compute API is not asked.
        used -= {"generation_type"}
    elif request["generation_type"] == "AGENTIC":
        used |= {"max_attempts", "min_confidence_score"}
    return [
        name
        for name in REQUEST_DEFAULTS
        if request[name] not in (None, REQUEST_DEFAULTS[name]) and name not in used
    ]
