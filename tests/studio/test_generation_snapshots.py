"""Compare the inputs that a generation stores, byte for byte, with stored examples.

Workers of other versions and retries read these inputs, so their keys, values and order must not change.
`generation_snapshots.json` contains the inputs of each case, with ids replaced by names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import object_session

from db.caller import caller_context
from db.models import ProductImage, Shot
from db.session import Database, current_session, rollback_and_continue
from tests.studio.compute_fixtures import TOOLS
from tests.support import factories
from tests.support.scenarios import PhotographedProduct, request_generation

EXAMPLES: dict[str, Any] = json.loads(
    Path(__file__).with_name("generation_snapshots.json").read_text(encoding="utf-8")
)
PRODUCT_IMAGE = "https://images.example.com/bag.jpg"


class Rows:
    """The rows that the cases use. The names of the attributes replace the ids in the snapshots."""

    def __init__(self, scenario: PhotographedProduct) -> None:
        ownership = scenario.ownership
        self.product, self.shot, self.media = scenario.product, scenario.shot, scenario.media
        self.shot_type, self.look, self.model = scenario.shot_type, scenario.look, scenario.model
        self.guidelines, self.shooting = scenario.guidelines, scenario.shooting
        of_product = ProductImage.product_id == self.product.id
        session = object_session(self.product)
        assert session is not None
        self.photo = session.scalars(select(ProductImage).where(of_product)).one()
        self.second_product = factories.make_product(**ownership, name="Bag", sku="BAG-1")
        self.cover = factories.make_media(**ownership, content_hash="c" * 64)
        self.covered = factories.make_product(**ownership, sku="COVER-1", cover_media_id=self.cover.id)
        self.uploaded = factories.make_media(**ownership, content_hash="a" * 64)
        self.subject_media = factories.make_media(**ownership, content_hash="b" * 64)
        self.backdrop_media = factories.make_media(**ownership, content_hash="d" * 64)
        self.subject = factories.make_subject(**ownership, slug="mara")
        factories.make_base_image(
            self.subject, shot_type_id=self.shot_type.id, media_id=self.subject_media.id
        )
        self.style = factories.make_style(
            **ownership, slug="warm", contrast=12, saturation=-3, temperature=9, tone="warm", lighting="left"
        )
        self.detail = factories.make_shot_type(
            **ownership, slug="detail", framing="DETAIL", view_angle="BACK", default_padding_percent=7
        )
        self.backdrop = factories.make_background_preset(
            **ownership, name="Beach", kind="IMAGE", image_media_id=self.backdrop_media.id, shadow="NONE"
        )
        self.gradient = factories.make_background_preset(
            **ownership, name="Dusk", kind="GRADIENT", color="#101010", color_end="#f0f0f0"
        )
        self.resolution = factories.make_resolution_preset(**ownership, width=300, height=200)
        self.brand = factories.make_brand(
            **ownership,
            default_style_id=self.style.id,
            default_background_preset_id=self.gradient.id,
            default_resolution_preset_id=self.resolution.id,
        )
        self.branded = factories.make_product(
            **ownership, sku="BRAND-1", brand_id=self.brand.id, cover_media_id=self.cover.id
        )
        self.remote_model = factories.make_generation_model(
            name="Remote",
            provider="COMPUTE",
            provider_config={"base_url": "https://compute.example.com", "api_key": "secret"},
            fallback_provider="LOCAL_STUDIO",
            tool_types=TOOLS,
        )
        self.images_model = factories.make_generation_model(
            name="Generative",
            provider="OPENAI_IMAGES",
            provider_config={"model": "m", "api_key": "secret"},
            tool_types=TOOLS,
        )
        self.described = factories.make_subject(
            **ownership, slug="ida", name="Ida", age_class="ADULT", hair_color="red", description="calm\nface"
        )
        scene = {
            "width": 600,
            "height": 800,
            "quality": 77,
            "framing": "HALF_BODY",
            "margin_percent": 5,
            "padding_percent": 6,
            "view_angle": "SIDE",
            "subject": None,
            "grade": {"contrast": 4, "saturation": 0, "temperature": 0, "tone": None, "lighting": "top"},
            "product": {
                "media_id": "00000000-0000-0000-0000-000000000000",
                "extension": "jpg",
                "content_hash": "e" * 64,
            },
            "background": {"kind": "SOLID", "color": "#ffffff"},
        }
        self.source = self._make_source(ownership, {"scene": scene})
        self.bare_source = self._make_source(ownership, {}, content_type="image/png")

    def _make_source(self, ownership: dict[str, Any], inputs: dict[str, Any], **columns: Any) -> Any:
        generation = factories.make_generation(
            **ownership, model_id=self.model.id, status="completed", inputs=inputs
        )
        return factories.make_prediction(generation, media_id=self.media.id, **columns)

    def names(self) -> dict[str, str]:
        """Return the name of each row by its id, and of values that differ between runs."""
        names = {str(row.id): name for name, row in vars(self).items()}
        names[str(self.guidelines.resolution_preset_id)] = "guidelines_resolution"
        return names | {self.media.content_hash: "photo_hash"}


def build_cases(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return the parameters of each case by its name."""
    source = {"shot_id": None, "source_prediction_id": rows.source.id}
    bare = {"shot_id": None, "source_prediction_id": rows.bare_source.id}
    everything = {
        "product_id": rows.product.id,
        "product2_slug": "Bag",
        "subject_slug": "mara",
        "style_slug": "warm",
        "shot_type_string": "detail",
        "tool": "BASE_GENERATION",
        "generation_type": "AGENTIC",
        "max_attempts": 2,
        "min_confidence_score": 1,
        "evaluation_provider": "local",
        "batch_size": 3,
        "width": 400,
        "height": 300,
        "target_width": 500,
        "target_height": 600,
        "steps": 12,
        "seed": 99,
        "refine": True,
        "scale_factor": 1.5,
        "subject_lora_weight": 0.1,
        "product_lora_weight": 0,
        "product2_lora_weight": 0.8,
        "style_lora_weight": 1,
        "lighting": "Soft from the LEFT",
        "framing": "close-up",
        "perspective": "top",
        "background": "rebeccapurple",
        "tone": "cool",
        "pose": "sitting",
        "extra_prompt": "calm \u00e9",
        "negative_prompt": "shadows",
        "subject_description": "a person",
        "product_description": "a dress",
        "generated_prompt": "a dress on a person",
        "auto_generate_prompt": False,
        "cancel_after_seconds": 60,
    }
    return {
        "only a shot": {},
        "everything": everything,
        "everything from a remote provider": {**everything, "model_id": rows.remote_model.id},
        "everything with ids": {
            "product_id": rows.product.id,
            "product2_id": rows.second_product.id,
            "subject_id": rows.subject.id,
            "style_id": rows.style.id,
            "shot_type_id": rows.shot_type.id,
            "pose_preset_id": rows.shot_type.id,
        },
        "an uploaded photograph": {"product_image": PRODUCT_IMAGE, "product2_image": PRODUCT_IMAGE},
        "an uploaded photograph without a shot": {"shot_id": None, "product_image": PRODUCT_IMAGE},
        "only the photograph of the cover": {"shot_id": None, "product_slug": "COVER-1", "width": 96},
        "the defaults of a brand": {"shot_id": None, "product_id": rows.branded.id, "height": 512},
        "a background by name": {"background": "Beach", "subject_id": rows.subject.id},
        "an unknown background": {"background": "a place", "tone": "x", "lighting": "y", "framing": "z"},
        "a hexadecimal background": {"background": " #0a0B0c ", "perspective": "flat"},
        "a refined prediction": {**source, "generation_strategy": "REFINE"},
        "a refined prediction with a factor": {**source, "generation_strategy": "REFINE", "scale_factor": 2},
        "a refined prediction of a width": {**source, "generation_strategy": "REFINE", "target_width": 900},
        "a refined prediction of a height": {**bare, "generation_strategy": "REFINE", "height": 1000},
        "a refined prediction of a size": {
            **source,
            "generation_strategy": "REFINE",
            "target_width": 700,
            "target_height": 701,
            "width": 3,
        },
        "an adjusted prediction": {
            **source,
            "generation_strategy": "IMAGE_ADJUSTING",
            "style_slug": "warm",
            "tone": "cool",
            "lighting": "left",
        },
        "a new background": {**source, "generation_strategy": "BACKGROUND_FIXING", "background": "Dusk"},
        "a new background without inputs": {**bare, "generation_strategy": "BACKGROUND_FIXING"},
        "a new background for a shot": {
            **source,
            "shot_id": rows.shot.id,
            "generation_strategy": "BACKGROUND_FIXING",
            "background": "#123456",
        },
        "an edited prediction": {
            **source,
            "generation_strategy": "EDITING",
            "model_id": rows.remote_model.id,
            "extra_prompt": "brighter",
            "pose": "x",
        },
        "a new face": {**bare, "generation_strategy": "FACE_FIXING", "model_id": rows.remote_model.id},
        "a generative model": {
            "model_id": rows.images_model.id,
            "style_slug": "warm",
            "subject_slug": "ida",
            "background": "a pebble beach",
            "extra_prompt": "with shells\r\nmask: none",
            "preserve_product": False,
        },
        "a new background by a generative model": {
            **source,
            "generation_strategy": "BACKGROUND_FIXING",
            "model_id": rows.images_model.id,
            "background": "#123456",
        },
        "a new face by a generative model": {
            **bare,
            "generation_strategy": "FACE_FIXING",
            "model_id": rows.images_model.id,
        },
        "a remote refinement too large for the fallback": {
            **source,
            "generation_strategy": "REFINE",
            "model_id": rows.remote_model.id,
            "generation_type": "AGENTIC",
            "max_attempts": 5,
        },
    }


