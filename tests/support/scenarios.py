"""Create the rows of a customer with a product and a shot, and run their generations."""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

from PIL import Image, ImageDraw
from sqlalchemy import select

from db.caller import caller_context
from db.models import (
    Generation,
    GenerationModel,
    Guidelines,
    Look,
    MediaResource,
    Organization,
    Product,
    Shooting,
    Shot,
    ShotType,
    Subscription,
    User,
)
from db.session import Database, current_session
from studio.generations import create
from studio.generations.request import GenerationRequest
from studio.generations.worker.executor import GenerationExecutor
from studio.generations.worker.queue import GenerationLease, RenderedFile
from studio.generations.worker.render_job import RenderJob
from studio.infrastructure.storage import Storage
from studio.media.ingest import store_image
from studio.media.normalization import normalize
from tests.support import factories
from tests.support.queues import build_worker, keep_lease

WIDTH, HEIGHT = 192, 256


@cache
def make_product_photo() -> bytes:
    """Return a JPEG of a plain product in front of a plain background."""
    image = Image.new("RGB", (400, 500), "#e9e6e1")
    draw = ImageDraw.Draw(image)
    draw.polygon([(150, 80), (250, 80), (320, 420), (80, 420)], fill="#8a4b3c")
    for x in range(110, 300, 14):
        draw.line([(x, 200), (x + 6, 410)], fill="#743c30", width=3)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=92)
    return target.getvalue()


def make_stored_image(
    storage: Storage, database: Database | None, ownership: dict[str, Any], data: bytes
) -> MediaResource:
    """Store an image and create its row.

    Args:
        storage: The storage of the file.
        database: The database, or None to use the running transaction.
        ownership: The columns `owner_id` and `organization_id`.
        data: The file.
    """
    with database.transaction(write=True) if database else nullcontext():
        return store_image(storage, normalize_once(data), ownership["organization_id"], ownership["owner_id"])


normalize_once = lru_cache(8)(normalize)
"""Return the normalized image of a file. Hundreds of tests store the same few images."""


@dataclass
class PhotographedProduct:
    """The rows of one customer who can request generations."""

    owner: User
    organization: Organization
    subscription: Subscription
    model: GenerationModel
    product: Product
    guidelines: Guidelines
    shot_type: ShotType
    shooting: Shooting
    look: Look
    shot: Shot
    media: MediaResource

    @property
    def ownership(self) -> dict[str, Any]:
        """The columns that make a row belong to the customer's organization."""
        return {"owner_id": self.owner.id, "organization_id": self.organization.id}


def make_photographed_product(storage: Storage, database: Database | None) -> PhotographedProduct:
    """Create a customer with 20 credits, guidelines for small images and one pending shot."""
    owner = factories.make_user()
    organization = factories.make_organization(owner)
    ownership = {"owner_id": owner.id, "organization_id": organization.id}
    product = factories.make_product(**ownership)
    media = make_stored_image(storage, database, ownership, make_product_photo())
    factories.make_product_image(product, media_id=media.id, type="primary")
    resolution = factories.make_resolution_preset(**ownership, width=WIDTH, height=HEIGHT)
    guidelines = factories.make_guidelines(**ownership, resolution_preset_id=resolution.id)
    shot_type = factories.make_shot_type(**ownership)
    shooting = factories.make_shooting(**ownership, default_guidelines_id=guidelines.id)
    look = factories.make_look(shooting, main_product_id=product.id, shot_type_ids=[shot_type.id])
    return PhotographedProduct(
        owner=owner,
        organization=organization,
        subscription=factories.make_subscription(owner, credits_total=20, credits_used=0),
        model=factories.make_generation_model(recommended=True),
        product=product,
        guidelines=guidelines,
        shot_type=shot_type,
        shooting=shooting,
        look=look,
        shot=factories.make_shot(look, shot_type_id=shot_type.id),
        media=media,
    )


def request_generation(
    parameters: Mapping[str, Any],
    organization_id: UUID | None,
    shot: Shot | None,
    product_media: MediaResource | None = None,
) -> Generation:
    """Create a generation with these parameters in the running transaction."""
    request = GenerationRequest(**parameters)
    return create.request_generation(
        request, organization_id, shot, product_media if request.product_image else None
    )


def create_pending_generation(database: Database, scenario: PhotographedProduct, **params: Any) -> UUID:
    """Create a pending, charged generation of the shot of the scenario, and return its id."""
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with database.transaction(write=True), caller_context(caller, None):
        shot = current_session().scalars(select(Shot).where(Shot.id == scenario.shot.id)).one()
        params = {"shot_id": shot.id, "seed": 7, "batch_size": 2, **params}
        return request_generation(params, shot.organization_id, shot).id


def run_pending_generations(database: Database, storage: Storage) -> int:
    """Run all pending generations as a worker does; return their number."""
    finished, executor = 0, GenerationExecutor(build_worker(database, storage), 2)
    try:
        while (lease := executor.lease_next()) is not None:
            executor.run(lease)
            finished += 1
    finally:
        executor.close()
    return finished


def render_files(database: Database, storage: Storage, lease: GenerationLease) -> list[RenderedFile]:
    """Render the predictions of a leased generation, which stays running."""
    worker = build_worker(database, storage)
    with ThreadPoolExecutor(2) as render_pool, keep_lease(worker) as heartbeat:
        return RenderJob(worker, render_pool, lease, heartbeat).run()


def get_row(database: Database, model: type[Any], row_id: UUID) -> Any:
    """Return a row as the database has it."""
    with database.transaction(write=False) as reading:
        return reading.scalars(
            select(model).where(model.id == row_id).execution_options(populate_existing=True)
        ).one()
