"""Store images as media rows with a file, and resolve file URLs of this server to these rows.

The same image is stored once per tenant. The file is written before its row is committed and deleted if the
transaction rolls back; `garbage_collection` deletes what a crash leaves behind.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError

from db.base import new_id, utc_now
from db.caller import current_caller, find_api_key_id
from db.errors import NotFound, TargetNotAllowed
from db.models.media import MediaResource, Upload, UploadStatus
from db.session import after_commit, after_rollback, current_session
from db.tenancy import get_references, get_visible, select_visible
from studio.billing.storage import require_storage
from studio.infrastructure.fair_slots import Requester, account_name, current_requester
from studio.infrastructure.storage import Storage, media_folder, media_key, temporary_key
from studio.media.data_files import DATA_EXTENSIONS_BY_TYPE
from studio.media.images import normalize
from studio.media.ladder import schedule_ladder
from studio.media.stored_image import EXTENSIONS_BY_TYPE, StoredImage
from studio.media.variants import OriginalImage

_PATH = "/api/v1/files/media/"
_NOT_A_FILE_URL = "The URL is of this server, but not of one of its files"
# All accepted formats: the URL of an upload is issued before the stored format is known.
_EXTENSIONS = frozenset(EXTENSIONS_BY_TYPE.values())


def file_url(public_url: str, resource_id: UUID, extension: str) -> str:
    """Return the permanent URL of an image, or of an upload that will become one."""
    return f"{public_url}{_PATH}{resource_id}/file.{extension}"


def ingest_upload(
    storage: Storage,
    image: StoredImage,
    organization_id: UUID | None,
    owner_id: UUID | None = None,
    public: bool = False,
) -> MediaResource:
    """Store an image that came with the request, or from a URL in it.

    Args:
        storage: The storage of the file.
        image: The image.
        organization_id: The tenant that the image belongs to; None for personal resources.
        owner_id: The owner of a personal image, by default the caller.
        public: Whether other tenants may read the image.
    """
    return store_image(
        storage,
        image,
        organization_id,
        _choose_owner(organization_id, owner_id),
        public=public,
        has_storage_limit=True,
    )


def _choose_owner(organization_id: UUID | None, owner_id: UUID | None) -> UUID:
    """Return the owner of a new image: that of the personal row which shows it, else the caller."""
    return (owner_id if organization_id is None else None) or current_caller().user_id


def is_own_url(public_url: str, url: str) -> bool:
    """Return whether a URL has the scheme and host of this server, whatever its path."""
    try:
        own, given = urlsplit(public_url), urlsplit(url)
    except ValueError:
        return False
    return (given.scheme.lower(), given.netloc.lower()) == (own.scheme.lower(), own.netloc.lower())


def resolve_file_url(
    storage: Storage,
    public_url: str,
    url: str,
    organization_id: UUID | None,
    owner_id: UUID | None = None,
) -> MediaResource:
    """Return the image behind a file URL of this server, for a row of the given tenant.

    The first use of an upload turns it into a stored image. `owner_id` is the owner of a personal row, by
    default the caller.

    Raises:
        TargetNotAllowed: The URL is of another server (those are fetched by `fetching`), or not a file URL.
        NotFound: The URL leads to no image, or to one that the caller may not read.
        ScopeMismatch: The image belongs to another tenant than the row.
    """
    resource_id = parse_file_url(public_url, url)
    # Locked: of two concurrent first uses, only one may ingest the upload.
    upload = current_session().scalar(
        select_visible(Upload).where(Upload.id == resource_id).with_for_update()
    )
    if upload is None:
        return get_references(MediaResource, [resource_id], organization_id, owner_id, lock=True)[0]
    if upload.media_resource_id is not None:
        media_ids = [upload.media_resource_id]
        return get_references(MediaResource, media_ids, organization_id, owner_id, lock=True)[0]
    if upload.owner_id != current_caller().user_id:
        raise NotFound(value=resource_id)
    if reason := _find_unusable_reason(upload):
        raise NotFound(reason, value=resource_id)
    image = _read_upload(storage, upload)
    owner = _choose_owner(organization_id, owner_id)
    media = store_image(storage, image, organization_id, owner, resource_id=upload.id, has_storage_limit=True)
    upload.status, upload.media_resource_id, upload.stored_bytes = UploadStatus.INGESTED, media.id, 0
    # The key is read now: a callback cannot rely on a row of a transaction that has ended.
    after_commit(partial(storage.delete, temporary_key(upload.id)))
    return media


def _find_unusable_reason(upload: Upload) -> str | None:
    """Return why an upload of the caller cannot be used and what to do about it, or None if it can."""
    if upload.content_type in DATA_EXTENSIONS_BY_TYPE:
        return "The upload is a file to import, not an image"
    if upload.expires_at <= utc_now():
        return "The upload has expired: create another one"
    if upload.status != UploadStatus.RECEIVED:
        return "The upload has no file yet: send the file to its `upload_url` first"
    return None


def _read_upload(storage: Storage, upload: Upload) -> StoredImage:
    """Return the received image of an upload.

    It was decoded when it was received. Version 0.1.0 stored it without its columns. Remove this case in the
    second release after 0.1.0: uploads live for 24 hours.
    """
    stored = storage.read(temporary_key(upload.id))
    return StoredImage.from_bytes(stored) or normalize(stored)


def get_media(resource_id: UUID) -> MediaResource:
    """Return the image with this id, or the image that the upload with this id became.

    Raises:
        NotFound: There is no such image, or the caller may not read it.
    """
    upload = current_session().scalar(select_visible(Upload).where(Upload.id == resource_id))
    ingested_id = upload.media_resource_id if upload is not None else None
    return get_visible(MediaResource, ingested_id or resource_id)


@dataclass(frozen=True)
class ImageOrigin:
    """What the bytes of an image count for in the usage of its organization."""

    model_id: UUID | None = None
    api_key_id: UUID | None = None
    product_id: UUID | None = None


def store_image_file(storage: Storage, tenant_id: UUID, image: StoredImage) -> UUID:
    """Store the file of an image before a row refers to it, and return the id of the row.

    The id is derived from the tenant and the content: a worker that repeats its work stores the same file.
    After a crash, garbage collection deletes the file. A row without its file cannot occur.

    Args:
        storage: The storage of the file.
        tenant_id: The organization, or the owner of personal images.
        image: The image.
    """
    media_id = uuid5(tenant_id, image.content_hash)
    storage.write(media_key(media_id, image.extension), image.data)
    return media_id


def store_image(
    storage: Storage,
    image: StoredImage,
    organization_id: UUID | None,
    owner_id: UUID | None,
    resource_id: UUID | None = None,
    public: bool = False,
    origin: ImageOrigin | None = None,
    has_storage_limit: bool = False,
) -> MediaResource:
    """Return the tenant's row of a normalized image, creating the row and its file if they are absent.

    Args:
        organization_id: The tenant of the image; None for the personal resources of `owner_id`.
        owner_id: The owner. A worker has no caller, so it passes the owner of the row that it works for;
            system rows have none.
        resource_id: The id of a new row, if it is known in advance.
        public: Whether other tenants may read the image. An image that is public stays public.
        origin: What the bytes of a new image count for; by default the API key of the running request.
        has_storage_limit: Whether a new image must fit into the storage of the plan. The result of a request
            that was accepted is stored in any case.

    Raises:
        StorageFull: It does not fit.
    """
    same_image = (*_owned_by(organization_id, owner_id), MediaResource.content_hash == image.content_hash)
    # unscoped: filtered by explicit tenant columns, because a worker has no caller
    existing = select(MediaResource).where(*same_image)
    # Locked, so that the image is not transferred to another tenant before a row of this one refers to it.
    media = current_session().scalar(existing.with_for_update(key_share=True))
    if media is None:
        if has_storage_limit:
            require_storage(organization_id, owner_id, len(image.data))
        origin = origin or ImageOrigin(api_key_id=find_api_key_id())
        media = MediaResource(
            id=resource_id or new_id(),
            model_id=origin.model_id,
            api_key_id=origin.api_key_id,
            product_id=origin.product_id,
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
            # Another transaction inserted the same image after our query.
            media = current_session().scalars(existing).one_or_none()
            if media is None and resource_id is None:
                # No image is in the way: the owner was deleted.
                raise
            if media is None:
                # An image that was transferred has the id: ids can be derived from tenant and content.
                return store_image(storage, image, organization_id, owner_id, public=public)
        else:
            # Not where the file is written: a worker writes the files of predictions before their rows.
            original = OriginalImage(media.id, media.extension, media.width, media.content_hash)
            owner = None if owner_id is None else Requester.of(account_name(owner_id))
            after_commit(lambda: schedule_ladder(original, owner or current_requester()))
    media.public = media.public or public
    # Garbage collection deletes old images without a referring row; the row that will refer to this one is
    # not inserted yet.
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


def parse_file_url(public_url: str, url: str, extensions: Collection[str] = _EXTENSIONS) -> UUID:
    """Return the id in a file URL of this server.

    Args:
        public_url: The URL of this server.
        url: The URL, as the client sent it.
        extensions: The extensions that the name of the file may have, by default those of images.

    Raises:
        TargetNotAllowed: The URL is of another server, or not a file URL.
        NotFound: No file has such a URL.
    """
    if not is_own_url(public_url, url):
        raise TargetNotAllowed()
    root, path = urlsplit(public_url + _PATH).path, urlsplit(url).path
    if not path.startswith(root):
        raise TargetNotAllowed(_NOT_A_FILE_URL)
    resource_id, _, name = path.removeprefix(root).partition("/")
    try:
        parsed = UUID(resource_id)
    except ValueError as error:
        raise NotFound from error
    # UUID() accepts other spellings too (braces, capitals): only the canonical one is a URL of this server.
    if str(parsed) != resource_id or not is_file_name(name, extensions):
        raise NotFound
    return parsed


def is_file_name(name: str, extensions: Collection[str] = _EXTENSIONS) -> bool:
    """Return whether this is the last segment of a file URL: `file.` and a known extension."""
    return name.startswith("file.") and name.removeprefix("file.") in extensions
