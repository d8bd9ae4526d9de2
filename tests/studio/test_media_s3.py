"""Pictures in a bucket behave as on the disk, and a machine serves them from a copy of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from db.errors import NotFound
from studio.media import s3
from studio.media.backends import open_storage
from studio.media.s3 import S3Storage
from studio.media.storage import LocalDisk, StorageUnavailable, media_folder, media_key, variant_key
from studio.settings import InvalidSettings, Settings
from tests.support.servers.s3 import PAGE_SIZE, run_s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, str]]:
    with run_s3_server() as found:
        yield found


@pytest.fixture
def storage(server: tuple[str, str], tmp_path: Path) -> S3Storage:
    address, bucket = server
    made = S3Storage(bucket, f"/{uuid4()}/", tmp_path, address)
    made.prepare()
    return made


def test_what_was_written_is_read_until_it_is_deleted(storage: S3Storage) -> None:
    key = media_key(uuid4(), "png")
    assert not storage.exists(key)
    storage.write(key, b"one")
    storage.write(key, b"two")
    assert storage.exists(key)
    assert storage.read(key) == storage.path(key).read_bytes() == b"two"
    assert [file.key for file in storage.list_files("media")] == [key]
    storage.delete(key)
    storage.delete(key)
    for look in (storage.read, storage.path):
        with pytest.raises(NotFound):
            look(key)
    storage.check()
    assert list(storage.list_files("probe")) == []


def test_a_new_file_at_an_old_key_is_not_served_from_the_copy_before(storage: S3Storage) -> None:
    key = media_key(uuid4(), "png")
    storage.write(key, b"old")
    assert storage.path(key).read_bytes() == b"old"
    storage.write(key, b"new")
    assert storage.path(key).read_bytes() == b"new"


def test_a_folder_goes_with_its_variants_and_their_copies(storage: S3Storage, tmp_path: Path) -> None:
    picture, other = uuid4(), uuid4()
    for key in (media_key(picture, "png"), variant_key(picture, 1, "webp"), media_key(other, "png")):
        storage.write(key, b"file")
        storage.path(key)
    storage.delete_folder(media_folder(picture))
    assert [file.key for file in storage.list_files("media")] == [media_key(other, "png")]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / media_key(other, "png")]


def test_two_machines_share_a_bucket(storage: S3Storage, server: tuple[str, str], tmp_path: Path) -> None:
    address, bucket = server
    key = media_key(uuid4(), "png")
    storage.write(key, b"from the other one")
    here = S3Storage(bucket, storage._prefix, tmp_path / "here", address)
    assert here.path(key).read_bytes() == b"from the other one"


def test_more_files_than_a_page_of_the_bucket_are_all_listed(storage: S3Storage) -> None:
    picture = uuid4()
    for width in range(2 * PAGE_SIZE + 1):
        storage.write(variant_key(picture, width, "webp"), b"")
    assert sum(1 for _ in storage.list_files("media")) == 2 * PAGE_SIZE + 1


def test_the_copies_least_recently_used_make_room(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "CACHE_BYTES", 100)
    keys = [media_key(uuid4(), "png") for _ in range(4)]
    for age, key in enumerate(keys):
        storage.write(key, b"x" * 30)
        long_ago = time.time() - s3.CACHE_GRACE_SECONDS - 100 + age
        os.utime(storage.path(key), (long_ago, long_ago))
    storage.path(keys[0])
    late = media_key(uuid4(), "png")
    storage.write(late, b"x" * 30)
    storage.path(late)
    kept = [key for key in [*keys, late] if storage._copy_path(key).is_file()]
    assert kept[0] == keys[0]
    assert kept[-1] == late
    assert len(kept) < 5


def test_a_bucket_that_is_not_there_or_not_reached_says_so(server: tuple[str, str], tmp_path: Path) -> None:
    address, bucket = server
    absent = S3Storage(f"{bucket}-2", "", tmp_path, address)
    with pytest.raises(StorageUnavailable):
        absent.check()
    absent.prepare()
    absent.prepare()
    absent.check()
    unreachable = S3Storage(bucket, "", tmp_path, "http://127.0.0.1:9")
    with pytest.raises(StorageUnavailable):
        unreachable.read(media_key(uuid4(), "png"))


def test_the_settings_decide_where_pictures_are(tmp_path: Path, server: tuple[str, str]) -> None:
    address, bucket = server
    own = {"DATA_DIR": str(tmp_path)}
    assert isinstance(open_storage(Settings.from_environment(own)), LocalDisk)
    settings = Settings.from_environment(
        {**own, "MEDIA_URL": f"s3://{bucket}/deep/folder", "S3_ENDPOINT_URL": address}
    )
    storage = open_storage(settings)
    storage.prepare()
    storage.write("temp/a", b"")
    assert [file.key for file in storage.list_files("temp")] == ["temp/a"]
    for wrong in ("http://bucket", "s3://", "s3://B", "s3://bucket?x"):
        with pytest.raises(InvalidSettings):
            Settings.from_environment({"MEDIA_URL": wrong})
