"""How a file becomes a picture that rows can refer to, and how an address of ours leads back to it.

The same picture is stored once in each scope. A file is on the disk before its row is committed, and goes
again when the row is rolled back; what a crash leaves behind is removed by `sweep.py`.
"""

from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError

from db.base import new_id, utc_now
from db.errors import NotFound, TargetNotAllowed
from db.models.media import MediaResource, Upload, UploadStatus
from db.session import after_commit, after_rollback, current_session
from db.tenancy import current_caller, get_reference, get_visible, select_visible
from studio.media.storage import Storage, media_folder, media_key, temporary_key
from studio.media.stored_image import EXTENSIONS_BY_TYPE, StoredImage, normalise

_PATH = "/api/v1/files/media/"
_NOT_A_FILE_URL = "The address is of this server, but of none of its files"
# Of every format that is taken: an upload is named before it is known what it will be stored as.
_EXTENSIONS = frozenset(EXTENSIONS_BY_TYPE.values())


def file_url(public_url: str, resource_id: UUID, extension: str) -> str:
    """The stable address of a picture, or of an upload that will become one."""
    return f"{public_url}{_PATH}{resource_id}/file.{extension}"


def ingest_upload(
    storage: Storage, image: StoredImage, organization_id: UUID | None, public: bool = False
) -> MediaResource:
    """The picture that came with the request, or by its address, stored in the scope given.

    The caller becomes its owner.
    """
    return store_image(storage, image, organization_id, current_caller().user_id, public=public)


def is_own_url(public_url: str, url: str) -> bool:
    """Whether an address, wherever it leads there, leads to this server."""
    try:
        ours, named = urlsplit(public_url), urlsplit(url)
    except ValueError:
        return False
    return (named.scheme.lower(), named.netloc.lower()) == (ours.scheme.lower(), ours.netloc.lower())


def resolve_file_url(
    storage: Storage, public_url: str, url: str, organization_id: UUID | None
) -> MediaResource:
    """The picture behind an address that a client names, for a row of the scope given.

    An upload is moved to its place on first use. TargetNotAllowed for an address of another server, which
    is not asked here; NotFound for one of ours that leads nowhere the caller may look, ScopeMismatch for a
    picture of another scope.
    """
    resource_id = _parse_resource_id(public_url, url)
    # The upload is locked, so that two requests that use it first do not both move it.
    upload = current_session().scalar(
        select_visible(Upload).where(Upload.id == resource_id).with_for_update()
    )
    if upload is None:
        return get_reference(MediaResource, resource_id, organization_id)
    if upload.media_resource_id is not None:
        return get_reference(MediaResource, upload.media_resource_id, organization_id)
    caller = current_caller()
    usable = upload.status == UploadStatus.RECEIVED and upload.expires_at > utc_now()
    if not usable or upload.owner_id != caller.user_id:
        raise NotFound
    picture = normalise(storage.read(temporary_key(upload.id)))
    media = store_image(storage, picture, organization_id, caller.user_id, resource_id=upload.id)
    upload.status, upload.media_resource_id = UploadStatus.INGESTED, media.id
    after_commit(lambda: storage.delete(temporary_key(upload.id)))
    return media


def get_media(resource_id: UUID) -> MediaResource:
    """The picture that an address of ours leads to, its own or that of the upload it came from.

    NotFound when there is none or the caller may not see it.
    """
    upload = current_session().scalar(select_visible(Upload).where(Upload.id == resource_id))
    became = upload.media_resource_id if upload is not None else None
    return get_visible(MediaResource, became or resource_id)


def store_image(
    storage: Storage,
    image: StoredImage,
    organization_id: UUID | None,
    owner_id: UUID | None,
    resource_id: UUID | None = None,
    public: bool = False,
) -> MediaResource:
    """The row of a normalised picture in a scope: the one that is there already, or a new one with its file.

    A worker, which has no caller, names the owner of the row that it works for; system rows have none.
    """
    same_picture = (*_owned_by(organization_id, owner_id), MediaResource.content_hash == image.content_hash)
    # unscoped: the scope is written out, because a worker has no caller
    find = select(MediaResource).where(*same_picture)
    media = current_session().scalar(find)
    if media is None:
        media = MediaResource(
            id=resource_id or new_id(),
            owner_id=owner_id,
            organization_id=organization_id,
            public=public,
            content_hash=image.content_hash,
            extension=image.extension,
            content_type=image.content_type,
            file_size=len(image.data),
            width=image.width,
            height=image.height,
            has_alpha=image.has_alpha,
            dominant_color=image.dominant_color,
        )
        try:
            with current_session().begin_nested():
                current_session().add(media)
        except IntegrityError:
            # Another request stored the same picture between our look and our insert.
            media = current_session().scalars(find).one()
    media.public = media.public or public
    # A picture that is taken again is not an orphan, however old it is.
    media.updated_at = utc_now()
    _write_file(storage, media, image)
    return media


def _write_file(storage: Storage, media: MediaResource, image: StoredImage) -> None:
    key = media_key(media.id, media.extension)
    if storage.exists(key):
        return
    folder = media_folder(media.id)
    after_rollback(lambda: storage.delete_folder(folder))
    storage.write(key, image.data)


def _owned_by(organization_id: UUID | None, owner_id: UUID | None) -> tuple[ColumnElement[bool], ...]:
    if organization_id is not None:
        return (MediaResource.organization_id == organization_id,)
    return (MediaResource.organization_id.is_(None), MediaResource.owner_id == owner_id)


def _parse_resource_id(public_url: str, url: str) -> UUID:
    """The id in an address of ours; what follows it, the file's name, says nothing that the id does not."""
    if not is_own_url(public_url, url):
        raise TargetNotAllowed()
    root, path = urlsplit(public_url + _PATH).path, urlsplit(url).path
    if not path.startswith(root):
        raise TargetNotAllowed(_NOT_A_FILE_URL)
    resource_id, _, name = path.removeprefix(root).partition("/")
    try:
        found = UUID(resource_id)
    except ValueError as error:
        raise NotFound from error
    if str(found) != resource_id or not is_file_name(name):
        raise NotFound
    return found


def is_file_name(name: str) -> bool:
    """Whether this is how a file is called in an address of ours."""
    return name.startswith("file.") and name.removeprefix("file.") in _EXTENSIONS
