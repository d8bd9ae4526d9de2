"""The typed request for a generation, with the defaults of the contract.

A handler builds it once from a validated body. This module knows no rows, no database and no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

TOOL_BY_STRATEGY = {
    "GENERATE": "BASE_GENERATION",
    "EDITING": "EDITING",
    "REFINE": "REFINE",
    "VIDEO": "VIDEO",
    "BACKGROUND_FIXING": "BACKGROUND_FIX",
    "IMAGE_ADJUSTING": "IMAGE_ADJUST",
    "FACE_FIXING": "FACE_FIX",
}


@dataclass(frozen=True)
class GenerationRequest:
    """What a client requests: the properties of `GenerationCreate` in the contract and their defaults.

    A test compares names and defaults with the contract. Generations store the fields in this order.
    """

    shot_id: UUID | None = None
    model_id: UUID | None = None
    source_prediction_id: UUID | None = None
    subject_id: UUID | None = None
    product_id: UUID | None = None
    product2_id: UUID | None = None
    style_id: UUID | None = None
    shot_type_id: UUID | None = None
    pose_preset_id: UUID | None = None
    subject_slug: str | None = None
    product_slug: str | None = None
    product2_slug: str | None = None
    style_slug: str | None = None
    shot_type_string: str | None = None
    product_image: str | None = None
    product2_image: str | None = None
    generation_type: str = "BASE"
    generation_strategy: str = "GENERATE"
    tool: str | None = None
    max_attempts: int = 3
    min_confidence_score: float = 0.7
    evaluation_provider: str = "auto"
    batch_size: int = 1
    width: int | None = None
    height: int | None = None
    target_width: int | None = None
    target_height: int | None = None
    steps: int = 30
    seed: int | None = None
    refine: bool = False
    scale_factor: float | None = None
    subject_lora_weight: float = 0.8
    product_lora_weight: float = 0.8
    product2_lora_weight: float = 0.8
    style_lora_weight: float = 0.8
    lighting: str | None = None
    framing: str | None = None
    perspective: str | None = None
    background: str | None = None
    tone: str | None = None
    pose: str | None = None
    extra_prompt: str | None = None
    negative_prompt: str | None = None
    subject_description: str | None = None
    product_description: str | None = None
    generated_prompt: str | None = None
    auto_generate_prompt: bool = True
    cancel_after_seconds: int | None = None
    preserve_product: bool = True

    @classmethod
    def from_body(cls, body: Mapping[str, Any], shot_id: UUID | None = None) -> GenerationRequest:
        """Return the request of a validated body.

        Args:
            body: The body of `create_generation`, `generate_shot` or `generate_shooting`. The last two call
                the batch size `num_predictions`.
            shot_id: The shot, where the body does not name it.
        """
        values = dict(body)
        if "num_predictions" in values:
            values["batch_size"] = values.pop("num_predictions")
        framing = values.pop("shot_type", None)
        if framing and not any(values.get(name) for name in ("shot_type_id", "shot_type_string", "framing")):
            values["framing"] = framing
        for name in ("generation_type", "generation_strategy", "preserve_product"):
            if values.get(name) is None:
                values.pop(name, None)
        if shot_id is not None:
            values["shot_id"] = shot_id
        return cls(**values)

    @property
    def required_tool(self) -> str:
        """The tool type that a model needs for the strategy."""
        return TOOL_BY_STRATEGY[self.generation_strategy]


REQUEST_DEFAULTS: Mapping[str, Any] = {
    property_.name: property_.default for property_ in fields(GenerationRequest)
}
