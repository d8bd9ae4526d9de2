"""The main job with the models of datamodel-code-generator and httpx. Arguments: URL and photo.

The models write each request and validate each response.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import httpx
import models
from pydantic import BaseModel, SecretStr

Model = TypeVar("Model", bound=BaseModel)


class Api:
    """Sends models and returns models."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.Client(timeout=90)

    def post(
        self, path: str, model: type[Model], body: BaseModel | None = None, owner: UUID | None = None
    ) -> Model:
        """Send a JSON body and return the response as an instance of the model."""
        response = self.client.post(
            self.url + path,
            json=body.model_dump(mode="json", exclude_unset=True) if body else {},
            params={"organization_id": str(owner)} if owner else None,
        ).raise_for_status()
        return model.model_validate_json(response.content)

    def get(self, path: str, model: type[Model], **headers: str) -> Model:
        """Return the response as an instance of the model."""
        response = self.client.get(self.url + path, headers=headers).raise_for_status()
        return model.model_validate_json(response.content)

    def download(self, path: str) -> bytes:
        """Return the bytes of the response."""
        return self.client.get(self.url + path).raise_for_status().content


def main(url: str, photo: Path) -> None:
    api = Api(url)
    password = SecretStr("sartiq-demo")
    form = models.LoginForm(username="demo@example.com", password=password)
    response = api.client.post(
        f"{url}/login/access-token",
        data={"username": form.username, "password": password.get_secret_value()},
    )
    token = models.Token.model_validate_json(response.raise_for_status().content)
    api.client.headers["Authorization"] = f"Bearer {token.access_token}"

    organization = api.post(
        "/organizations/",
        models.Organization,
        models.OrganizationCreate(name="datamodel-code-generator"),
    )
    owner = organization.id
    brand = api.post("/brands/", models.Brand, models.BrandCreate(name="Linea"), owner)
    product = api.post(
        "/products/",
        models.Product,
        models.ProductCreate(name="Wrap dress", sku="DC-1", brand_id=brand.id),
        owner,
    )
    response = api.client.post(
        f"{url}/products/{product.id}/images",
        files={"file": ("dress.jpg", photo.read_bytes(), "image/jpeg")},
        data={"type": models.ProductImageType.PRIMARY.value},
    )
    models.ProductImage.model_validate_json(response.raise_for_status().content)

    preset = api.post(
        "/resolution-presets/",
        models.ResolutionPreset,
        models.ResolutionPresetCreate(name="Small", width=192, height=256),
        owner,
    )
    shooting_body = models.ShootingCreate(
        name="Spring",
        due_date=datetime.now(UTC) + timedelta(days=7),
        brand_id=brand.id,
        default_guidelines=models.GuidelinesCreate(
            name="Shop", file_format=models.ImageFormat.JPEG, resolution_preset_id=preset.id
        ),
    )
    shooting = api.post("/shootings/", models.Shooting, shooting_body, owner)
    shot_types = api.get("/shot-types/?limit=1", models.ShotTypePage)
    look_body = models.LookCreate(
        main_product_id=product.id, shot_type_ids=[models.ShotTypeId(shot_types.data[0].id)]
    )
    (shot,) = api.post(f"/shootings/{shooting.id}/looks", models.Look, look_body).shots

    generate_body = models.ShotGenerate(num_predictions=2, seed=2041)
    generation = api.post(f"/shots/{shot.id}/generate", models.Generation, generate_body)
    while generation.status.root in ("pending", "running"):
        generation = api.get(f"/generations/{generation.id}", models.Generation, Prefer="wait=30")
    assert generation.status.root == "completed", generation.error
    best = generation.predictions[0]
    approval = models.ShotApprove(prediction_id=best.id)
    approved = api.post(f"/shots/{shot.id}/approve", models.Shot, approval)
    assert approved.status.root == "approved"
    image = api.download(f"/predictions/{best.id}/image")

    export = api.post(f"/shootings/{shooting.id}/exports", models.Export, models.ExportCreate())
    while export.status.root in ("pending", "running"):
        time.sleep(0.2)
        export = api.get(f"/exports/{export.id}", models.Export)
    assert export.status.root == "completed", export.error
    archive = api.download(f"/exports/{export.id}/file")

    # Pages of all rows that the job has, and of rows of the demo data.
    api.get("/products/", models.ProductPage)
    api.get("/generations/", models.GenerationPage)
    api.get("/predictions/", models.PredictionPage)
    api.get("/generation-models/", models.GenerationModelPage)

    result = {
        "product_id": str(product.id),
        "prediction_id": str(best.id),
        "image_sha256": hashlib.sha256(image).hexdigest(),
        "export_id": str(export.id),
        "archive_sha256": hashlib.sha256(archive).hexdigest(),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
