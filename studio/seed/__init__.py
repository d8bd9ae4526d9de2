"""Fills a database once: with what every installation has and, outside production, with the demonstration.

Asking again costs a few small reads. Two processes may ask at once; the second one waits and finds the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text

from db.base import utc_now
from db.models.generations import Generation, GenerationStatus
from db.models.media import MediaResource, Upload, UploadStatus
from db.models.organizations import Organization, Role
from db.models.shootings import Shot
from db.models.users import User, email_key
from db.rls.session_role import SYSTEM
from db.session import Database, current_session, switch_role
from db.tenancy import Caller, caller_context
from studio.accounts.identity.passwords import PUBLISHED_PASSWORDS, hash_password
from studio.generations.create import request_generation
from studio.generations.lifecycle import transition
from studio.generations.request import GenerationRequest
from studio.generations.worker import queue
from studio.generations.worker.render_job import to_stored_image
from studio.media.backends import open_storage
from studio.media.images import normalise
from studio.media.storage import Storage, media_key
from studio.media.stored_image import StoredImage
from studio.seed.accounts import build_account_rows
from studio.seed.images.packshots import load_packshots
from studio.seed.rows import (
    GENERATION,
    PREDICTION,
    SYSTEM_COUNTS,
    UPLOAD,
    build_seed_id,
    build_system_rows,
    build_tenant_rows,
    get_seed_id,
    tenant_number,
)
from studio.settings import Settings

# Should this process die before the pictures are there, workers paint them once the lease is over.
LEASE_OWNER, LEASE = "seed", timedelta(seconds=60)
ADVISORY_LOCK = 0x5EED

IMAGES_DIR = Path(__file__).parent / "images"


def seed_database(database: Database, settings: Settings) -> None:
    """Add what is missing of the system's rows and, outside production, the demonstration if it is not there.

    With "contract" as the setting `seed`, both owners have a house in their organization and a personal one,
    and the recommended model makes small pictures only.
    """
    with_demonstration = settings.environment != "production"
    with database.transaction(write=False):
        if not _missing_ids() and (_has_demonstration() or not with_demonstration):
            return
    storage = open_storage(settings)
    for_contract = settings.seed == "contract"
    claims: list[queue.Lease] = []
    with database.transaction(write=True):
        _lock_seeding()
        _add_system(storage, for_contract)
        if with_demonstration and not _has_demonstration():
            claims = _add_demonstration(storage, for_contract)
    if claims:
        _complete_generations(database, storage, claims)


def _lock_seeding() -> None:
    """Let one process seed at a time until the transaction ends; SQLite has one writer anyway."""
    if current_session().get_bind().dialect.name == "postgresql":
        current_session().execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ADVISORY_LOCK})


def _missing_ids() -> set[UUID]:
    """The ids of the system's rows that the database does not have."""
    missing = set[UUID]()
    for model, count in SYSTEM_COUNTS.items():
        ids = {get_seed_id(model, number) for number in range(1, count + 1)}
        missing |= ids - _find_existing_ids(model, ids)
    return missing


def _find_existing_ids(model: Any, ids: set[UUID]) -> set[UUID]:
    return set(current_session().scalars(select(model.id).where(model.id.in_(ids))))


def _has_demonstration() -> bool:
    keys = [email_key(email) for email in PUBLISHED_PASSWORDS]
    return bool(
        current_session().scalar(select(func.count()).select_from(User).where(User.email_key.in_(keys)))
    )


def _add(rows: Iterable[Any]) -> None:
    """Insert rows in the order given, so that each finds what it refers to."""
    for row in rows:
        current_session().add(row)
        current_session().flush()


def _add_system(storage: Storage, for_contract: bool) -> None:
    """Insert the system's rows that are missing; those that are there keep what superusers made of them."""
    missing = _missing_ids()
    if not missing:
        return
    mannequins = [_load_image("mannequin_front.webp"), _load_image("mannequin_three_quarter.webp")]
    rows: list[Any] = list(build_system_rows(mannequins, for_contract))
    media = [row for row in rows if isinstance(row, MediaResource)]
    for row, picture in zip(media, mannequins, strict=True):
        _write_file(storage, row, picture)
    missing |= {row.id for row in media} - _find_existing_ids(MediaResource, {row.id for row in media})
    _add(row for row in rows if row.id in missing)


