"""Test media ingestion: one row per tenant and image, resolution of file URLs, garbage collection."""

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from db.base import utc_now
from db.caller import caller_context
from db.errors import NotAnImage, NotFound, ScopeMismatch, TargetNotAllowed
from db.models import MediaResource, Organization, Upload, User
from db.session import Database, current_session
from studio.infrastructure.fair_slots import Requester
from studio.infrastructure.storage import LocalDisk, StoredFile, media_key, temporary_key
from studio.jobs.periodic import PeriodicTask
from studio.media import ingest
from studio.media.garbage_collection import delete_unreferenced
from studio.media.ingest import file_url, ingest_upload, resolve_file_url
from studio.media.normalization import read_image
from studio.media.uploads import UploadConsumed, put_upload
from studio.media.variants import OriginalImage
from tests.support import factories
from tests.support.concurrency import run_concurrently
from tests.support.sample_media import build_orientation_image, encode_image, exif_with_location

PUBLIC_URL = "https://studio.example.com"
PHOTO = encode_image(build_orientation_image(), "JPEG", exif=exif_with_location(6))


@contextmanager
def acting_as(database: Database, user: User, *organizations: Organization) -> Iterator[None]:
    caller = factories.build_caller(user, dict.fromkeys(organizations, "owner"))
    with database.transaction(write=True), caller_context(caller, None):
        yield


def list_files(storage: LocalDisk) -> list[str]:
    return [file.key for prefix in ("media", "temp") for file in storage.list_files(prefix)]


def test_an_uploaded_photo_is_stored_as_a_row_and_a_file(
    database: Database, storage: LocalDisk, user: User, organization: Organization
) -> None:
    with acting_as(database, user, organization):
        media = ingest_upload(storage, read_image(io.BytesIO(PHOTO)), organization.id)
        assert (media.owner_id, media.organization_id, media.public) == (user.id, organization.id, False)
        assert (media.width, media.height, media.extension) == (80, 120, "jpg")
        assert (media.content_type, media.has_alpha) == ("image/jpeg", False)
        assert str(media.dominant_color).startswith("#")
        stored = storage.read(media_key(media.id, "jpg"))
        assert media.file_size == len(stored)


def test_the_same_photo_is_stored_once_per_tenant(
    database: Database, storage: LocalDisk, user: User, organization: Organization
) -> None:
    with acting_as(database, user, organization):
        first = ingest_upload(storage, read_image(io.BytesIO(PHOTO)), organization.id)
        assert ingest_upload(storage, read_image(io.BytesIO(PHOTO)), organization.id) is first
        personal = ingest_upload(storage, read_image(io.BytesIO(PHOTO)), None)
        assert personal.id != first.id
        assert personal.content_hash == first.content_hash
        assert len(list_files(storage)) == 2


def test_two_users_with_the_same_personal_photo_have_two_rows(
    database: Database, storage: LocalDisk, user: User
) -> None:
    other = factories.make_user()
    with acting_as(database, user):
        own = ingest_upload(storage, read_image(io.BytesIO(PHOTO)), None)
    with acting_as(database, other):
        assert ingest_upload(storage, read_image(io.BytesIO(PHOTO)), None).id != own.id


