"""Test what the ZIP files of imports may contain, and that reading one is bounded."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from db.errors import NotFound
from studio.imports import archive
from studio.imports.archive import ImageArchive
from studio.imports.problems import ImportFileError
from studio.media.fetching import ImageNotUsable
from tests.support.zip_files import build_zip

MEGABYTE = 1_000_000


def open_zip(folder: Path, content: bytes) -> ImageArchive:
    path = folder / "images.zip"
    path.write_bytes(content)
    return ImageArchive(path)


def reject_zip(folder: Path, content: bytes) -> tuple[str, str]:
    """Return the code and the detail of the problem with a file."""
    with pytest.raises(ImportFileError) as rejected:
        open_zip(folder, content)
    return rejected.value.problem["code"], rejected.value.problem["detail"]


def test_entries_are_found_by_their_paths(tmp_path: Path) -> None:
    files = {"a/front.jpg": b"1", "./b.jpg": b"2", "c\\back.jpg": b"3", "a/": b"", "cafe\u0301.jpg": b"4"}
    opened = open_zip(tmp_path, build_zip(files, method=zipfile.ZIP_DEFLATED))
    assert opened.names == {"a/front.jpg", "b.jpg", "c/back.jpg", "caf\u00e9.jpg"}
    assert opened.read("c/back.jpg") == b"3"
    with pytest.raises(NotFound):
        opened.read("missing.jpg")


def test_a_file_with_a_comment_is_accepted(tmp_path: Path) -> None:
    buffer = io.BytesIO(build_zip({"a.jpg": b"1"}))
    with zipfile.ZipFile(buffer, "a") as file:
        file.comment = b"made by a camera"
    assert open_zip(tmp_path, buffer.getvalue()).names == {"a.jpg"}


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "C:\\a.jpg", "\\\\host\\a.jpg", "a//b.jpg", "..", "a\0.jpg"],
)
def test_names_that_are_no_relative_path_are_rejected(tmp_path: Path, name: str) -> None:
    def rename(entry: zipfile.ZipInfo) -> None:
        entry.filename = name

    code, detail = reject_zip(tmp_path, build_zip({"a": b"1"}, rename))
    assert code == "invalid_request"
    assert "is not a relative path" in detail


def _make_link(entry: zipfile.ZipInfo) -> None:
    entry.create_system, entry.external_attr = 3, 0o120777 << 16


def _make_encrypted(content: bytes) -> bytes:
    """Set the bit of encryption in the local header and in the directory."""
    directory = content.index(b"PK\x01\x02")
    changed = bytearray(content)
    changed[6] |= 1
    changed[directory + 8] |= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (build_zip({"a": b"/etc/passwd"}, _make_link), "is a link or a device"),
        (_make_encrypted(build_zip({"a": b"1"})), "is encrypted: create the ZIP file without a password"),
        (build_zip({"a": b"1"}, method=zipfile.ZIP_LZMA), "with another method than Deflate"),
    ],
)
def test_links_encrypted_entries_and_other_methods_are_rejected(
    tmp_path: Path, content: bytes, text: str
) -> None:
    code, detail = reject_zip(tmp_path, content)
    assert code == "invalid_request"
    assert text in detail


@pytest.mark.parametrize("content", [b"", b"PK", b"sku,name\n", build_zip({"a": b"1"})[:-3]])
def test_a_file_that_is_no_zip_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    invalid = "The file of `images_zip_url` is not a valid ZIP file"
    assert reject_zip(tmp_path, content) == ("malformed_request", invalid)


def test_two_entries_of_one_name_are_rejected(tmp_path: Path) -> None:
    _, detail = reject_zip(tmp_path, build_zip({"a/b.jpg": b"1", "a\\b.jpg": b"2"}))
    assert detail == "The ZIP file has two entries `a/b.jpg`"


def test_a_zip_bomb_is_rejected_before_an_entry_is_read(tmp_path: Path) -> None:
    bomb = build_zip(
        {f"{number}.png": bytes(10 * MEGABYTE) for number in range(3)}, method=zipfile.ZIP_DEFLATED
    )
    assert len(bomb) < MEGABYTE
    code, detail = reject_zip(tmp_path, bomb)
    assert (code, detail) == (
        "too_large",
        "The entries of the ZIP file are more than 20 times larger than the file",
    )


def test_a_directory_of_millions_of_entries_is_not_read(tmp_path: Path) -> None:
    # The end of the file announces few entries and a directory of 100 MB.
    directory = (struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 16)) * 2_200_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 10, 10, len(directory), 0, 0)
    path = tmp_path / "images.zip"
    path.write_bytes(directory + end)
    del directory
    tracemalloc.start()
    try:
        with pytest.raises(ImportFileError) as rejected:
            ImageArchive(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rejected.value.problem["code"] == "too_large"
    assert peak < MEGABYTE


def test_too_many_entries_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 2)
    content = build_zip(dict.fromkeys("abc", b"1"))
    assert reject_zip(tmp_path, content)[0] == "too_large"
    # Also if the end of the file announces less.
    end = content.rindex(b"PK\x05\x06")
    changed = content[: end + 8] + struct.pack("<2H", 1, 1) + content[end + 12 :]
    assert reject_zip(tmp_path, changed)[0] == "too_large"


def test_a_large_entry_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 10)
    assert reject_zip(tmp_path, build_zip({"a": bytes(11)}))[1].endswith(
        "`a` of the ZIP file has more than 10 bytes"
    )


def test_the_extension_zip64_is_rejected(tmp_path: Path) -> None:
    content = build_zip({"a": b"1"})
    end = content.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + bytes(16)
    assert "ZIP64" in reject_zip(tmp_path, content[:end] + locator + content[end:])[1]


def test_an_entry_that_inflates_to_more_than_it_announces_is_cut(tmp_path: Path) -> None:
    content = bytearray(build_zip({"a": bytes(40 * MEGABYTE)}, method=zipfile.ZIP_DEFLATED))
    for place in (22, content.index(b"PK\x01\x02") + 24):
        content[place : place + 4] = struct.pack("<L", 100)
    opened = open_zip(tmp_path, bytes(content))
    tracemalloc.start()
    try:
        with pytest.raises(ImageNotUsable):
            opened.read("a")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEGABYTE


def test_a_damaged_entry_is_not_usable(tmp_path: Path) -> None:
    content = build_zip({"a": b"0123456789"}).replace(b"0123456789", b"0123456780")
    opened = open_zip(tmp_path, content)
    with pytest.raises(ImageNotUsable, match="damaged"):
        opened.read("a")
