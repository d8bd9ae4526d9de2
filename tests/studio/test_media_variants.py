"""Test image variants: widths and formats, one computation per variant, and those made in advance."""

import errno
import os
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from PIL import Image

from db.errors import NotFound
from studio.infrastructure.fair_slots import Requester
from studio.infrastructure.storage import LocalDisk, media_folder, media_key
from studio.media import conversion, ladder, variants
from studio.media.ladder import LadderBuilder, LadderQueue, make_ladder, schedule_ladder
from studio.media.memory_gate import LOAD_SLOTS
from studio.media.normalization import normalize
from studio.media.variants import LADDER, OriginalImage, ServedFile, VariantMissing, find_width, make_variant
from tests.support.concurrency import run_concurrently, wait_for
from tests.support.sample_media import build_orientation_image, encode_image, open_image

OWNER = Requester.of("account 1")


def store_original(storage: LocalDisk, image: Image.Image, file_format: str = "PNG") -> OriginalImage:
    stored = normalize(encode_image(image, file_format))
    resource_id: UUID = uuid4()
    storage.write(media_key(resource_id, stored.extension), stored.data)
    return OriginalImage(resource_id, stored.extension, stored.width, stored.content_hash)


def get_variant(storage: LocalDisk, original: OriginalImage, *args: Any, **options: Any) -> ServedFile:
    """Return a variant as a request does: make it first if it is missing."""
    try:
        return variants.get_variant(storage, original, *args, **options)
    except VariantMissing as missing:
        make_variant(storage, missing.variant)
        return variants.get_variant(storage, original, *args, **options)


def list_stored_widths(storage: LocalDisk, original: OriginalImage, extension: str) -> list[int]:
    keys = [file.key for file in storage.list_files(f"{media_folder(original.resource_id)}/variants")]
    return sorted(int(Path(key).stem) for key in keys if key.endswith(f".{extension}"))


def test_without_parameters_the_original_is_served(storage: LocalDisk) -> None:
    original = store_original(storage, build_orientation_image())
    served = get_variant(storage, original)
    assert served.path == storage.path(media_key(original.resource_id, "png"))
    assert (served.content_type, served.tag) == ("image/png", original.content_hash)


@pytest.mark.parametrize(
    ("type_", "content_type", "file_format"),
    [
        ("webp", "image/webp", "WEBP"),
        ("jpeg", "image/jpeg", "JPEG"),
        ("png", "image/png", "PNG"),
        ("avif", "image/avif", "AVIF"),
    ],
)
@pytest.mark.parametrize("source", ["JPEG", "PNG"])
def test_a_variant_has_the_requested_width_and_format(
    storage: LocalDisk, type_: str, content_type: str, file_format: str, source: str
) -> None:
    served = get_variant(
        storage, store_original(storage, build_orientation_image(), source), width=60, type_=type_
    )
    image = open_image(served.path.read_bytes())
    assert served.content_type == content_type
    assert (image.format, image.size) == (file_format, (64, 43))
    red, _, blue = image.convert("RGB").getpixel((10, 8))
    assert red > 190
    assert blue < 70


def test_a_variant_is_never_larger_than_its_original(storage: LocalDisk) -> None:
    original = store_original(storage, build_orientation_image())
    assert get_variant(storage, original, width=4096).path == get_variant(storage, original).path
    assert open_image(get_variant(storage, original, 4096, "webp").path.read_bytes()).size == (120, 80)


@pytest.mark.parametrize(
    ("requested", "original", "width"),
    [
        (1, 1000, 64),
        (64, 1000, 64),
        (65, 1000, 128),
        (961, 1000, 1000),
        (4096, 1000, 1000),
        (4096, 8000, 4096),
    ],
)
def test_s34_a_request_gets_the_next_larger_width_of_the_ladder(
    requested: int, original: int, width: int
) -> None:
    assert find_width(requested, original) == width


def test_a_flat_image_has_variants_of_one_row(storage: LocalDisk) -> None:
    served = get_variant(storage, store_original(storage, build_orientation_image(500, 3)), width=1)
    assert open_image(served.path.read_bytes()).size == (64, 1)


def test_transparency_is_kept_in_webp_and_becomes_white_in_jpeg(storage: LocalDisk) -> None:
    original = store_original(storage, Image.new("RGBA", (80, 80), (255, 0, 0, 0)))
    assert open_image(get_variant(storage, original, 40, "webp").path.read_bytes()).mode == "RGBA"
    image = open_image(get_variant(storage, original, 40, "jpeg").path.read_bytes())
    assert min(image.getpixel((20, 20))) > 250