def test_s34_each_new_image_is_scheduled_for_its_variants_once(
    database: Database, storage: LocalDisk, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduled: list[tuple[OriginalImage, Requester]] = []
    monkeypatch.setattr(ingest, "schedule_ladder", lambda *arguments: scheduled.append(arguments))
    image, prediction_id = read_image(io.BytesIO(PHOTO)), uuid4()
    # A worker writes the file of a prediction before its row.
    storage.write(media_key(prediction_id, image.extension), image.data)
    with acting_as(database, user):
        ingest.store_image(storage, image, None, user.id, resource_id=prediction_id)
        assert scheduled == []
    original = OriginalImage(prediction_id, "jpg", 80, image.content_hash)
    expected = (original, Requester.of(f"account {user.id}"))
    assert scheduled == [expected]
    with acting_as(database, user):
        ingest.store_image(storage, image, None, user.id)
    assert scheduled == [expected]


def test_a_rolled_back_request_leaves_no_file(database: Database, storage: LocalDisk, user: User) -> None:
    def fail_after_the_photo() -> None:
        with acting_as(database, user):
            ingest_upload(storage, read_image(io.BytesIO(PHOTO)), None)
            assert len(list_files(storage)) == 1
            raise KeyError("a later error of the request")

    with pytest.raises(KeyError):
        fail_after_the_photo()
    assert list_files(storage) == []


def test_a_missing_file_is_written_again_with_the_same_photo(
    database: Database, storage: LocalDisk, user: User
) -> None:
    with acting_as(database, user):
        media = ingest_upload(storage, read_image(io.BytesIO(PHOTO)), None)
        storage.delete(media_key(media.id, "jpg"))
        ingest_upload(storage, read_image(io.BytesIO(PHOTO)), None)
        assert storage.exists(media_key(media.id, "jpg"))


def test_a_file_that_is_not_an_image_leaves_no_row_and_no_file(
    database: Database, storage: LocalDisk, user: User
) -> None:
    with pytest.raises(NotAnImage), acting_as(database, user):
        ingest_upload(storage, read_image(io.BytesIO(b"%PDF-1.7")), None)
    assert list_files(storage) == []


def test_concurrent_requests_with_the_same_photo_create_one_row(
    committing_database: Database, storage: LocalDisk
) -> None:
    database = committing_database
    with database.transaction(write=True):
        user = factories.make_user()

    def send() -> UUID:
        with acting_as(database, user):
            return ingest_upload(storage, read_image(io.BytesIO(PHOTO)), None).id

    assert len(set(run_concurrently(*[send] * 4))) == 1
    assert len(list_files(storage)) == 1
    with database.transaction(write=True) as running:
        running.delete(running.scalars(select(MediaResource)).one())
        running.flush()
        running.delete(running.merge(user))


def test_the_first_use_of_an_upload_turns_it_into_an_image_with_the_same_id(
    database: Database, storage: LocalDisk, user: User, organization: Organization
) -> None:
    upload = factories.make_upload(owner=user)
    url = file_url(PUBLIC_URL, upload.id, "jpg")
    with acting_as(database, user, organization):
        put_upload(storage, upload.id, read_image(io.BytesIO(PHOTO)))
    assert list_files(storage) == [temporary_key(upload.id)]
    with acting_as(database, user, organization):
        media = resolve_file_url(storage, PUBLIC_URL, url, organization.id)
        assert media.id == upload.id
        assert media.organization_id == organization.id
    assert list_files(storage) == [media_key(upload.id, "jpg")]
    with acting_as(database, user, organization):
        assert resolve_file_url(storage, PUBLIC_URL, url, organization.id).id == media.id
        with pytest.raises(UploadConsumed):
            put_upload(storage, upload.id, read_image(io.BytesIO(PHOTO)))


def test_an_upload_is_decoded_once_unless_an_older_version_received_it(
    database: Database, storage: LocalDisk, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, decoded = read_image(io.BytesIO(PHOTO)), []
    monkeypatch.setattr(ingest, "normalize", lambda data: decoded.append(data) or sent)
    for old in (False, True):
        upload = factories.make_upload(owner=user)
        with acting_as(database, user):
            put_upload(storage, upload.id, sent)
            if old:
                storage.write(temporary_key(upload.id), sent.data)
            media = resolve_file_url(storage, PUBLIC_URL, file_url(PUBLIC_URL, upload.id, "jpg"), None)
        assert storage.read(media_key(media.id, "jpg")) == sent.data
        columns = {name: getattr(media, name) for name in vars(sent) if name != "data"}
        assert columns == {name: value for name, value in vars(sent).items() if name != "data"}
    assert decoded == [sent.data]


def test_an_upload_of_a_stored_photo_leads_to_the_existing_image(
    database: Database, storage: LocalDisk, user: User
) -> None:
    upload = factories.make_upload(owner=user)
    with acting_as(database, user):
        existing = ingest_upload(storage, read_image(io.BytesIO(PHOTO)), None)
        put_upload(storage, upload.id, read_image(io.BytesIO(PHOTO)))
        url = file_url(PUBLIC_URL, upload.id, "jpg")
        assert resolve_file_url(storage, PUBLIC_URL, url, None) is existing
    assert list_files(storage) == [media_key(existing.id, "jpg")]
    with acting_as(database, user):
        assert resolve_file_url(storage, PUBLIC_URL, url, None).id == existing.id


def test_a_first_use_that_is_rolled_back_can_be_repeated(
    database: Database, storage: LocalDisk, user: User
) -> None:
    upload = factories.make_upload(owner=user)
    url = file_url(PUBLIC_URL, upload.id, "jpg")
    with acting_as(database, user):
        put_upload(storage, upload.id, read_image(io.BytesIO(PHOTO)))

    def fail_after_the_use() -> None:
        with acting_as(database, user):
            resolve_file_url(storage, PUBLIC_URL, url, None)
            raise KeyError("a later error of the request")

    with pytest.raises(KeyError):
        fail_after_the_use()
    assert list_files(storage) == [temporary_key(upload.id)]
    with acting_as(database, user):
        assert resolve_file_url(storage, PUBLIC_URL, url, None).id == upload.id


def test_an_upload_that_is_empty_expired_or_of_another_user_is_not_found(
    database: Database, storage: LocalDisk, user: User
) -> None:
    empty = factories.make_upload(owner=user)
    expired = factories.make_upload(owner=user, status="received", expires_at=utc_now() - timedelta(hours=1))
    foreign = factories.make_upload(status="received")
    for upload in (empty, expired, foreign):
        with pytest.raises(NotFound), acting_as(database, user):
            resolve_file_url(storage, PUBLIC_URL, file_url(PUBLIC_URL, upload.id, "jpg"), None)


def test_an_image_of_the_same_tenant_or_a_public_one_is_accepted(
    database: Database, storage: LocalDisk, user: User, organization: Organization
) -> None:
    media = factories.make_media(owner=user, organization=organization)
    public = factories.make_media(public=True)
    with acting_as(database, user, organization):
        for row in (media, public):
            url = file_url(PUBLIC_URL, row.id, row.extension)
            assert resolve_file_url(storage, PUBLIC_URL, url, organization.id).id == row.id


def test_an_image_of_another_tenant_is_a_scope_mismatch_and_an_invisible_one_is_not_found(
    database: Database, storage: LocalDisk, user: User, organization: Organization
) -> None:
    personal, foreign = factories.make_media(owner=user), factories.make_media()
    with acting_as(database, user, organization):
        with pytest.raises(ScopeMismatch):
            resolve_file_url(storage, PUBLIC_URL, file_url(PUBLIC_URL, personal.id, "jpg"), organization.id)
        with pytest.raises(NotFound):
            resolve_file_url(storage, PUBLIC_URL, file_url(PUBLIC_URL, foreign.id, "jpg"), organization.id)
        with pytest.raises(NotFound):
            resolve_file_url(storage, PUBLIC_URL, file_url(PUBLIC_URL, uuid4(), "jpg"), organization.id)


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example.com/api/v1/files/media/01990000-5eed-7000-8000-001400000001/file.jpg",
        "http://studio.example.com/api/v1/files/media/01990000-5eed-7000-8000-001400000001/file.jpg",
        "https://studio.example.com@127.0.0.1/api/v1/files/media/01990000-5eed-7000-8000-001400000001/file.jpg",
        "https://studio.example.com:8443/api/v1/files/media/01990000-5eed-7000-8000-001400000001/file.jpg",
        "https://studio.example.com.evil.example/api/v1/files/media/x/file.jpg",
        "https://studio.example.com/api/v1/brands/",
        "https://[broken/api/v1/files/media/x/file.jpg",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "",
    ],
)
def test_a_url_of_another_server_is_rejected_without_a_request_to_it(
    database: Database, storage: LocalDisk, user: User, url: str
) -> None:
    with pytest.raises(TargetNotAllowed), acting_as(database, user):
        resolve_file_url(storage, PUBLIC_URL, url, None)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "x/file.jpg",
        "01990000-5eed-7000-8000-001400000009/file.exe",
        "../../brands",
        "01990000-5eed-7000-8000-001400000001",
    ],
)
def test_a_url_of_this_server_that_names_no_file_is_not_found(
    database: Database, storage: LocalDisk, user: User, rest: str
) -> None:
    with pytest.raises(NotFound), acting_as(database, user):
        resolve_file_url(storage, PUBLIC_URL, f"{PUBLIC_URL}/api/v1/files/media/{rest}", None)


