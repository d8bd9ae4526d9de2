"""Test the S3 backend against an S3 server: the storage interface, the local cache and its eviction."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from db.errors import NotFound
from studio.infrastructure import s3
from studio.infrastructure.s3 import S3Storage
from studio.infrastructure.settings import InvalidSettings, Settings
from studio.infrastructure.storage import LocalDisk, StorageUnavailable, media_folder, media_key, variant_key
from studio.infrastructure.storage_backends import open_storage
from tests.support.servers.s3 import PAGE_SIZE, run_s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, str]]:
    with run_s3_server() as url_and_bucket:
        yield url_and_bucket


@pytest.fixture
def storage(server: tuple[str, str], tmp_path: Path) -> S3Storage:
    url, bucket = server
    storage = S3Storage(bucket, f"/{uuid4()}/", tmp_path, url)
    storage.prepare()
    return storage


def test_a_written_file_can_be_read_until_it_is_deleted(storage: S3Storage) -> None:
    key = media_key(uuid4(), "png")
    assert not storage.exists(key)
    storage.write(key, b"one")
    storage.write(key, b"two")
    assert storage.exists(key)
    assert storage.read(key) == storage.path(key).read_bytes() == b"two"
    assert [file.key for file in storage.list_files("media")] == [key]
    storage.delete(key)
    storage.delete(key)
    for read in (storage.read, storage.path):
        with pytest.raises(NotFound):
            read(key)
    storage.check()
    assert list(storage.list_files("probe")) == []


def test_overwriting_a_file_invalidates_its_local_copy(storage: S3Storage) -> None:
    key = media_key(uuid4(), "png")
    storage.write(key, b"old")
    assert storage.path(key).read_bytes() == b"old"
    storage.write(key, b"new")
    assert storage.path(key).read_bytes() == b"new"


def test_deleting_a_folder_deletes_its_variants_and_local_copies(storage: S3Storage, tmp_path: Path) -> None:
    resource_id, other_id = uuid4(), uuid4()
    for key in (
        media_key(resource_id, "png"),
        variant_key(resource_id, 1, "webp"),
        media_key(other_id, "png"),
    ):
        storage.write(key, b"file")
        storage.path(key)
    storage.delete_folder(media_folder(resource_id))
    assert [file.key for file in storage.list_files("media")] == [media_key(other_id, "png")]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / media_key(other_id, "png")]


def test_s40_an_object_that_is_stored_while_its_folder_is_deleted_is_deleted_too(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource_id = uuid4()
    original, variant = media_key(resource_id, "png"), variant_key(resource_id, 64, "png")
    storage.write(original, b"file")
    delete = storage.delete

    def store_variant_and_delete(key: str) -> None:
        if key == original:
            storage.write(variant, b"variant")
        delete(key)

    monkeypatch.setattr(storage, "delete", store_variant_and_delete)
    storage.delete_folder(media_folder(resource_id))
    assert list(storage.list_files("media")) == []


def test_two_machines_share_a_bucket(storage: S3Storage, server: tuple[str, str], tmp_path: Path) -> None:
    url, bucket = server
    key = media_key(uuid4(), "png")
    storage.write(key, b"from another machine")
    second = S3Storage(bucket, storage._prefix, tmp_path / "second", url)
    assert second.path(key).read_bytes() == b"from another machine"


def test_listing_follows_the_pages_of_the_bucket(storage: S3Storage) -> None:
    resource_id = uuid4()
    for width in range(2 * PAGE_SIZE + 1):
        storage.write(variant_key(resource_id, width, "webp"), b"")
    keys = [file.key for file in storage.list_files("media")]
    assert len(keys) == 2 * PAGE_SIZE + 1
    assert keys == sorted(keys)
    assert [file.key for file in storage.list_files("media", keys[2])] == keys[3:]
    assert [file.key for file in storage.list_files("media", keys[-1])] == []


def test_the_least_recently_used_local_copies_are_evicted(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "CACHE_BYTES", 100)
    keys = [media_key(uuid4(), "png") for _ in range(4)]
    for age, key in enumerate(keys):
        storage.write(key, b"x" * 30)
        long_ago = time.time() - s3.CACHE_GRACE_SECONDS - 100 + age
        os.utime(storage.path(key), (long_ago, long_ago))
    storage.path(keys[0])
    newest = media_key(uuid4(), "png")
    storage.write(newest, b"x" * 30)
    storage.path(newest)
    cached = [key for key in [*keys, newest] if storage._copy_path(key).is_file()]
    assert cached[0] == keys[0]
    assert cached[-1] == newest
    assert len(cached) < 5


def test_a_missing_or_unreachable_bucket_is_reported_as_unavailable(
    server: tuple[str, str], tmp_path: Path
) -> None:
    url, bucket = server
    absent = S3Storage(f"{bucket}-2", "", tmp_path, url)
    with pytest.raises(StorageUnavailable):
        absent.check()
    absent.prepare()
    absent.prepare()
    absent.check()
    unreachable = S3Storage(bucket, "", tmp_path, "http://127.0.0.1:9")
    with pytest.raises(StorageUnavailable):
        unreachable.read(media_key(uuid4(), "png"))


def test_the_settings_select_the_storage_backend(tmp_path: Path, server: tuple[str, str]) -> None:
    url, bucket = server
    local = {"DATA_DIR": str(tmp_path)}
    assert isinstance(open_storage(Settings.from_environment(local)), LocalDisk)
    settings = Settings.from_environment(
        {**local, "MEDIA_URL": f"s3://{bucket}/deep/folder", "S3_ENDPOINT_URL": url}
    )
    storage = open_storage(settings)
    storage.prepare()
    storage.write("temp/a", b"")
    assert [file.key for file in storage.list_files("temp")] == ["temp/a"]
    for wrong in ("http://bucket", "s3://", "s3://B", "s3://bucket?x"):
        with pytest.raises(InvalidSettings):
            Settings.from_environment({"MEDIA_URL": wrong})
