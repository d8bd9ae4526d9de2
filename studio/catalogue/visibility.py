"""Who may make a row public, and that the pictures of public rows can be seen by everybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, update

from db.errors import PublicRequiresSuperuser
from db.models.media import MediaResource
from db.models.presets import BackgroundPreset
from db.models.styles import Style
from db.models.subjects import Subject, SubjectBaseImage
from db.session import current_session
from db.tenancy import current_caller

_IMAGE_COLUMNS: dict[Any, Any] = {
    Subject: Subject.cover_media_id,
    SubjectBaseImage: SubjectBaseImage.media_id,
    Style: Style.cover_media_id,
    BackgroundPreset: BackgroundPreset.image_media_id,
}


def check_may_publish(body: Mapping[str, Any], is_public: bool = False) -> None:
    """PublicRequiresSuperuser when anybody else asks that a row which is not public yet becomes so."""
    if body.get("public") and not is_public and not current_caller().is_superuser:
        raise PublicRequiresSuperuser()


def sync_media_visibility(*media_ids: UUID | None) -> None:
    """Make each picture public while a public row shows it, and private when the last one is gone.

    Call it with the pictures a public row had and has, once its change is flushed.
    """
    shown = or_(
        *(
            select(model.id)
            .where(  # unscoped: asks about everybody's public rows
                column == MediaResource.id, model.public.is_(True)
            )
            .exists()
            for model, column in _IMAGE_COLUMNS.items()
        )
    )
    wanted = {media_id for media_id in media_ids if media_id is not None}
    if wanted:
        current_session().execute(
            update(MediaResource)  # unscoped: the rows that show them were loaded scoped
            .where(MediaResource.id.in_(wanted))
            .values(public=shown)
            .execution_options(synchronize_session=False)
        )


def update_subject(subject: Subject, previous_cover_id: UUID | None) -> None:
    """Write a changed subject; its base images, which are loaded, become as public as it is."""
    for image in subject.base_images:
        image.public = subject.public
    current_session().flush()
    sync_media_visibility(
        previous_cover_id, subject.cover_media_id, *(image.media_id for image in subject.base_images)
    )
