"""The main job with the installed package `sartiq`. Prints the result as JSON. `mypy --strict` checks it.

Usage: `python journey_sync.py URL PHOTO FOLDER`
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sartiq import ConflictError, Sartiq, models


def main(url: str, photo: Path, folder: Path) -> None:
    """Go from a photo to an exported image."""
    with Sartiq(url, email="demo@example.com", password="sartiq-demo") as client:
        organization = client.organizations.create_organization(name="Atelier Python")
        client = client.with_options(organization_id=organization.id)
        brand = client.brands.create_brand(name="Linea")
        product = client.products.create_product(name="Wrap dress", sku="PY-1", brand_id=brand.id)
        client.products.add_product_image(product.id, file=photo, type="primary")
        client.products.add_product_image_from_url(product.id, file_url=client.upload(photo), type="detail")
        preset = client.resolution_presets.create_resolution_preset(name="Small", width=192, height=256)
        shooting = client.shootings.create_shooting(
            name="Spring",
            due_date=datetime.now(UTC) + timedelta(days=7),
            brand_id=brand.id,
            default_guidelines={"name": "Shop", "file_format": "JPEG", "resolution_preset_id": preset.id},
        )
        shot_types = client.shot_types.list_shot_types(include_public=True, limit=1)
        look = client.shootings.create_look(
            shooting.id, main_product_id=product.id, shot_type_ids=[shot_types.data[0].id]
        )
        (shot,) = look.shots
        estimate = client.shots.generate_shot(shot.id, num_predictions=2, validate_only=True)

        seen: list[int] = []

        def show(generation: models.Generation) -> None:
            seen.append(generation.progress)

        generation = client.shots.generate_shot(shot.id, num_predictions=2, seed=2041)
        generation = client.wait(generation, on_progress=show)
        best = max(generation.predictions, key=lambda prediction: prediction.quality.score)
        approved = client.shots.approve_shot(shot.id, prediction_id=best.id)
        image = client.predictions.get_prediction_image(best.id).save(folder / "image.jpg")
        export = client.wait(client.exports.create_export(shooting.id))
        archive = client.exports.download_export(export.id).save(folder / "approved.zip")
        events = [event.status for event in client.generations.stream_generation_events(generation.id)]
        try:
            client.products.create_product(name="Wrap dress", sku="PY-1")
        except ConflictError as error:
            problem = (error.status, error.code)
        result = {
            "prediction_id": best.id,
            "status": approved.status,
            "cost": estimate.cost_credits,
            "progress": seen[-1],
            "events": events,
            "images": [image.type for image in client.products.list_product_images(product.id, limit=1)],
            "content_hash": export.content_hash,
            "files": [str(image), str(archive)],
            "problem": problem,
        }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
