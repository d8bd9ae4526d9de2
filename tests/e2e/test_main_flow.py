"""Test of the main flow over HTTP: from a phone photo to an approved, exported and shared image."""

from __future__ import annotations

import hashlib
import io
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.generation_steps import SECONDS_TO_WAIT, prepare_look, wait_for_generation
from tests.support.factories.exports import unpack_archive
from tests.support.servers.s3 import run_s3_server
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.server import running_server


def check_export(api: Api, shooting_id: str, prediction_id: str, image: bytes) -> None:
    """Export the approved prediction; check the archive, its headers and a conditional download."""
    export = api.post(f"/shootings/{shooting_id}/exports", json={"name_template": "{shot_type}"})
    assert (export["status"], export["predictions_count"]) == ("pending", 1)
    began = time.monotonic()
    while export["status"] != "completed":
        assert time.monotonic() - began < SECONDS_TO_WAIT, f"the export is still {export['status']}"
        time.sleep(0.05)
        export = api.get(f"/exports/{export['id']}")
    archive = api.client.get(f"/exports/{export['id']}/file")
    assert archive.headers["content-type"] == "application/zip"
    assert archive.headers["etag"] == f'"{export["content_hash"]}"'
    assert int(archive.headers["content-length"]) == len(archive.content) == export["file_size"]
    assert hashlib.sha256(archive.content).hexdigest() == export["content_hash"]
    files, manifest = unpack_archive(archive.content)
    assert list(files.values()) == [image]
    assert [entry["prediction_id"] for entry in manifest["files"]] == [prediction_id]
    again = api.client.get(archive.url, headers={"If-None-Match": archive.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert api.get(f"/predictions/{prediction_id}")["status"] == "exported"
    assert api.get(f"/shootings/{shooting_id}")["shots_approved_count"] == 1


@pytest.fixture(
    params=[
        "disk",
        pytest.param("bucket", marks=pytest.mark.slow("tests/studio/test_media_s3.py covers buckets")),
    ]
)
def media(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The settings of each storage backend; on the bucket, the network finds the product."""
    if request.param == "disk":
        yield {"MASK_MODEL": "color"}
        return
    with run_s3_server() as (url, bucket):
        yield {"MEDIA_URL": f"s3://{bucket}/media", "S3_ENDPOINT_URL": url}


def test_a_phone_photo_becomes_four_images_of_which_one_is_approved_and_exported(
    tmp_path: Path, media: dict[str, str]
) -> None:
    with running_server(tmp_path, **media) as server, Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        look = prepare_look(api, 384, 512, "JPEG")
        assert [shot["status"] for shot in look["shots"]] == ["pending", "pending"]
        shot_id = look["shots"][0]["id"]

        requested = api.post(f"/shots/{shot_id}/generate", json={"num_predictions": 4})
        assert requested["status"] == "pending"
        done = wait_for_generation(api, requested["id"], "completed", "failed")
        assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None)

        files = [api.download(f"/predictions/{row['id']}/image") for row in done["predictions"]]
        images = [Image.open(io.BytesIO(file)) for file in files]
        assert [(image.format, image.size) for image in images] == [("JPEG", (384, 512))] * 4
        pixels = [np.asarray(image.convert("RGB"), dtype=np.int16) for image in images]
        for left, right in itertools.combinations(pixels, 2):
            assert np.abs(left - right).mean() > 1, "two images look the same"

        first, *others = [row["id"] for row in done["predictions"]]
        shot = api.post(f"/shots/{shot_id}/approve", json={"prediction_id": first})
        assert (shot["status"], shot["approved_prediction_id"]) == ("approved", first)
        states = {row["id"]: row["status"] for row in api.get("/predictions/", shot_id=shot_id)["data"]}
        assert states == {first: "approved", **dict.fromkeys(others, "pending_review")}
        assert api.get(f"/shootings/{look['shooting_id']}")["shots_approved_count"] == 1

        check_export(api, look["shooting_id"], first, files[0])
        link = api.post(f"/predictions/{first}/share", json={})["url"]
        del api.client.headers["Authorization"]
        assert api.client.get(link).content == files[0]