def _load_image(name: str) -> StoredImage:
    return normalise((IMAGES_DIR / name).read_bytes())


def _write_file(storage: Storage, media: MediaResource, image: StoredImage) -> None:
    storage.write(media_key(media.id, media.extension), image.data)


def _add_demonstration(storage: Storage, for_contract: bool) -> list[queue.Lease]:
    """Add accounts and houses. The first generation of each house is handed back, claimed."""
    _add(
        build_account_rows(
            {email: hash_password(password) for email, password in PUBLISHED_PASSWORDS.items()}
        )
    )
    demo, second = get_seed_id(User, 1), get_seed_id(User, 2)
    houses: dict[int, tuple[UUID, UUID | None]] = {1: (demo, get_seed_id(Organization, 1))}
    if for_contract:
        houses |= {2: (second, get_seed_id(Organization, 2)), 3: (demo, None), 4: (second, None)}
    return [
        _add_tenant(storage, house, owner_id, organization_id, for_contract)
        for house, (owner_id, organization_id) in houses.items()
    ]


def _add_tenant(
    storage: Storage, tenant: int, owner_id: UUID, organization_id: UUID | None, for_contract: bool
) -> queue.Lease:
    scope = {"owner_id": owner_id, "organization_id": organization_id}
    photograph = _load_image("dress.jpg")
    rows = list(build_tenant_rows(tenant, scope, photograph, for_contract))
    _add(rows)
    media = next(row for row in rows if isinstance(row, MediaResource))
    _write_file(storage, media, photograph)
    current_session().add(
        Upload(
            id=build_seed_id(UPLOAD, tenant_number(tenant, 1)),
            filename="linen-wrap-dress.jpg",
            content_type="image/jpeg",
            status=UploadStatus.INGESTED,
            media_resource_id=media.id,
            expires_at=utc_now(),
            **scope,
        )
    )
    shot = next(row for row in rows if isinstance(row, Shot))
    return _lease_generation(_request_first_generation(tenant, owner_id, organization_id, shot))


def _request_first_generation(
    tenant: int, owner_id: UUID, organization_id: UUID | None, shot: Shot
) -> Generation:
    """The first generation of a house, asked for as its owner would and paid for, under its fixed id."""
    roles = {organization_id: str(Role.OWNER)} if organization_id else {}
    request = GenerationRequest(shot_id=shot.id, batch_size=2, seed=2041, width=768, height=1024)
    with caller_context(Caller(user_id=owner_id, email="", roles=roles), permission=None):
        generation = request_generation(request, organization_id, shot)
    switch_role(SYSTEM)
    # The shot names its generation: it lets go while the id changes.
    shot.generation_id = None
    current_session().flush()
    generation.id = build_seed_id(GENERATION, tenant_number(tenant, 1))
    # Whoever paints, the pictures get the ids that the contract's examples name.
    numbers = range(1, generation.batch_size + 1)
    ids = [str(build_seed_id(PREDICTION, tenant_number(tenant, number))) for number in numbers]
    generation.inputs = {**generation.inputs, "prediction_ids": ids}
    current_session().flush()
    shot.generation_id = generation.id
    return generation


def _lease_generation(generation: Generation) -> queue.Lease:
    """Claim a generation that no worker can see yet."""
    transition(generation, GenerationStatus.RUNNING)
    generation.attempts = 1
    generation.lease_owner, generation.lease_expires_at = LEASE_OWNER, utc_now() + LEASE
    current_session().flush()
    return queue.to_lease(generation, LEASE_OWNER)


def _complete_generations(database: Database, storage: Storage, claims: Iterable[queue.Lease]) -> None:
    """Record the pictures of the houses, which all ordered the same, as a worker does that painted them."""
    pictures = [(picture, to_stored_image(picture)) for picture in load_packshots()]
    for claim in claims:
        made = [queue.store_rendered_file(storage, claim, picture, stored) for picture, stored in pictures]
        queue.try_complete(database, storage, claim, made)
