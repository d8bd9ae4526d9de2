"""Everything that an order for pictures may say, with what it says when it is silent.

The contract has the same properties with the same defaults; a test compares the two.
"""

from __future__ import annotations

from typing import Any

REQUEST_DEFAULTS: dict[str, Any] = {
    "shot_id": None,
    "model_id": None,
    "source_prediction_id": None,
    "subject_id": None,
    "product_id": None,
    "product2_id": None,
    "style_id": None,
    "shot_type_id": None,
    "pose_preset_id": None,
    "subject_slug": None,
    "product_slug": None,
    "product2_slug": None,
    "style_slug": None,
    "shot_type_string": None,
    "product_image": None,
    "product2_image": None,
    "generation_type": "BASE",
    "generation_strategy": "GENERATE",
    "tool": None,
    "max_attempts": 3,
    "min_confidence_score": 0.7,
    "evaluation_provider": "auto",
    "batch_size": 1,
    "width": None,
    "height": None,
    "target_width": None,
    "target_height": None,
    "steps": 30,
    "seed": None,
    "refine": False,
    "scale_factor": None,
    "subject_lora_weight": 0.8,
    "product_lora_weight": 0.8,
    "product2_lora_weight": 0.8,
    "style_lora_weight": 0.8,
    "lighting": None,
    "framing": None,
    "perspective": None,
    "background": None,
    "tone": None,
    "pose": None,
    "extra_prompt": None,
    "negative_prompt": None,
    "subject_description": None,
    "product_description": None,
    "generated_prompt": None,
    "auto_generate_prompt": True,
    "cancel_after_seconds": None,
}
