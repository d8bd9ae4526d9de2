"""What bodies refer to: rows by ids, pictures by addresses, each checked against the scope of the row.

Also whose a new row is, which that scope begins with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from flask import current_app
from sqlalchemy import bindparam, select

from db.base import Owned
from db.models.media import MediaResource
from db.models.shootings import Shot
from db.tenancy import creation_scope, current_caller, get_owned, refer
from handlers.current import current_settings
from studio.media.fetching import FetchedAddress
from studio.media.ingest import ingest_upload, resolve_file_url
from studio.media.picture import Picture
from studio.media.storage import Storage

# unscoped: narrows rows that are scoped already
SHOTS_OF_SHOOTING = select(Shot.id).where(Shot.shooting_id == bindparam("shooting_id"))
"""The shots of the shooting that a filter of this name gives."""


def scope_of_new(organization_id: UUID | None) -> dict[str, UUID | None]:
    """Whose a new row will be: the caller's, in the organization when one is named.

    NotFound when the caller is no member of it; PermissionDenied when the role may not create there.
    """
    return {"owner_id": current_caller().user_id, "organization_id": creation_scope(organization_id)}


def may_create(organization_id: UUID | None = None, **_: Any) -> None:
    """The look (see `preparing.py`) of handlers that make a row; raises as `scope_of_new`."""
    scope_of_new(organization_id)


def refer_all(row: Owned, body: Mapping[str, Any], **models: type[Owned]) -> None:
    """Check the ids that a body names in the properties given, alone or in lists; null refers to nothing.

    NotFound for an id that the caller cannot see, ScopeMismatch for one of another scope than the row's.
    """
    for name, model in models.items():
        value = body.get(name)
        for row_id in filter(None, value if isinstance(value, list) else [value]):
            refer(model, row_id, row.organization_id, row.owner_id)


def require_known(filters: Mapping[type[Owned], UUID | None]) -> None:
    """NotFound for an id that the filter of a list names and the caller cannot see; None filters nothing."""
    for model, row_id in filters.items():
        if row_id is not None:
            get_owned(model, row_id)


def with_pictures(row: Owned, body: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """The body with each picture's address, `cover_image="cover_media"`, replaced by the picture itself.

    TargetNotAllowed, NotFound and ScopeMismatch as `resolve_file_url`.
    """
    changes = {name: value for name, value in body.items() if name not in names}
    for name, attribute in names.items():
        if name in body:
            changes[attribute] = find_picture(body[name], row.organization_id)
    return changes


def find_picture(address: str | None, organization_id: UUID | None) -> MediaResource | None:
    """The picture behind an address, for a row of the scope given; None for none."""
    return None if address is None else take_picture(address, organization_id)


def take_picture(source: Picture | str, organization_id: UUID | None, public: bool = False) -> MediaResource:
    """The stored picture that came with the request, was fetched, or is behind an address of ours."""
    picture = source.picture if isinstance(source, FetchedAddress) else source
    if isinstance(picture, Picture):
        return ingest_upload(current_storage(), picture, organization_id, public)
    return resolve_file_url(current_storage(), current_settings().public_url, picture, organization_id)


def current_storage() -> Storage:
    """Where the pictures of the running application are kept."""
    return cast(Storage, current_app.config["STORAGE"])
