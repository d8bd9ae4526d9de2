"""Subjects: who wears or holds the products, with base images for shot types."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload, selectinload

from db.base import utc_now
from db.models.presets import ShotType
from db.models.subjects import Subject, SubjectBaseImage
from db.session import session
from db.tenancy import get_owned, list_scope, refer
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, get_for_change, may_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.preparing import decodes_after
from handlers.references import may_create, scope_of_new, take_picture, with_pictures
from handlers.schemas.subjects import BaseImageSchema, SubjectSchema
from studio.pictures import require_room_for_image
from studio.publishing import check_public, settle_pictures, settle_subject
from studio.slugs import add_with_slug

WITH_PICTURES = [
    joinedload(Subject.cover_media),
    selectinload(Subject.base_images).options(
        joinedload(SubjectBaseImage.media), joinedload(SubjectBaseImage.shot_type)
    ),
]
WITH_PICTURE = [joinedload(SubjectBaseImage.media), joinedload(SubjectBaseImage.shot_type)]
WITH_PICTURE_AND_SUBJECT = [*WITH_PICTURE, joinedload(SubjectBaseImage.subject)]
SUBJECTS = Listing(
    Subject,
    SubjectSchema,
    filters={
        "age_class": Subject.age_class,
        "body_type": Subject.body_type,
        "only_with_base_images": Subject.base_images.any(),
    },
    searched=(Subject.name,),
)


@requires(Permission.SUBJECTS_READ)
def list_subjects(
    organization_id: UUID | None = None,
    include_public: bool = True,
    only_with_base_images: bool = False,
    **asked: Any,
) -> Answer:
    """The subjects of one scope, public ones included unless they are not wanted."""
    asked["only_with_base_images"] = only_with_base_images or None
    return SUBJECTS.page(asked, list_scope(organization_id, include_public))


@requires(Permission.SUBJECTS_WRITE)
@decodes_after(may_create, "cover_image")
def create_subject(body: dict[str, Any], organization_id: UUID | None = None) -> Answer:
    """Make a subject, with a slug from its name when it comes without."""
    check_public(body)
    subject = Subject(**scope_of_new(organization_id), cover_media=None, base_images=[])
    apply_changes(subject, with_pictures(subject, body, cover_image="cover_media"))
    add_with_slug(subject, "subject")
    settle_pictures(subject.cover_media_id)
    return created(subject, SubjectSchema, f"/api/v1/subjects/{subject.id}")


@requires(Permission.SUBJECTS_READ)
def get_subject(subject_id: UUID) -> Answer:
    """One subject with its base images."""
    return ok(get_owned(Subject, subject_id, options=WITH_PICTURES), SubjectSchema)


@requires(Permission.SUBJECTS_WRITE)
@decodes_after(may_change(Subject, "subject_id", SubjectSchema, WITH_PICTURES), "cover_image")
def update_subject(subject_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names."""
    subject = get_for_change(Subject, subject_id, SubjectSchema, WITH_PICTURES)
    check_public(body, subject.public)
    cover_before = subject.cover_media_id
    apply_changes(subject, with_pictures(subject, body, cover_image="cover_media"))
    settle_subject(subject, cover_before)
    return ok(subject, SubjectSchema)


@requires(Permission.SUBJECTS_WRITE)
def delete_subject(subject_id: UUID) -> Answer:
    """Remove the subject with its base images, unless something refers to it."""
    subject = get_for_change(Subject, subject_id, SubjectSchema, WITH_PICTURES)
    pictures = [subject.cover_media_id, *(image.media_id for image in subject.base_images)]
    session().delete(subject)
    session().flush()
    settle_pictures(*pictures)
    return no_content()


def _may_add_image(subject_id: UUID, body: dict[str, Any]) -> None:
    subject = get_owned(Subject, subject_id)
    require_room_for_image(SubjectBaseImage, SubjectBaseImage.subject_id == subject.id)
    refer(ShotType, body["shot_type_id"], subject.organization_id, subject.owner_id)


@requires(Permission.SUBJECTS_WRITE)
@decodes_after(_may_add_image)
def add_base_image(subject_id: UUID, body: dict[str, Any]) -> Answer:
    """Take a picture of the subject for one shot type."""
    subject = get_owned(Subject, subject_id, for_update=True)
    require_room_for_image(SubjectBaseImage, SubjectBaseImage.subject_id == subject.id)
    shot_type = refer(ShotType, body["shot_type_id"], subject.organization_id, subject.owner_id)
    scope = {name: getattr(subject, name) for name in ("owner_id", "organization_id", "public")}
    media = take_picture(body["file"], subject.organization_id, subject.public)
    image = SubjectBaseImage(**scope, subject_id=subject.id, shot_type=shot_type, media=media)
    session().add(image)
    subject.updated_at = utc_now()
    session().flush()
    return created(image, BaseImageSchema, f"/api/v1/subjects/{subject.id}/base-images/{image.id}")


@requires(Permission.SUBJECTS_READ)
def get_base_image(subject_id: UUID, base_image_id: UUID) -> Answer:
    """One base image of a subject."""
    of_subject = [SubjectBaseImage.subject_id == subject_id]
    image = get_owned(SubjectBaseImage, base_image_id, options=WITH_PICTURE, where=of_subject)
    return ok(image, BaseImageSchema)


@requires(Permission.SUBJECTS_WRITE)
def delete_base_image(subject_id: UUID, base_image_id: UUID) -> Answer:
    """Remove a base image from its subject."""
    of_subject = [SubjectBaseImage.subject_id == subject_id]
    image = get_for_change(
        SubjectBaseImage, base_image_id, BaseImageSchema, WITH_PICTURE_AND_SUBJECT, of_subject
    )
    image.subject.updated_at = utc_now()
    session().delete(image)
    session().flush()
    settle_pictures(image.media_id)
    return no_content()