def test_garbage_collection_deletes_only_files_and_rows_unused_for_a_day(
    database: Database, storage: LocalDisk, user: User
) -> None:
    used = factories.make_upload(owner=user)
    with acting_as(database, user):
        put_upload(storage, used.id, read_image(io.BytesIO(PHOTO)))
        referenced = resolve_file_url(storage, PUBLIC_URL, file_url(PUBLIC_URL, used.id, "jpg"), None)
        orphan = ingest_upload(
            storage, read_image(io.BytesIO(encode_image(build_orientation_image(9, 9), "PNG"))), None
        )
    factories.make_product(owner=user, cover_media_id=referenced.id)
    abandoned = factories.make_upload(owner=user)
    storage.write(temporary_key(abandoned.id), b"never used")
    storage.write(temporary_key(uuid4()), b"of a crashed request")
    storage.write(media_key(uuid4(), "png"), b"of a crashed request")
    storage.write(f"temp/.{uuid4()}.0123456789abcdef", b"partial file")

    assert delete_unreferenced(database, storage, utc_now() + timedelta(hours=23)) == 0
    assert delete_unreferenced(database, storage, utc_now() + timedelta(hours=25)) == 5
    assert list_files(storage) == [media_key(referenced.id, "jpg")]
    assert delete_unreferenced(database, storage, utc_now() + timedelta(hours=25)) == 0
    with acting_as(database, user):
        assert current_session().scalar(select(func.count()).select_from(Upload)) == 1
        assert current_session().scalars(select(MediaResource.id)).all() == [referenced.id]
        assert orphan.id != referenced.id


