"""The main job with the Python client of openapi-generator. Arguments: URL and photo."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sartiq


def main(url: str, photo: Path) -> None:
    configuration = sartiq.Configuration(host=url)
    client = sartiq.ApiClient(configuration)
    token = sartiq.LoginApi(client).login(username="demo@example.com", password="sartiq-demo")
    configuration.access_token = token.access_token

    organization = sartiq.OrganizationsApi(client).create_organization(
        sartiq.OrganizationCreate(name="openapi-generator")
    )
    brand = sartiq.BrandsApi(client).create_brand(
        sartiq.BrandCreate(name="Linea"), organization_id=organization.id
    )
    products = sartiq.ProductsApi(client)
    product = products.create_product(
        sartiq.ProductCreate(name="Wrap dress", sku="OG-1", brand_id=brand.id),
        organization_id=organization.id,
    )
    image = products.add_product_image(
        product.id, file=("dress.jpg", photo.read_bytes()), type=sartiq.ProductImageType.PRIMARY
    )
    assert image.type is sartiq.ProductImageType.PRIMARY

    preset = sartiq.ResolutionPresetsApi(client).create_resolution_preset(
        sartiq.ResolutionPresetCreate(name="Small", width=192, height=256), organization_id=organization.id
    )
    shootings = sartiq.ShootingsApi(client)
    shooting = shootings.create_shooting(
        sartiq.ShootingCreate(
            name="Spring",
            due_date=datetime.now(UTC) + timedelta(days=7),
            brand_id=brand.id,
            default_guidelines=sartiq.GuidelinesCreate(
                name="Shop", file_format=sartiq.ImageFormat.JPEG, resolution_preset_id=preset.id
            ),
        ),
        organization_id=organization.id,
    )
    shot_types = sartiq.ShotTypesApi(client).list_shot_types(limit=1)
    look = shootings.create_look(
        shooting.id, sartiq.LookCreate(main_product_id=product.id, shot_type_ids=[shot_types.data[0].id])
    )
    (shot,) = look.shots

    shots = sartiq.ShotsApi(client)
    generations = sartiq.GenerationsApi(client)
    # The annotation of the client is the type of the first status, which is the estimate of `validate_only`.
    ordered: object = shots.generate_shot(
        shot.id, shot_generate=sartiq.ShotGenerate(num_predictions=2, seed=2041)
    )
    assert isinstance(ordered, sartiq.Generation)
    generation = generations.get_generation(ordered.id, prefer="wait=30")
    while generation.status in ("pending", "running"):
        generation = generations.get_generation(ordered.id, prefer="wait=30")
    assert generation.status == "completed", generation.error
    best = generation.predictions[0]
    approved = shots.approve_shot(shot.id, shot_approve=sartiq.ShotApprove(prediction_id=best.id))
    assert approved.status == "approved"
    picture = sartiq.PredictionsApi(client).get_prediction_image(best.id)

    exports = sartiq.ExportsApi(client)
    export = exports.create_export(shooting.id)
    while export.status in ("pending", "running"):
        time.sleep(0.2)
        export = exports.get_export(export.id)
    assert export.status == "completed", export.error
    archive = exports.download_export(export.id)

    result = {
        "product_id": str(product.id),
        "prediction_id": str(best.id),
        "image_sha256": hashlib.sha256(picture).hexdigest(),
        "export_id": str(export.id),
        "archive_sha256": hashlib.sha256(archive).hexdigest(),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
