"""Subjects: the models who wear or hold the products, with a base image for each shot type."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload, selectinload

from db.base import utc_now
from db.models.presets import ShotType
from db.models.subjects import Subject, SubjectBaseImage
from db.session import current_session
from db.tenancy import get_reference, get_visible
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.plain_writes import plain_write
from handlers.common.preconditions import apply_changes, get_for_update, precheck_update
from handlers.common.reads import One, Reading
from handlers.common.references import accept_image, precheck_create, resolve_images, resolve_ownership
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.pipeline.prechecks import prefetches_images
from handlers.schemas.subjects import BaseImageSchema, SubjectSchema
from studio.catalog import archive, visibility
from studio.catalog.image_limits import require_image_capacity
from studio.catalog.slugs import insert_with_slug
from studio.catalog.visibility import check_may_publish, sync_media_visibility
from studio.products import transfers

IMAGE_OPTIONS = [
    joinedload(Subject.cover_media),
    selectinload(Subject.base_images).options(
        joinedload(SubjectBaseImage.media), joinedload(SubjectBaseImage.shot_type)
    ),
]
BASE_IMAGE_OPTIONS = [joinedload(SubjectBaseImage.media), joinedload(SubjectBaseImage.shot_type)]
BASE_IMAGE_AND_SUBJECT_OPTIONS = [*BASE_IMAGE_OPTIONS, joinedload(SubjectBaseImage.subject)]
SUBJECTS = ListQuery(
    Subject,
    SubjectSchema,
    filters={
        "age_class": Subject.age_class,
        "body_type": Subject.body_type,
        "only_with_base_images": Subject.base_images.any(),
    },
    search_columns=(Subject.name,),
)
SUBJECT_PAGE = Page(SUBJECTS, Permission.SUBJECTS_READ)


@requires(Permission.SUBJECTS_READ)
def list_subjects(only_with_base_images: bool = False, **params: Any) -> Reading[ApiResponse]:
    """List the subjects of a tenant."""
    # A filter is in use if it is not None.
    return (yield from SUBJECT_PAGE(**params, only_with_base_images=only_with_base_images or None))


@plain_write
@requires(Permission.SUBJECTS_WRITE)
@prefetches_images(precheck_create, "cover_image")
def create_subject(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create a subject; the slug defaults to one made from the name."""
    check_may_publish(body)
    subject = Subject(**resolve_ownership(organization_id), cover_media=None, base_images=[])
    apply_changes(subject, resolve_images(subject, body, cover_image="cover_media"))
    insert_with_slug(subject, "subject")
    sync_media_visibility(subject.cover_media_id)
    return created(subject, SubjectSchema, f"/api/v1/subjects/{subject.id}")


get_subject = One(Subject, SubjectSchema, Permission.SUBJECTS_READ)


@requires(Permission.SUBJECTS_WRITE)
@prefetches_images(precheck_update(Subject, "subject_id", SubjectSchema, IMAGE_OPTIONS), "cover_image")
def update_subject(subject_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a subject."""
    subject = get_for_update(Subject, subject_id, SubjectSchema, IMAGE_OPTIONS)
    check_may_publish(body, subject.public)
    cover_before = subject.cover_media_id
    apply_changes(subject, resolve_images(subject, body, cover_image="cover_media"))
    visibility.update_subject(subject, cover_before)
    return ok(subject, SubjectSchema)


@requires(Permission.SUBJECTS_WRITE)
def delete_subject(subject_id: UUID) -> ApiResponse:
    """Delete a subject with its base images; one that only other tenants use is archived."""
    archive.delete_subject(get_for_update(Subject, subject_id, SubjectSchema, IMAGE_OPTIONS))
    return no_content()


@requires(Permission.SUBJECTS_WRITE)
def transfer_subject(subject_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Move a subject to another organization or to the personal resources of the caller."""
    transfers.transfer(get_visible(Subject, subject_id, for_update=True), body["organization_id"])
    return ok(get_visible(Subject, subject_id, options=IMAGE_OPTIONS), SubjectSchema)


def _authorize_add_image(subject_id: UUID, **_: Any) -> None:
    get_visible(Subject, subject_id)


def _precheck_add_image(subject_id: UUID, body: dict[str, Any]) -> None:
    subject = get_visible(Subject, subject_id)
    require_image_capacity(SubjectBaseImage, SubjectBaseImage.subject_id == subject.id)
    get_reference(ShotType, body["shot_type_id"], subject.organization_id, subject.owner_id)


@requires(Permission.SUBJECTS_WRITE)
@prefetches_images(_precheck_add_image, authorize=_authorize_add_image)
def add_base_image(subject_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Add a base image of a subject for a shot type."""
    subject = get_visible(Subject, subject_id, for_update=True)
    require_image_capacity(SubjectBaseImage, SubjectBaseImage.subject_id == subject.id)
    shot_type = get_reference(ShotType, body["shot_type_id"], subject.organization_id, subject.owner_id)
    ownership = {name: getattr(subject, name) for name in ("owner_id", "organization_id", "public")}
    media = accept_image(body["file"], **ownership)
    image = SubjectBaseImage(**ownership, subject_id=subject.id, shot_type=shot_type, media=media)
    current_session().add(image)
    subject.updated_at = utc_now()
    current_session().flush()
    return created(image, BaseImageSchema, f"/api/v1/subjects/{subject.id}/base-images/{image.id}")


get_base_image = One(SubjectBaseImage, BaseImageSchema, Permission.SUBJECTS_READ)


@requires(Permission.SUBJECTS_WRITE)
def delete_base_image(subject_id: UUID, base_image_id: UUID) -> ApiResponse:
    """Delete a base image of a subject."""
    of_subject = [SubjectBaseImage.subject_id == subject_id]
    image = get_for_update(
        SubjectBaseImage, base_image_id, BaseImageSchema, BASE_IMAGE_AND_SUBJECT_OPTIONS, of_subject
    )
    image.subject.updated_at = utc_now()
    current_session().delete(image)
    current_session().flush()
    sync_media_visibility(image.media_id)
    return no_content()
