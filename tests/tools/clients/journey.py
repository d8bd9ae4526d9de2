"""The main flow as a customer writes it with the generated Python client; prints what came of it as JSON.

`python journey.py BASE_URL PHOTOGRAPH`, with `.clients/python` on the path. Checked by `mypy --strict`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from sartiq_client import AuthenticatedClient, Client
from sartiq_client.api.brands import create_brand
from sartiq_client.api.generations import get_generation
from sartiq_client.api.login import login
from sartiq_client.api.organizations import create_organization
from sartiq_client.api.predictions import get_prediction_image
from sartiq_client.api.products import add_product_image, create_product
from sartiq_client.api.resolution_presets import create_resolution_preset
from sartiq_client.api.shootings import create_look, create_shooting
from sartiq_client.api.shot_types import list_shot_types
from sartiq_client.api.shots import approve_shot, generate_shot
from sartiq_client.models import (
    Brand,
    BrandCreate,
    Generation,
    GenerationStatus,
    GuidelinesCreate,
    LoginForm,
    Look,
    LookCreate,
    Organization,
    OrganizationCreate,
    PictureFormat,
    Problem,
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
    ShotStatus,
    ShotTypePage,
    Token,
)
from sartiq_client.types import File

Model = TypeVar("Model")


def expect(kind: type[Model], answer: object) -> Model:
    """Return an answer of this kind; raise with the problem when it is another one."""
    if not isinstance(answer, kind):
        raise TypeError(f"not a {kind.__name__}: {answer}")
    return answer


def main(base_url: str, photo: Path) -> None:
    anonymous = Client(base_url=base_url)
    form = LoginForm(username="demo@example.com", password="sartiq-demo")
    token = expect(Token, login.sync(client=anonymous, body=form))
    client = AuthenticatedClient(
        base_url=base_url, token=token.access_token, timeout=None, raise_on_unexpected_status=True
    )

    made = create_organization.sync(client=client, body=OrganizationCreate(name="Atelier Python"))
    organization = expect(Organization, made)
    brand = expect(
        Brand,
        create_brand.sync(client=client, organization_id=organization.id, body=BrandCreate(name="Linea")),
    )
    wanted = ProductCreate(name="Wrap dress", sku="PY-1", brand_id=brand.id)
    product = expect(
        Product, create_product.sync(client=client, organization_id=organization.id, body=wanted)
    )
    with photo.open("rb") as file:
        upload = ProductImageUpload(
            file=File(payload=file, file_name="dress.jpg", mime_type="image/jpeg"),
            type_=ProductImageType.PRIMARY,
        )
        image = expect(ProductImage, add_product_image.sync(product.id, client=client, body=upload))
    assert image.type_ is ProductImageType.PRIMARY

    size = ResolutionPresetCreate(name="Small", width=192, height=256)
    preset = expect(
        ResolutionPreset,
        create_resolution_preset.sync(client=client, organization_id=organization.id, body=size),
    )
    guidelines = GuidelinesCreate(name="Shop", file_format=PictureFormat.JPEG, resolution_preset_id=preset.id)
    due_date = datetime.now(UTC) + timedelta(days=7)
    plan = ShootingCreate(name="Spring", due_date=due_date, brand_id=brand.id, default_guidelines=guidelines)
    shooting = expect(
        Shooting, create_shooting.sync(client=client, organization_id=organization.id, body=plan)
    )
    shot_types = expect(ShotTypePage, list_shot_types.sync(client=client, limit=1))
    wish = LookCreate(main_product_id=product.id, shot_type_ids=[shot_types.data[0].id])
    look = expect(Look, create_look.sync(shooting.id, client=client, body=wish))
    (shot,) = look.shots
    assert shot.status is ShotStatus.PENDING

    order = ShotGenerate(num_predictions=2, seed=2041)
    generation = expect(Generation, generate_shot.sync(shot.id, client=client, body=order))
    while generation.status in (GenerationStatus.PENDING, GenerationStatus.RUNNING):
        generation = expect(Generation, get_generation.sync(generation.id, client=client, prefer="wait=30"))
    assert generation.status is GenerationStatus.COMPLETED, generation.error
    best = generation.predictions[0]
    approval = ShotApprove(prediction_id=best.id)
    approved = expect(Shot, approve_shot.sync(shot.id, client=client, body=approval))
    assert approved.status is ShotStatus.APPROVED
    picture = expect(File, get_prediction_image.sync(best.id, client=client)).payload.read()

    refused = create_product.sync(client=client, organization_id=organization.id, body=wanted)
    problem = expect(Problem, refused)
    result = {
        "prediction_id": str(best.id),
        "sha256": hashlib.sha256(picture).hexdigest(),
        "problem": [problem.status, problem.code],
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