def test_garbage_collection_keeps_every_image_that_a_row_refers_to(
    database: Database, storage: LocalDisk
) -> None:
    factories.make_brand(logo_media_id=factories.make_media().id)
    factories.make_product_image()
    factories.make_base_image()
    factories.make_prediction()
    factories.make_style(cover_media_id=factories.make_media().id)
    factories.make_background_preset(image_media_id=factories.make_media().id)
    factories.make_subject(cover_media_id=factories.make_media(public=True).id)
    assert delete_unreferenced(database, storage, utc_now() + timedelta(days=400)) == 0


def test_the_age_of_a_file_without_a_row_is_its_modification_time(
    database: Database, storage: LocalDisk
) -> None:
    key = media_key(uuid4(), "png")
    storage.write(key, b"of a crashed request")
    yesterday = (utc_now() - timedelta(hours=25)).timestamp()
    os.utime(storage.path(key), (yesterday, yesterday))
    assert delete_unreferenced(database, storage, utc_now()) == 1


def test_periodic_garbage_collection_continues_after_a_failure(
    committing_database: Database, storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = media_key(uuid4(), "png")
    storage.write(key, b"of a crashed request")
    os.utime(storage.path(key), (1_000_000_000, 1_000_000_000))
    list_stored_files, failures = storage.list_files, iter([OSError("the disk is not mounted")])

    def fail_once(prefix: str, after: str = "") -> Iterator[StoredFile]:
        for failure in failures:
            raise failure
        return list_stored_files(prefix, after)

    monkeypatch.setattr(storage, "list_files", fail_once)
    collector = PeriodicTask(
        "garbage collection", lambda: delete_unreferenced(committing_database, storage, utc_now()), 0.01
    )
    collector.start()
    deadline = time.monotonic() + 10
    while storage.exists(key) and time.monotonic() < deadline:
        time.sleep(0.01)
    collector.stop()
    assert not storage.exists(key)