def test_etags_differ_between_variants_and_are_stable(storage: LocalDisk) -> None:
    original = store_original(storage, build_orientation_image())
    parameters = [(None, None), (60, None), (60, "webp"), (65, "webp"), (None, "avif")]
    tags = [get_variant(storage, original, *args).tag for args in parameters]
    assert len(set(tags)) == len(parameters)
    assert [get_variant(storage, original, *args).tag for args in parameters] == tags


def test_concurrent_requests_for_a_variant_compute_it_once(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = store_original(storage, build_orientation_image(600, 400))
    convert, calls = conversion.convert_image, []
    monkeypatch.setattr(conversion, "convert_image", lambda *args: calls.append(args) or convert(*args))
    results = run_concurrently(*[lambda: get_variant(storage, original, 200, "webp").path.read_bytes()] * 8)
    assert len(calls) == 1
    assert len(set(results)) == 1


def test_s34_a_large_copy_uses_no_cpu_of_the_server_process(storage: LocalDisk) -> None:
    # Pillow holds the interpreter lock while it encodes, so every request would wait for it.
    source = encode_image(Image.effect_noise((1200, 900), 90).convert("RGB"), "JPEG")
    own, children = time.process_time(), os.times().children_user
    converted = conversion.convert_image(source, 1000, "jpg")
    assert open_image(converted).size == (1000, 750)
    own, children = time.process_time() - own, os.times().children_user - children
    assert own < children / 2, (own, children)


def test_s34_an_image_has_few_variants(storage: LocalDisk) -> None:
    original = store_original(storage, build_orientation_image(200, 20))
    for width in range(1, 300):
        get_variant(storage, original, width, "webp")
    assert list_stored_widths(storage, original, "webp") == [64, 128, 200]


@pytest.mark.parametrize(("file_format", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_s34_the_ladder_is_what_requests_for_the_stored_format_get(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch, file_format: str, extension: str
) -> None:
    original = store_original(storage, build_orientation_image(500, 50), file_format)
    on_request = {width: get_variant(storage, original, width) for width in (64, 256)}
    expected = {width: served.path.read_bytes() for width, served in on_request.items()}
    storage.delete_folder(f"{media_folder(original.resource_id)}/variants")
    make_ladder(storage, original, OWNER)
    assert list_stored_widths(storage, original, extension) == [64, 128, 256, 480]
    monkeypatch.setattr(variants, "convert_image", None)
    for width, content in expected.items():
        served = variants.get_variant(storage, original, width)
        assert (served.path.read_bytes(), served.tag) == (content, on_request[width].tag)


def test_s34_a_thread_makes_the_ladder_of_stored_images(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "_waiting", LadderQueue())
    monkeypatch.setattr(ladder, "MAX_WAITING", 3)
    deleted = OriginalImage(uuid4(), "png", 100, "hash")
    originals = [store_original(storage, build_orientation_image(70, side)) for side in (5, 6)]
    done = threading.Event()
    real = ladder.make_ladder

    def make_and_tell(*arguments: Any) -> None:
        real(*arguments)
        if arguments[1] == originals[1]:
            done.set()

    monkeypatch.setattr(ladder, "make_ladder", make_and_tell)
    for original in (deleted, *originals, originals[0]):
        # The last one finds the queue full and is made on request.
        schedule_ladder(original, OWNER)
    builder = LadderBuilder(storage)
    builder.start()
    assert done.wait(10)
    builder.stop()
    assert [list_stored_widths(storage, original, "png") for original in originals] == [[64], [64]]


def test_s34_owners_take_turns_for_their_ladders_and_nobody_fills_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting, other = LadderQueue(), Requester.of("account 2")
    monkeypatch.setattr(ladder, "MAX_WAITING_OF_OWNER", 3)
    monkeypatch.setattr(ladder, "MAX_WAITING", 5)
    images = [OriginalImage(uuid4(), "png", 100, "hash") for _ in range(7)]
    accepted = [waiting.put(image, OWNER) for image in images[:4]]
    accepted += [waiting.put(image, other) for image in images[4:]]
    assert accepted == [True, True, True, False, True, True, False]
    expected = [(images[0], OWNER), (images[4], other), (images[1], OWNER), (images[5], other)]
    assert [waiting.get(threading.Event()) for _ in range(5)] == [*expected, (images[2], OWNER)]


@pytest.mark.parametrize(("file_format", "decodings"), [("PNG", 1), ("WEBP", 1), ("JPEG", 4)])
def test_s34_a_ladder_decodes_its_image_once_for_each_scale_of_the_decoder(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch, file_format: str, decodings: int
) -> None:
    original = store_original(storage, build_orientation_image(2_000, 20), file_format)
    decoded, real = [], conversion.open_source

    def open_source(data: bytes) -> Image.Image:
        image = real(data)
        convert = image.convert
        image.convert = lambda mode: decoded.append(image.size) or convert(mode)
        return image

    monkeypatch.setattr(conversion, "open_source", open_source)
    make_ladder(storage, original, OWNER)
    assert len(list_stored_widths(storage, original, original.extension)) == 7
    assert len(decoded) == decodings


def test_s34_a_ladder_returns_its_slot_to_a_waiting_upload_after_each_variant(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = store_original(storage, build_orientation_image(500, 50))
    busy, upload, order, threads = Requester.of("busy"), Requester.of("upload"), [], []
    real = conversion.ImageScaler.convert

    def decode_upload() -> None:
        with LOAD_SLOTS.hold(upload, 10):
            order.append("upload")

    def convert(scaler: conversion.ImageScaler, width: int, extension: str) -> bytes:
        order.append(width)
        if width == 64:
            assert LOAD_SLOTS.count_held(OWNER.owner) == 1
            threads.append(threading.Thread(target=decode_upload))
            threads[0].start()
            wait_for(LOAD_SLOTS.has_waiting)
        return real(scaler, width, extension)

    monkeypatch.setattr(conversion.ImageScaler, "convert", convert)
    with LOAD_SLOTS.hold(busy):
        make_ladder(storage, original, OWNER)
        threads[0].join()
    assert order == [64, "upload", 128, 256, 480]


def test_an_unavailable_storage_is_a_warning_and_the_next_ladder_is_made(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ladder, "_waiting", LadderQueue())
    original, done = store_original(storage, build_orientation_image(70, 7)), threading.Event()
    failures = [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("a defect")]

    def make(*_arguments: Any) -> None:
        if failures:
            raise failures.pop(0)
        done.set()

    monkeypatch.setattr(ladder, "make_ladder", make)
    for _ in range(3):
        schedule_ladder(original, OWNER)
    builder = LadderBuilder(storage)
    builder.start()
    assert done.wait(10)
    builder.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_the_contract_lists_the_widths() -> None:
    contract = (Path(__file__).parents[2] / "openapi" / "openapi.json").read_text(encoding="utf-8")
    # Files, images of predictions, shared and published images.
    assert contract.count(", ".join(map(str, LADDER[:-1])) + f" and {LADDER[-1]}") == 4


def test_a_missing_original_is_not_found(storage: LocalDisk) -> None:
    with pytest.raises(NotFound):
        get_variant(storage, OriginalImage(uuid4(), "png", 100, "hash"), 10)
    with pytest.raises(NotFound):
        get_variant(storage, OriginalImage(uuid4(), "png", 100, "hash"))


@pytest.mark.parametrize("in_advance", [False, True])
def test_s40_a_variant_of_an_image_that_is_deleted_meanwhile_is_not_kept(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch, in_advance: bool
) -> None:
    original = store_original(storage, build_orientation_image(300, 20))
    read = storage.read

    def read_and_delete(key: str) -> bytes:
        content = read(key)
        storage.delete_folder(media_folder(original.resource_id))
        return content

    monkeypatch.setattr(storage, "read", read_and_delete)
    make = partial(variants.make_variants, storage, original, variants.list_ladder(original), lambda: True)
    with pytest.raises(NotFound):
        (make if in_advance else partial(get_variant, storage, original, 64))()
    assert list(storage.root.rglob("*.*")) == []


def test_s40_the_original_is_deleted_before_its_variants(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variant that is stored while the folder is deleted is deleted too, or finds its original gone."""
    original = store_original(storage, build_orientation_image(300, 20))
    key = media_key(original.resource_id, original.extension)
    get_variant(storage, original, 64)
    delete_tree, found = shutil.rmtree, []

    def delete_variants(path: Path, **options: Any) -> None:
        found.append((storage.exists(key), list_stored_widths(storage, original, original.extension)))
        delete_tree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", delete_variants)
    storage.delete_folder(media_folder(original.resource_id))
    assert found == [(False, [64])]
    assert list(storage.list_files("media")) == []


def test_a_variant_without_its_original_is_not_served(storage: LocalDisk) -> None:
    original = store_original(storage, build_orientation_image(300, 20))
    get_variant(storage, original, 64)
    storage.delete(media_key(original.resource_id, original.extension))
    with pytest.raises(NotFound):
        get_variant(storage, original, 64)
