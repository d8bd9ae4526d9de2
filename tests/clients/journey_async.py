"""The main job with the installed package `sartiq`. Prints the result as JSON. `mypy --strict` checks it.

Usage: `python journey_async.py URL PHOTO FOLDER`
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from sartiq import AsyncSartiq, ConflictError, models


async def main(url: str, photo: Path, folder: Path) -> None:
    """Go from a photo to an exported image."""
    async with AsyncSartiq(url, email="demo@example.com", password="sartiq-demo") as client:
        organization = await client.organizations.create_organization(name="Atelier Python async")
        client = client.with_options(organization_id=organization.id)
        brand = await client.brands.create_brand(name="Linea")
        product = await client.products.create_product(name="Wrap dress", sku="PY-1", brand_id=brand.id)
        await client.products.add_product_image(product.id, file=photo, type="primary")
        await client.products.add_product_image_from_url(
            product.id, file_url=await client.upload(photo), type="detail"
        )
        preset = await client.resolution_presets.create_resolution_preset(name="Small", width=192, height=256)
        shooting = await client.shootings.create_shooting(
            name="Spring",
            due_date=datetime.now(UTC) + timedelta(days=7),
            brand_id=brand.id,
            default_guidelines={"name": "Shop", "file_format": "JPEG", "resolution_preset_id": preset.id},
        )
        shot_types = await client.shot_types.list_shot_types(include_public=True, limit=1)
        look = await client.shootings.create_look(
            shooting.id, main_product_id=product.id, shot_type_ids=[shot_types.data[0].id]
        )
        (shot,) = look.shots
        estimate = await client.shots.generate_shot(shot.id, num_predictions=2, validate_only=True)

        seen: list[int] = []

        def show(generation: models.Generation) -> None:
            seen.append(generation.progress)

        generation = await client.shots.generate_shot(shot.id, num_predictions=2, seed=2041)
        generation = await client.wait(generation, on_progress=show)
        best = max(generation.predictions, key=lambda prediction: prediction.quality.score)
        approved = await client.shots.approve_shot(shot.id, prediction_id=best.id)
        image = await (await client.predictions.get_prediction_image(best.id)).save(folder / "image.jpg")
        export = await client.wait(await client.exports.create_export(shooting.id))
        archive = await (await client.exports.download_export(export.id)).save(folder / "approved.zip")
        events = [event.status async for event in client.generations.stream_generation_events(generation.id)]
        try:
            await client.products.create_product(name="Wrap dress", sku="PY-1")
        except ConflictError as error:
            problem = (error.status, error.code)
        result = {
            "prediction_id": best.id,
            "status": approved.status,
            "cost": estimate.cost_credits,
            "progress": seen[-1],
            "events": events,
            "images": [
                image.type async for image in await client.products.list_product_images(product.id, limit=1)
            ],
            "content_hash": export.content_hash,
            "files": [str(image), str(archive)],
            "problem": problem,
        }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
