"""Test image variants: widths and formats, one computation per variant, and those made in advance."""

import errno
import queue
import threading
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from PIL import Image

from db.errors import NotFound
from studio.media import conversion, ladder, variants
from studio.media.ladder import LadderBuilder, make_ladder, schedule_ladder
from studio.media.normalisation import normalise
from studio.media.storage import LocalDisk, media_folder, media_key
from studio.media.variants import LADDER, OriginalImage, ServedFile, VariantMissing, find_width, make_variant
from tests.support.concurrency import run_concurrently
from tests.support.sample_media import build_orientation_image, encode_image, open_image


@pytest.fixture
def storage(tmp_path: Path) -> LocalDisk:
    return LocalDisk(tmp_path)


def store_original(storage: LocalDisk, image: Image.Image, file_format: str = "PNG") -> OriginalImage:
    stored = normalise(encode_image(image, file_format))
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
    make_ladder(storage, original)
    assert list_stored_widths(storage, original, extension) == [64, 128, 256, 480]
    monkeypatch.setattr(variants, "convert_image", None)
    for width, content in expected.items():
        served = variants.get_variant(storage, original, width)
        assert (served.path.read_bytes(), served.tag) == (content, on_request[width].tag)


def test_s34_a_thread_makes_the_ladder_of_stored_images(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "_waiting", queue.Queue(3))
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
        schedule_ladder(original)
    builder = LadderBuilder(storage)
    builder.start()
    assert done.wait(10)
    builder.stop()
    assert [list_stored_widths(storage, original, "png") for original in originals] == [[64], [64]]


def test_an_unavailable_storage_is_a_warning_and_the_next_ladder_is_made(
    storage: LocalDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ladder, "_waiting", queue.Queue())
    original, done = store_original(storage, build_orientation_image(70, 7)), threading.Event()
    failures = [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("a defect")]

    def make(*_arguments: Any) -> None:
        if failures:
            raise failures.pop(0)
        done.set()

    monkeypatch.setattr(ladder, "make_ladder", make)
    for _ in range(3):
        schedule_ladder(original)
    builder = LadderBuilder(storage)
    builder.start()
    assert done.wait(10)
    builder.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_the_contract_lists_the_widths() -> None:
    contract = (Path(__file__).parents[2] / "openapi" / "openapi.json").read_text(encoding="utf-8")
    # Files, images of predictions and shared images.
    assert contract.count(", ".join(map(str, LADDER[:-1])) + f" and {LADDER[-1]}") == 3


def test_a_missing_original_is_not_found(storage: LocalDisk) -> None:
    with pytest.raises(NotFound):
        get_variant(storage, OriginalImage(uuid4(), "png", 100, "hash"), 10)
    with pytest.raises(NotFound):
        get_variant(storage, OriginalImage(uuid4(), "png", 100, "hash"))
