"""Create approved predictions with stored files, and unpack export archives."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

from db.models import Prediction
from studio.infrastructure.storage import Storage, media_key
from tests.support import factories
from tests.support.scenarios import PhotographedProduct


def make_approved_prediction(
    storage: Storage, scenario: PhotographedProduct, data: bytes, product: str = "Linen dress", **values: Any
) -> Prediction:
    """Create an approved prediction with this file, of a new shot that is approved with it."""
    ownership = scenario.ownership
    sku = values.pop("sku", None)
    product_id = factories.make_product(**ownership, name=product, sku=sku).id
    look = factories.make_look(
        scenario.shooting, main_product_id=product_id, shot_type_ids=[scenario.shot_type.id]
    )
    shot = factories.make_shot(look, shot_type_id=scenario.shot_type.id, status="approved")
    generation = factories.make_generation(shot, model_id=scenario.model.id, status="completed")
    media = factories.make_media(
        **ownership,
        content_hash=hashlib.sha256(data).hexdigest(),
        file_size=len(data),
        extension="webp",
        content_type="image/webp",
    )
    storage.write(media_key(media.id, media.extension), data)
    prediction = factories.make_prediction(
        generation,
        media_id=media.id,
        content_hash=media.content_hash,
        file_size=len(data),
        **{"status": "approved", **values},
    )
    shot.approved_prediction_id = prediction.id
    factories.make(shot)
    return prediction


def unpack_archive(archive: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of an export archive without its manifests, and the parsed manifest.json."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        files = {entry.filename: opened.read(entry) for entry in opened.infolist()}
    manifest: dict[str, Any] = json.loads(files.pop("manifest.json"))
    files.pop("manifest.csv")
    return files, manifest
