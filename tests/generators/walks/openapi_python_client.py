"""The main job with the client of openapi-python-client. Arguments: URL and photo."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from sartiq_backend_api_client import AuthenticatedClient, Client
from sartiq_backend_api_client.api.brands import create_brand
from sartiq_backend_api_client.api.exports import create_export, download_export, get_export
from sartiq_backend_api_client.api.generations import get_generation
from sartiq_backend_api_client.api.login import login
from sartiq_backend_api_client.api.organizations import create_organization
from sartiq_backend_api_client.api.predictions import get_prediction_image
from sartiq_backend_api_client.api.products import add_product_image, create_product
from sartiq_backend_api_client.api.resolution_presets import create_resolution_preset
from sartiq_backend_api_client.api.shootings import create_look, create_shooting
from sartiq_backend_api_client.api.shot_types import list_shot_types
from sartiq_backend_api_client.api.shots import approve_shot, generate_shot
from sartiq_backend_api_client.models import (
    Brand,
    BrandCreate,
    Export,
    ExportCreate,
    Generation,
    GuidelinesCreate,
    ImageFormat,
    LoginForm,
    Look,
    LookCreate,
    Organization,
    OrganizationCreate,
    Product,
    ProductCreate,
    ProductImage,
    ProductImageType,
    ProductImageUpload,
    ResolutionPreset,
    ResolutionPresetCreate,
    Shooting,
    ShootingCreate,
    Shot,
    ShotApprove,
    ShotGenerate,
    ShotTypePage,
    Token,
)
from sartiq_backend_api_client.types import File

Model = TypeVar("Model")


def expect(model: type[Model], response: object) -> Model:
    """Return the response if it is an instance of the model; otherwise raise `TypeError` with its content."""
    if not isinstance(response, model):
        raise TypeError(f"not a {model.__name__}: {response}")
    return response


def main(url: str, photo: Path) -> None:
    form = LoginForm(username="demo@example.com", password="sartiq-demo")
    token = expect(Token, login.sync(client=Client(base_url=url), body=form))
    client = AuthenticatedClient(base_url=url, token=token.access_token, timeout=None)

    created = create_organization.sync(client=client, body=OrganizationCreate(name="openapi-python-client"))
    owner = expect(Organization, created).id
    brand = expect(
        Brand, create_brand.sync(client=client, organization_id=owner, body=BrandCreate(name="Linea"))
    )
    product_body = ProductCreate(name="Wrap dress", sku="OP-1", brand_id=brand.id)
    product = expect(Product, create_product.sync(client=client, organization_id=owner, body=product_body))
    with photo.open("rb") as file:
        upload = ProductImageUpload(
            file=File(payload=file, file_name="dress.jpg", mime_type="image/jpeg"),
            type_=ProductImageType.PRIMARY,
        )
        expect(ProductImage, add_product_image.sync(product.id, client=client, body=upload))

    preset_body = ResolutionPresetCreate(name="Small", width=192, height=256)
    preset = expect(
        ResolutionPreset,
        create_resolution_preset.sync(client=client, organization_id=owner, body=preset_body),
    )
    guidelines = GuidelinesCreate(name="Shop", file_format=ImageFormat.JPEG, resolution_preset_id=preset.id)
    due_date = datetime.now(UTC) + timedelta(days=7)
    shooting_body = ShootingCreate(
        name="Spring", due_date=due_date, brand_id=brand.id, default_guidelines=guidelines
    )
    shooting = expect(
        Shooting, create_shooting.sync(client=client, organization_id=owner, body=shooting_body)
    )
    shot_types = expect(ShotTypePage, list_shot_types.sync(client=client, limit=1))
    look_body = LookCreate(main_product_id=product.id, shot_type_ids=[shot_types.data[0].id])
    (shot,) = expect(Look, create_look.sync(shooting.id, client=client, body=look_body)).shots

    generate_body = ShotGenerate(num_predictions=2, seed=2041)
    generation = expect(Generation, generate_shot.sync(shot.id, client=client, body=generate_body))
    while generation.status in ("pending", "running"):
        generation = expect(Generation, get_generation.sync(generation.id, client=client, prefer="wait=30"))
    assert generation.status == "completed", generation.error
    best = generation.predictions[0]
    approval = ShotApprove(prediction_id=best.id)
    approved = expect(Shot, approve_shot.sync(shot.id, client=client, body=approval))
    assert approved.status == "approved"
    image = get_prediction_image.sync_detailed(best.id, client=client).content

    export = expect(Export, create_export.sync(shooting.id, client=client, body=ExportCreate()))
    while export.status in ("pending", "running"):
        time.sleep(0.2)
        export = expect(Export, get_export.sync(export.id, client=client))
    assert export.status == "completed", export.error
    archive = download_export.sync_detailed(export.id, client=client).content

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
