"""Check who may make a row public, and keep the visibility of images in step with the rows that show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, update

from db.caller import current_caller
from db.errors import PublicRequiresSuperuser
from db.models.media import MediaResource
from db.models.presets import BackgroundPreset
from db.models.products import Product, ProductImage, ProductImageCutout
from db.models.styles import Style
from db.models.subjects import Subject, SubjectBaseImage
from db.session import current_session

_IMAGE_COLUMNS: tuple[tuple[Any, Any], ...] = (
    (Product, Product.cover_media_id),
    (ProductImage, ProductImage.media_id),
    (ProductImage, ProductImage.mask_media_id),
    (ProductImageCutout, ProductImageCutout.media_id),
    (Subject, Subject.cover_media_id),
    (SubjectBaseImage, SubjectBaseImage.media_id),
    (Style, Style.cover_media_id),
    (BackgroundPreset, BackgroundPreset.image_media_id),
)


def check_may_publish(body: Mapping[str, Any], is_public: bool = False) -> None:
    """Check that only superusers make a row public.

    Raises:
        PublicRequiresSuperuser: The body makes the row public, it is not public yet, and the caller is not a
            superuser.
    """
    if body.get("public") and not is_public and not current_caller().is_superuser:
        raise PublicRequiresSuperuser()


def sync_media_visibility(*media_ids: UUID | None) -> None:
    """Make each image public while a public row shows it, else private.

    Call this after the change of a row is flushed, with the images that the row had before and has now.
    """
    is_shown = or_(
        *(
            select(model.id)
            .where(  # unscoped: public rows of all tenants
                column == MediaResource.id, model.public.is_(True)
            )
            .exists()
            for model, column in _IMAGE_COLUMNS
        )
    )
    affected = {media_id for media_id in media_ids if media_id is not None}
    if affected:
        current_session().execute(
            update(MediaResource)  # unscoped: the rows that show them were loaded for the caller
            .where(MediaResource.id.in_(affected))
            .values(public=is_shown)
            .execution_options(synchronize_session=False)
        )


def update_subject(subject: Subject, previous_cover_id: UUID | None) -> None:
    """Write the changes of a subject. Its base images, which must be loaded, get the same visibility."""
    for image in subject.base_images:
        image.public = subject.public
    current_session().flush()
    sync_media_visibility(
        previous_cover_id, subject.cover_media_id, *(image.media_id for image in subject.base_images)
    )
