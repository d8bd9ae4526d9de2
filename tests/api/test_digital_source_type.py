"""How an image was made, through the API: in the prediction, in each file of it, and in exports."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import select

from db.models import Generation, MediaResource, Prediction
from db.session import Database
from handlers.app import Application
from studio.exports.worker import run_pending_exports
from studio.infrastructure.storage import LocalDisk, media_key
from studio.media.normalization import normalize
from tests.api.conftest import Client
from tests.support.digital_source_types import (
    VOCABULARY,
    build_foreign_packet,
    read_source_type,
)
from tests.support.factories.exports import make_approved_prediction, unpack_archive
from tests.support.queues import build_worker
from tests.support.scenarios import PhotographedProduct, make_product_photo, run_pending_generations

GENERATED = "trainedAlgorithmicMedia"


@pytest.fixture
def generate(client: Client, scenario: PhotographedProduct, database: Database, storage: LocalDisk) -> Any:
    """Return a function that requests one image of the scenario's shot and returns the prediction."""

    def run(**body: Any) -> dict[str, Any]:
        body = {"shot_id": str(scenario.shot.id), "seed": 7, **body}
        response = client("POST", f"/generations/?organization_id={scenario.organization.id}", body)
        assert response.status == 202, response.body
        run_pending_generations(database, storage)
        generation_id = response.json()["id"]
        (prediction,) = client("GET", f"/predictions/?generation_id={generation_id}").json()["data"]
        return dict(prediction)

    return run


def build_marked_photo() -> bytes:
    """Return the photo of the product with a packet: the same pixels, of which tests reuse the cut-out."""
    photo = make_product_photo()
    packet = b"http://ns.adobe.com/xap/1.0/\0" + build_foreign_packet(VOCABULARY + GENERATED)
    return photo[:2] + b"\xff\xe1" + (len(packet) + 2).to_bytes(2, "big") + packet + photo[2:]


def test_a_prediction_of_the_local_studio_says_in_each_file_that_it_is_a_composite(
    client: Client, client_for: Callable[..., Client], app: Application, generate: Any
) -> None:
    prediction = generate()
    assert prediction["provenance"]["digital_source_type"] == "composite"
    path = f"/predictions/{prediction['id']}/image"
    image = client("GET", path).body
    assert hashlib.sha256(image).hexdigest() == prediction["content_hash"]
    assert len(image) == prediction["file_size"]
    link = client("POST", f"/predictions/{prediction['id']}/share").json()["url"]
    shared = client_for(None)("GET", link.removeprefix(f"{app.settings.public_url}/api/v1"))
    assert shared.body == image
    variants = [f"{path}?width=64", *(f"{path}?format={name}" for name in ("jpeg", "png", "webp", "avif"))]
    files = [image, *(client("GET", variant).body for variant in variants)]
    assert [read_source_type(file) for file in files] == ["composite"] * 6


def test_a_retouched_prediction_was_made_as_its_source(generate: Any, client: Client) -> None:
    source = generate()
    retouched = generate(shot_id=None, source_prediction_id=source["id"], generation_strategy="REFINE")
    assert retouched["provenance"]["digital_source_type"] == "composite"
    assert read_source_type(client("GET", f"/predictions/{retouched['id']}/image").body) == "composite"


@pytest.mark.parametrize(
    ("strategy", "expected"), [("REFINE", GENERATED), ("BACKGROUND_FIXING", "compositeSynthetic")]
)
def test_the_provider_tells_how_a_source_of_version_010_was_made(
    generate: Any, database: Database, strategy: str, expected: str
) -> None:
    source = generate()
    with database.transaction(write=True) as writing:
        row = writing.scalars(select(Prediction).where(Prediction.id == UUID(source["id"]))).one()
        row.provenance = {
            name: value for name, value in row.provenance.items() if name != "digital_source_type"
        } | {"provider": "COMPUTE"}
        query = select(Generation).where(Generation.id == row.generation_id)
        # Without the photo of the product: the background is exchanged in the image.
        writing.scalars(query).one().inputs = {}
    retouched = generate(shot_id=None, source_prediction_id=source["id"], generation_strategy=strategy)
    assert retouched["provenance"]["digital_source_type"] == expected


def test_a_photo_that_generative_ai_made_makes_the_composite_synthetic(
    generate: Any, client: Client, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    key = media_key(scenario.media.id, scenario.media.extension)
    storage.write(key, normalize(build_marked_photo()).data)
    prediction = generate()
    assert prediction["provenance"]["digital_source_type"] == "compositeSynthetic"
    assert (
        read_source_type(client("GET", f"/predictions/{prediction['id']}/image").body) == "compositeSynthetic"
    )


def test_an_uploaded_image_keeps_its_source_and_no_other_metadata(
    client: Client, scenario: PhotographedProduct, storage: LocalDisk, database: Database
) -> None:
    boundary, photo = "boundary", build_marked_photo()
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="type"\r\n\r\nback\r\n--{boundary}\r\n'
        'content-disposition: form-data; name="file"; filename="a.jpg"\r\ncontent-type: image/jpeg\r\n\r\n'
    )
    response = client(
        "POST",
        f"/products/{scenario.product.id}/images",
        body=head.encode() + photo + f"\r\n--{boundary}--\r\n".encode(),
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    assert response.status == 201, response.body
    with database.transaction(write=False) as reading:
        query = select(MediaResource).where(MediaResource.id != scenario.media.id)
        stored = reading.scalars(query.order_by(MediaResource.id.desc()).limit(1)).one()
    data = storage.read(media_key(stored.id, stored.extension))
    assert read_source_type(data) == GENERATED
    assert b"Secret Town" not in data


def test_an_export_has_the_marked_files_and_the_source_in_both_manifests(
    client: Client, generate: Any, scenario: PhotographedProduct, database: Database, storage: LocalDisk
) -> None:
    prediction = generate()
    assert client("POST", f"/predictions/{prediction['id']}/approve", {}).status == 200
    export = client("POST", f"/shootings/{scenario.shooting.id}/exports", {}).json()
    run_pending_exports(build_worker(database, storage))
    archive = client("GET", f"/exports/{export['id']}/file").body
    files, manifest = unpack_archive(archive)
    ((name, data),) = files.items()
    assert read_source_type(data) == "composite"
    (entry,) = manifest["files"]
    assert (entry["file_name"], entry["sha256"]) == (name, prediction["content_hash"])
    assert entry["digital_source_type"] == entry["provenance"]["digital_source_type"] == "composite"
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        text = opened.read("manifest.csv").decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["digital_source_type"] == "composite"


def test_a_prediction_of_version_010_keeps_its_bytes_and_says_nothing(
    client: Client, scenario: PhotographedProduct, storage: LocalDisk
) -> None:
    stored = io.BytesIO()
    Image.new("RGB", (600, 800), "#8a4b3c").save(stored, "WEBP")
    row = make_approved_prediction(storage, scenario, stored.getvalue())
    assert "digital_source_type" not in row.provenance
    prediction = client("GET", f"/predictions/{row.id}").json()
    assert prediction["provenance"] == {"digital_source_type": None, **row.provenance}
    path = f"/predictions/{row.id}/image"
    assert client("GET", path).body == stored.getvalue()
    assert read_source_type(client("GET", f"{path}?format=png").body) is None
