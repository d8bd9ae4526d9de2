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

from db.actors import SYSTEM
from db.base import utc_now
from db.models.generations import Generation, GenerationStatus
from db.models.media import MediaResource, Upload, UploadStatus
from db.models.organizations import Organization, Role
from db.models.shootings import Shot
from db.models.users import User, email_key
from db.session import Database, act_as, session
from db.tenancy import Caller, use_caller
from studio.generation import request_generation
from studio.identity.passwords import PUBLISHED_PASSWORDS, hash_password
from studio.jobs import queue
from studio.jobs.painting import as_stored
from studio.lifecycle import advance
from studio.media.backends import open_storage
from studio.media.picture import Picture, normalise
from studio.media.storage import Storage, media_key
from studio.samples.packshots import packshots
from studio.seed_accounts import account_rows
from studio.seed_rows import (
    GENERATION,
    PREDICTION,
    SYSTEM_COUNTS,
    UPLOAD,
    house_number,
    house_rows,
    id_of,
    seed_id,
    system_rows,
)
from studio.settings import Settings

# Should this process die before the pictures are there, workers paint them once the lease is over.
LEASE_OWNER, LEASE = "seed", timedelta(seconds=60)
ADVISORY_LOCK = 0x5EED

_SAMPLES = Path(__file__).parent / "samples"


def seed(database: Database, settings: Settings) -> None:
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
    claims: list[queue.Claim] = []
    with database.transaction(write=True):
        _wait_for_turn()
        _add_system(storage, for_contract)
        if with_demonstration and not _has_demonstration():
            claims = _add_demonstration(storage, for_contract)
    if claims:
        _hand_in(database, storage, claims)


def _wait_for_turn() -> None:
    """Let one process seed at a time until the transaction ends; SQLite has one writer anyway."""
    if session().get_bind().dialect.name == "postgresql":
        session().execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ADVISORY_LOCK})


def _missing_ids() -> set[UUID]:
    """The ids of the system's rows that the database does not have."""
    missing = set[UUID]()
    for model, count in SYSTEM_COUNTS.items():
        ids = {id_of(model, number) for number in range(1, count + 1)}
        missing |= ids - _present(model, ids)
    return missing


def _present(model: Any, ids: set[UUID]) -> set[UUID]:
    return set(session().scalars(select(model.id).where(model.id.in_(ids))))


def _has_demonstration() -> bool:
    keys = [email_key(email) for email in PUBLISHED_PASSWORDS]
    return bool(session().scalar(select(func.count()).select_from(User).where(User.email_key.in_(keys))))


def _add(rows: Iterable[Any]) -> None:
    """Insert rows in the order given, so that each finds what it refers to."""
    for row in rows:
        session().add(row)
        session().flush()


def _add_system(storage: Storage, for_contract: bool) -> None:
    """Insert the system's rows that are missing; those that are there keep what superusers made of them."""
    missing = _missing_ids()
    if not missing:
        return
    mannequins = [_picture("mannequin_front.webp"), _picture("mannequin_three_quarter.webp")]
    rows: list[Any] = list(system_rows(mannequins, for_contract))
    media = [row for row in rows if isinstance(row, MediaResource)]
    for row, picture in zip(media, mannequins, strict=True):
        _write(storage, row, picture)
    missing |= {row.id for row in media} - _present(MediaResource, {row.id for row in media})
    _add(row for row in rows if row.id in missing)


def _picture(name: str) -> Picture:
    return normalise((_SAMPLES / name).read_bytes())


def _write(storage: Storage, media: MediaResource, picture: Picture) -> None:
    storage.write(media_key(media.id, media.extension), picture.data)


def _add_demonstration(storage: Storage, for_contract: bool) -> list[queue.Claim]:
    """Add accounts and houses. The first generation of each house is handed back, claimed."""
    _add(account_rows({email: hash_password(password) for email, password in PUBLISHED_PASSWORDS.items()}))
    demo, second = id_of(User, 1), id_of(User, 2)
    houses: dict[int, tuple[UUID, UUID | None]] = {1: (demo, id_of(Organization, 1))}
    if for_contract:
        houses |= {2: (second, id_of(Organization, 2)), 3: (demo, None), 4: (second, None)}
    return [
        _add_house(storage, house, owner_id, organization_id, for_contract)
        for house, (owner_id, organization_id) in houses.items()
    ]


def _add_house(
    storage: Storage, house: int, owner_id: UUID, organization_id: UUID | None, for_contract: bool
) -> queue.Claim:
    scope = {"owner_id": owner_id, "organization_id": organization_id}
    photograph = _picture("dress.jpg")
    rows = list(house_rows(house, scope, photograph, for_contract))
    _add(rows)
    media = next(row for row in rows if isinstance(row, MediaResource))
    _write(storage, media, photograph)
    session().add(
        Upload(
            id=seed_id(UPLOAD, house_number(house, 1)),
            filename="linen-wrap-dress.jpg",
            content_type="image/jpeg",
            status=UploadStatus.INGESTED,
            media_resource_id=media.id,
            expires_at=utc_now(),
            **scope,
        )
    )
    shot = next(row for row in rows if isinstance(row, Shot))
    return _claimed(_order(house, owner_id, organization_id, shot))


def _order(house: int, owner_id: UUID, organization_id: UUID | None, shot: Shot) -> Generation:
    """The first generation of a house, asked for as its owner would and paid for, under its fixed id."""
    roles = {organization_id: str(Role.OWNER)} if organization_id else {}
    order = {
        "batch_size": 2,
        "seed": 2041,
        "width": 768,
        "height": 1024,
        "shot_id": shot.id,
    }
    with use_caller(Caller(user_id=owner_id, email="", roles=roles), permission=None):
        generation = request_generation(order, organization_id, shot, lambda _address, _scope: None)
    act_as(SYSTEM)
    # The shot names its generation: it lets go while the id changes.
    shot.generation_id = None
    session().flush()
    generation.id = seed_id(GENERATION, house_number(house, 1))
    # Whoever paints, the pictures get the ids that the contract's examples name.
    numbers = range(1, generation.batch_size + 1)
    ids = [str(seed_id(PREDICTION, house_number(house, number))) for number in numbers]
    generation.inputs = {**generation.inputs, "prediction_ids": ids}
    session().flush()
    shot.generation_id = generation.id
    return generation


def _claimed(generation: Generation) -> queue.Claim:
    """Claim a generation that no worker can see yet."""
    advance(generation, GenerationStatus.RUNNING)
    generation.attempts = 1
    generation.lease_owner, generation.lease_expires_at = LEASE_OWNER, utc_now() + LEASE
    session().flush()
    return queue.claim_of(generation, LEASE_OWNER)


def _hand_in(database: Database, storage: Storage, claims: Iterable[queue.Claim]) -> None:
    """Record the pictures of the houses, which all ordered the same, as a worker does that painted them."""
    pictures = [(picture, as_stored(picture)) for picture in packshots()]
    for claim in claims:
        made = [queue.store_picture(storage, claim, picture, stored) for picture, stored in pictures]
        queue.finish(database, storage, claim, made)
