"""Seed a database: the system rows of every installation and, outside production, the demo data.

It adds what is missing, so it can run at every start: a second run costs a few small reads. If two processes
run it at the same time, the second one waits and finds the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text

from db.base import utc_now
from db.caller import Caller, caller_context
from db.models.comments import PredictionComment
from db.models.generations import (
    Generation,
    GenerationStatus,
    Prediction,
    PredictionShare,
    PredictionStatus,
)
from db.models.media import MediaResource, Upload, UploadStatus
from db.models.organizations import Membership, Organization, Role
from db.models.review_links import ReviewLink
from db.models.shootings import Shooting, Shot
from db.models.users import User, email_key
from db.rls.session_role import SYSTEM
from db.session import Database, current_session, switch_role
from studio.account_exports.create import request_account_export
from studio.account_exports.worker import run_pending_account_exports
from studio.accounts.identity.passwords import PUBLISHED_PASSWORDS, hash_password
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.exports.create import ExportRequest, create_export
from studio.exports.worker import run_pending_exports
from studio.generations.create import request_generation
from studio.generations.lifecycle import transition
from studio.generations.request import GenerationRequest
from studio.generations.worker import queue
from studio.generations.worker.render_job import to_stored_image
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import Storage, data_file_key, media_key
from studio.infrastructure.storage_backends import open_storage
from studio.media.images import normalize
from studio.media.stored_image import StoredImage
from studio.queue.running import Worker
from studio.seed.accounts import build_account_rows
from studio.seed.images.cutouts import load_cutout
from studio.seed.images.packshots import load_packshots
from studio.seed.product_imports import FILE, build_import_rows
from studio.seed.rows import (
    ACCOUNT_EXPORT,
    COMMENT,
    EXPORT,
    GENERATION,
    PREDICTION,
    REVIEW_LINK,
    SHARE,
    SYSTEM_COUNTS,
    UPLOAD,
    build_seed_id,
    build_system_rows,
    build_tenant_rows,
    get_seed_id,
    tenant_number,
)

# If this process dies before the predictions are stored, workers render them once the lease has expired.
LEASE_OWNER, LEASE_DURATION = "seed", timedelta(seconds=60)
ADVISORY_LOCK = 0x5EED
LINK_LIFETIME = timedelta(days=30)

IMAGES_DIR = Path(__file__).parent / "images"


def seed_database(database: Database, settings: Settings) -> None:
    """Add the missing system rows and, outside production, the demo data.

    With the setting `seed` set to "contract", both demo users get data in their organization and personal
    data, and the recommended model makes small images only.
    """
    with_demonstration = settings.environment != "production"
    with database.transaction(write=False):
        if not _missing_ids() and (_has_demonstration() or not with_demonstration):
            return
    storage = open_storage(settings)
    for_contract = settings.seed == "contract"
    leases: list[queue.GenerationLease] = []
    with database.transaction(write=True):
        _lock_seeding()
        _add_system(storage, for_contract)
        if with_demonstration and not _has_demonstration():
            leases = _add_demonstration(storage, for_contract)
    if leases:
        _complete_generations(database, storage, leases)


def _lock_seeding() -> None:
    """Let one process seed at a time, until the transaction ends."""
    current_session().execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ADVISORY_LOCK})


def _missing_ids() -> set[UUID]:
    """Return the ids of the system rows that are missing in the database."""
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
    """Insert rows in this order, so that foreign keys refer to existing rows."""
    for row in rows:
        current_session().add(row)
        current_session().flush()


def _add_system(storage: Storage, for_contract: bool) -> None:
    """Insert the missing system rows. Existing ones keep the changes of superusers."""
    missing = _missing_ids()
    if not missing:
        return
    mannequins = [_load_image("mannequin_front.webp"), _load_image("mannequin_three_quarter.webp")]
    rows: list[Any] = list(build_system_rows(mannequins, for_contract))
    media = [row for row in rows if isinstance(row, MediaResource)]
    for row, image in zip(media, mannequins, strict=True):
        _write_file(storage, row, image)
    missing |= {row.id for row in media} - _find_existing_ids(MediaResource, {row.id for row in media})
    _add(row for row in rows if row.id in missing)


def _load_image(name: str) -> StoredImage:
    return normalize((IMAGES_DIR / name).read_bytes())


def _write_file(storage: Storage, media: MediaResource, image: StoredImage) -> None:
    storage.write(media_key(media.id, media.extension), image.data)


def _add_demonstration(storage: Storage, for_contract: bool) -> list[queue.GenerationLease]:
    """Add the demo accounts and tenants, and return the leases of their first generations."""
    _add(
        build_account_rows(
            {email: hash_password(password) for email, password in PUBLISHED_PASSWORDS.items()}
        )
    )
    demo, second = get_seed_id(User, 1), get_seed_id(User, 2)
    tenants: dict[int, tuple[UUID, UUID | None]] = {1: (demo, get_seed_id(Organization, 1))}
    if for_contract:
        tenants |= {2: (second, get_seed_id(Organization, 2)), 3: (demo, None), 4: (second, None)}
    return [
        _add_tenant(storage, tenant, owner_id, organization_id, for_contract)
        for tenant, (owner_id, organization_id) in tenants.items()
    ]


def _add_tenant(
    storage: Storage, tenant: int, owner_id: UUID, organization_id: UUID | None, for_contract: bool
) -> queue.GenerationLease:
    ownership = {"owner_id": owner_id, "organization_id": organization_id}
    photo, cutout = _load_image("dress.jpg"), load_cutout()
    rows = list(build_tenant_rows(tenant, ownership, photo, cutout, for_contract))
    _add(rows)
    media, cutout_media = (row for row in rows if isinstance(row, MediaResource))
    _write_file(storage, media, photo)
    _write_file(storage, cutout_media, cutout[0])
    current_session().add(
        Upload(
            id=build_seed_id(UPLOAD, tenant_number(tenant, 1)),
            filename="linen-wrap-dress.jpg",
            content_type="image/jpeg",
            status=UploadStatus.INGESTED,
            media_resource_id=media.id,
            expires_at=utc_now(),
            **ownership,
        )
    )
    _add_imports(storage, tenant, ownership)
    shot = next(row for row in rows if isinstance(row, Shot))
    return _lease_generation(_request_first_generation(tenant, owner_id, organization_id, shot))


def _add_imports(storage: Storage, tenant: int, ownership: dict[str, Any]) -> None:
    """Add the product imports of a tenant and their file."""
    storage.write(data_file_key(build_seed_id(UPLOAD, tenant_number(tenant, 2))), FILE)
    _add(build_import_rows(tenant, ownership))


def _request_first_generation(
    tenant: int, owner_id: UUID, organization_id: UUID | None, shot: Shot
) -> Generation:
    """Request the first generation of a tenant as its owner, with a fixed id; it is charged as usual."""
    roles = {organization_id: str(Role.OWNER)} if organization_id else {}
    request = GenerationRequest(shot_id=shot.id, batch_size=2, seed=2041, width=768, height=1024)
    with caller_context(Caller(user_id=owner_id, email="", roles=roles), permission=None):
        generation = request_generation(request, organization_id, shot)
    switch_role(SYSTEM)
    # The shot's foreign key must not refer to the generation while its id changes.
    shot.generation_id = None
    current_session().flush()
    generation.id = build_seed_id(GENERATION, tenant_number(tenant, 1))
    # The predictions get the ids of the contract's examples, also if a worker renders them.
    numbers = range(1, generation.batch_size + 1)
    ids = [str(build_seed_id(PREDICTION, tenant_number(tenant, number))) for number in numbers]
    generation.inputs = {**generation.inputs, "prediction_ids": ids}
    current_session().flush()
    shot.generation_id = generation.id
    return generation


def _lease_generation(generation: Generation) -> queue.GenerationLease:
    """Lease a generation before the commit, so that no worker can lease it first."""
    transition(generation, GenerationStatus.RUNNING)
    generation.attempts = 1
    generation.lease_owner, generation.lease_expires_at = LEASE_OWNER, utc_now() + LEASE_DURATION
    current_session().flush()
    return queue.to_lease(generation, LEASE_OWNER)


def _complete_generations(
    database: Database, storage: Storage, leases: Iterable[queue.GenerationLease]
) -> None:
    """Complete the first generations with the stored packshots: all tenants requested the same images."""
    images = [(image, to_stored_image(image)) for image in load_packshots()]
    for lease in leases:
        files = [queue.store_rendered_file(storage, lease, image, stored) for image, stored in images]
        with database.transaction(write=True):
            queue.complete_generation(storage, lease, files)
            current_session().flush()
            # unscoped: the seed runs as the system
            first = select(Prediction).where(Prediction.generation_id == lease.row_id)
            prediction = current_session().scalars(first.where(Prediction.index == 0)).one()
            _add_links(prediction)
            _add_comment(prediction)
            _add_export(prediction)
    worker = Worker(database, storage, LEASE_DURATION)
    run_pending_exports(worker)
    with database.transaction(write=True):
        request_account_export(get_seed_id(User, 1), build_seed_id(ACCOUNT_EXPORT, 1))
    run_pending_account_exports(worker)


def _add_export(prediction: Prediction) -> None:
    """Request an archive of a prediction as its owner. The prediction stays in review, for the tutorials."""
    shot = current_session().get_one(Shot, prediction.shot_id)  # unscoped: the seed runs as the system
    shooting = current_session().get_one(Shooting, shot.shooting_id)  # unscoped: see above
    status, prediction.status = prediction.status, PredictionStatus.APPROVED
    current_session().flush()
    organization_id = shooting.organization_id
    roles = {organization_id: str(Role.OWNER)} if organization_id else {}
    with caller_context(Caller(user_id=prediction.owner_id, email="", roles=roles), permission=None):
        export_id = build_seed_id(EXPORT, prediction.id.int & 0xFFFF)
        create_export(shooting, ExportRequest(prediction_ids=[prediction.id]), export_id)
    switch_role(SYSTEM)
    prediction.status = status


def _add_comment(prediction: Prediction) -> None:
    """Add a comment of its owner on the first prediction of a tenant."""
    # unscoped: the seed runs as the system
    name = current_session().scalars(select(User.full_name).where(User.id == prediction.owner_id)).one()
    _add(
        [
            PredictionComment(
                id=build_seed_id(COMMENT, prediction.id.int & 0xFFFF),
                prediction_id=prediction.id,
                owner_id=prediction.owner_id,
                organization_id=prediction.organization_id,
                author_id=prediction.owner_id,
                author_name=name or "",
                text="The hem is cut off here.",
                position_x=0.42,
                position_y=0.87,
            )
        ]
    )


def _add_links(prediction: Prediction) -> None:
    """Add a share link and a review link to the first prediction of a tenant, made by its owner."""
    membership_id = current_session().scalar(
        select(Membership.id).where(
            Membership.organization_id == prediction.organization_id,
            Membership.user_id == prediction.owner_id,
        )
    )
    # unscoped: the seed runs as the system
    shooting_id = select(Shot.shooting_id).where(Shot.id == prediction.shot_id)
    # The last four hexadecimal digits of a seeded id are its number.
    number, expires_at = prediction.id.int & 0xFFFF, utc_now() + LINK_LIFETIME
    _add(
        [
            PredictionShare(
                id=build_seed_id(SHARE, number),
                prediction_id=prediction.id,
                created_by_id=prediction.owner_id,
                membership_id=membership_id,
                expires_at=expires_at,
            ),
            ReviewLink(
                id=build_seed_id(REVIEW_LINK, number),
                shooting_id=current_session().scalars(shooting_id).one(),
                created_by_id=prediction.owner_id,
                membership_id=membership_id,
                # Its token is in no example.
                token_hash=hash_token(generate_token("rl")),
                expires_at=expires_at,
            ),
        ]
    )
