"""Test the local disk backend: atomic writes, and keys that stay below the media folder."""

import shutil
from pathlib import Path
from uuid import UUID

import pytest

from db.errors import NotFound
from studio.infrastructure.storage import (
    LocalDisk,
    export_key,
    media_folder,
    media_key,
    temporary_key,
    variant_key,
)

RESOURCE = UUID("01990000-5eed-7000-8000-000e00000001")


def test_s12_keys_are_made_of_ids_and_extensions_only() -> None:
    assert media_key(RESOURCE, "jpg") == f"media/{RESOURCE}/file.jpg"
    assert variant_key(RESOURCE, 640, "webp") == f"media/{RESOURCE}/variants/640.webp"
    assert temporary_key(RESOURCE) == f"temp/{RESOURCE}"
    assert export_key(RESOURCE) == f"exports/{RESOURCE}/archive.zip"


def test_a_written_file_can_be_read_until_it_is_deleted(tmp_path: Path) -> None:
    storage = LocalDisk(tmp_path)
    key = media_key(RESOURCE, "png")
    assert not storage.exists(key)
    storage.write(key, b"one")
    storage.write(key, b"two")
    assert storage.read(key) == b"two"
    assert [file.key for file in storage.list_files("media")] == [key]
    storage.delete(key)
    storage.delete(key)
    with pytest.raises(NotFound):
        storage.read(key)
    with pytest.raises(NotFound):
        storage.path(key)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalDisk(tmp_path)
    storage.write("temp/a", b"old")

    def fail(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("studio.infrastructure.storage.os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        storage.write("temp/a", b"new")
    assert storage.read("temp/a") == b"old"
    assert [file.key for file in storage.list_files("temp")] == ["temp/a"]


def test_deleting_a_folder_deletes_its_variants(tmp_path: Path) -> None:
    storage = LocalDisk(tmp_path)
    storage.write(media_key(RESOURCE, "png"), b"file")
    storage.write(variant_key(RESOURCE, 1, "webp"), b"variant")
    storage.delete_folder(media_folder(RESOURCE))
    assert list(storage.list_files("media")) == []


def test_files_are_listed_in_order_and_from_any_key_on(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.infrastructure.storage.LISTED_NAMES", 2)
    keys = ["temp/.c.1", "temp/a", "temp/b/file.jpg", "temp/b/variants/1.webp", "temp/d", "temp/e/f"]
    for key in reversed(keys):
        storage.write(key, b"file")
    for start in range(len(keys) + 1):
        after = keys[start - 1] if start else ""
        assert [file.key for file in storage.list_files("temp", after)] == keys[start:], after
    # The file and the folder after which to start can be gone.
    storage.delete_folder("temp/b")
    assert [file.key for file in storage.list_files("temp", keys[3])] == keys[4:]


def test_files_that_somebody_else_deletes_at_the_same_time_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalDisk(tmp_path)
    for key in ("media/a/1", "media/b/1", "media/b/2"):
        storage.write(key, b"file")
    files = storage.list_files("media")
    assert next(files).key == "media/a/1"
    storage.delete_folder("media/b")
    assert list(files) == []

    def vanish(folder: Path, _pattern: str) -> list[Path]:
        shutil.rmtree(folder)
        raise FileNotFoundError(folder)

    monkeypatch.setattr(Path, "glob", vanish)
    storage.delete_folder("media/a")
    assert list(storage.list_files("media")) == []


@pytest.mark.parametrize(
    "key", ["../secret", "/etc/passwd", "media/../../x", "media/a\0b", "media", "media//x"]
)
def test_s12_a_storage_key_outside_the_media_folder_is_an_internal_error(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not a storage key"):
        LocalDisk(tmp_path).write(key, b"")


def test_the_check_fails_if_the_folder_is_not_writable(tmp_path: Path) -> None:
    LocalDisk(tmp_path / "media").check()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        LocalDisk(tmp_path / "file").check()
