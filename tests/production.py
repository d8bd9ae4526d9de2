"""A small studio for tests: a customer with a product and a shot, and a queue that is worked off at once."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from PIL import Image, ImageDraw

from db.models import (
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
from db.session import Database
from studio.jobs import queue
from studio.jobs.painting import Painting
from studio.media.ingest import keep_picture
from studio.media.normalisation import normalise
from studio.media.storage import Storage
from tests import factories

LEASE = timedelta(seconds=60)
WIDTH, HEIGHT = 192, 256


def photograph() -> bytes:
    """A plain product in front of plain paper, as JPEG."""
    picture = Image.new("RGB", (400, 500), "#e9e6e1")
    pen = ImageDraw.Draw(picture)
    pen.polygon([(150, 80), (250, 80), (320, 420), (80, 420)], fill="#8a4b3c")
    for x in range(110, 300, 14):
        pen.line([(x, 200), (x + 6, 410)], fill="#743c30", width=3)
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=92)
    return target.getvalue()


def stored_picture(
    storage: Storage, database: Database | None, scope: dict[str, Any], data: bytes
) -> MediaResource:
    """A picture with its file, in the scope of the columns given; without a database in the transaction
    there is.
    """
    with database.transaction(write=True) if database else nullcontext():
        return keep_picture(storage, normalise(data), scope["organization_id"], scope["owner_id"])


@dataclass
class Production:
    """The rows of one customer who can order pictures."""

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
    def scope(self) -> dict[str, Any]:
        """The columns of rows of this customer."""
        return {"owner_id": self.owner.id, "organization_id": self.organization.id}


def make_production(storage: Storage, database: Database | None) -> Production:
    """A customer with 20 credits, guidelines for small pictures and one pending shot."""
    owner = factories.make_user()
    organization = factories.make_organization(owner)
    scope = {"owner_id": owner.id, "organization_id": organization.id}
    product = factories.make_product(**scope)
    media = stored_picture(storage, database, scope, photograph())
    factories.make_product_image(product, media_id=media.id, type="primary")
    resolution = factories.make_resolution_preset(**scope, width=WIDTH, height=HEIGHT)
    guidelines = factories.make_guidelines(**scope, resolution_preset_id=resolution.id)
    shot_type = factories.make_shot_type(**scope)
    shooting = factories.make_shooting(**scope, default_guidelines_id=guidelines.id)
    look = factories.make_look(shooting, main_product_id=product.id, shot_type_ids=[shot_type.id])
    return Production(
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


def work_off(database: Database, storage: Storage) -> int:
    """Carry out everything in the queue as a worker would; returns how many generations were finished."""
    finished = 0
    with ThreadPoolExecutor(2) as painters:
        while (claim := queue.claim_next(database, f"test-{finished}", LEASE)) is not None:
            painting = Painting(database, storage, painters, claim, LEASE, given_up=lambda: False)
            assert queue.finish(database, storage, claim, painting.carry_out())
            finished += 1
    return finished
