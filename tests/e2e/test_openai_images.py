"""Test of a real server with an Images API: from the request to the pixels of the predictions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.generation_steps import prepare_look, wait_for_generation
from tests.e2e.test_compute import ADMIN
from tests.support.servers.images import KEY, PAINT, run_images_server
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import running_server


@pytest.mark.slow("tests/studio/test_openai_images.py covers each step")
def test_a_generative_model_makes_predictions_around_the_product(tmp_path: Path) -> None:
    with run_images_server() as images:
        settings = {"OPENAI_IMAGES_URL": images.server.url, "OPENAI_IMAGES_API_KEY": KEY}
        with running_server(tmp_path, **settings) as server, Api(server.origin) as api:
            api.sign_in(*ADMIN)
            body = {"name": "Generative", "provider": "OPENAI_IMAGES", "tool_types": ["BASE_GENERATION"]}
            config = {"model": "gpt-image-test", "api_key": KEY}
            model = api.post("/generation-models/", json={**body, "provider_config": config})
            assert model["provider_config"] is None
            shown = api.get(f"/generation-models/{model['id']}/provider-config")
            assert shown["provider_config"] == {"model": "gpt-image-test", "api_key": "********"}
            api.sign_in(EMAIL, PASSWORD)
            shots = prepare_look(api, 300, 400, "PNG")["shots"]
            changed = []
            for shot, preserves in zip(shots, (None, False), strict=True):
                request = {"num_predictions": 2, "model_id": model["id"], "preserve_product": preserves}
                created = api.post(f"/shots/{shot['id']}/generate", json=request)
                assert created["preserve_product"] is (preserves is None)
                done = wait_for_generation(api, created["id"], "completed", "failed")
                assert (done["error"], done["cost_credits"], len(done["predictions"])) == (None, 2, 2)
                path = f"/predictions/{done['predictions'][1]['id']}/image"
                pixels = np.asarray(Image.open(io.BytesIO(api.download(path))).convert("RGB"))
                changed.append(float((pixels == PAINT).all(axis=2).mean()))
    assert 0.2 < changed[0] < 0.95
    assert changed[1] == 1.0