def store_inputs(database: Database, scenario: PhotographedProduct, rows: Rows, case: dict[str, Any]) -> str:
    """Return the stored inputs and columns of a new generation as JSON with the names of rows."""
    names = rows.names()
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with database.transaction(write=True), caller_context(caller, None):
        parameters = {"shot_id": rows.shot.id, "seed": 7, **case}
        shot = None
        if parameters["shot_id"] is not None:
            shot = current_session().scalars(select(Shot).where(Shot.id == parameters["shot_id"])).one()
        generation = request_generation(parameters, scenario.organization.id, shot, rows.uploaded)
        columns = {
            "model_id": str(generation.model_id),
            "source_prediction_id": str(generation.source_prediction_id),
            "generation_type": generation.generation_type,
            "generation_strategy": generation.generation_strategy,
            "batch_size": generation.batch_size,
            "seed": generation.seed,
            "cost_credits": generation.cost_credits,
            "has_deadline": generation.deadline_at is not None,
            "owned": generation.owner_id == scenario.owner.id,
        }
        text = json.dumps({"columns": columns, "inputs": generation.inputs})
        rollback_and_continue()
    for value, name in names.items():
        text = text.replace(value, f"<{name}>")
    return text


def test_the_stored_inputs_equal_the_snapshots(database: Database, scenario: PhotographedProduct) -> None:
    rows = Rows(scenario)
    stored = {name: store_inputs(database, scenario, rows, case) for name, case in build_cases(rows).items()}
    # Compare as text, because the comparison of dictionaries ignores the order of keys.
    assert stored == {name: json.dumps(example) for name, example in EXAMPLES.items()}
