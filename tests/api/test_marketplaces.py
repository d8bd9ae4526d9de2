"""Images for a marketplace through the API: guidelines, image and compliance."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from db.session import Database
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client
from tests.support import factories
from tests.support.scenarios import PhotographedProduct, run_pending_generations


@pytest.fixture
def generate(client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk) -> Any:
    """Return a function that generates one prediction for the shot and returns it as the API does."""

    def run(marketplace: str | None, **body: Any) -> dict[str, Any]:
        path = f"/guidelines/{scenario.guidelines.id}"
        assert client("PATCH", path, {"marketplace": marketplace}).status == 200
        body = {"shot_id": str(scenario.shot.id), "batch_size": 1, "seed": 7, **body}
        response = client("POST", f"/generations/?organization_id={scenario.organization.id}", body)
        assert response.status == 202, response.body
        run_pending_generations(database, storage)
        done = client("GET", f"/generations/{response.json()['id']}").json()
        prediction: dict[str, Any] = done["predictions"][0]
        assert client("GET", f"/predictions/{prediction['id']}").json() == prediction
        return prediction

    return run


def list_failed(prediction: dict[str, Any]) -> list[str]:
    return [result["rule"] for result in prediction["compliance"] if not result["passed"]]


def test_a_shot_with_guidelines_of_a_marketplace_gets_an_image_that_complies(
    generate: Any, client: Client
) -> None:
    prediction = generate("AMAZON_MAIN")
    assert [(result["rule"], result["passed"]) for result in prediction["compliance"]] == [
        ("background_white", True),
        ("border", True),
        ("fill", True),
        ("min_side", True),
        ("max_side", True),
        ("format", True),
        ("file_size", True),
    ]
    # The guidelines ask for 192 x 256 pixels of WebP on gray, which Amazon does not accept.
    assert (prediction["width"], prediction["height"]) == (2000, 2000)
    assert prediction["content_type"] == "image/jpeg"
    image = client("GET", f"/predictions/{prediction['id']}/image")
    pixels = np.asarray(Image.open(io.BytesIO(image.body)))
    assert (pixels[:100].min(), pixels[-100:].min()) == (255, 255)


def test_a_requested_background_and_size_stay_and_break_the_rules(generate: Any) -> None:
    prediction = generate("GOOGLE_MERCHANT", background="#2040C0", width=240, height=240)
    assert list_failed(prediction) == ["background_white", "border", "min_side"]


def test_a_shot_without_a_marketplace_has_no_compliance(generate: Any) -> None:
    assert generate(None)["compliance"] == []


def test_a_main_image_shows_no_subject(
    generate: Any, scenario: PhotographedProduct, client: Client, database: Database
) -> None:
    with database.transaction(write=True):
        subject = factories.make_subject(**scenario.ownership)
        factories.make_base_image(subject, shot_type_id=scenario.shot_type.id, media_id=scenario.media.id)
    prediction = generate("GOOGLE_MERCHANT", subject_id=str(subject.id))
    assert list_failed(prediction) == []
    assert prediction["provenance"]["ignored_inputs"] == ["subject_id"]
