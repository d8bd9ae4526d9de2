"""Test image variants: size and format, one computation per variant, and the limit on cached variants."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest
from PIL import Image

from db.errors import NotFound
from studio.media import conversion, variants
from studio.media.normalisation import normalise
from studio.media.storage import LocalDisk, media_folder, media_key
from studio.media.variants import OriginalImage, get_variant
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
    assert (image.format, image.size) == (file_format, (60, 40))
    red, _, blue = image.convert("RGB").getpixel((10, 8))
    assert red > 190
    assert blue < 70


def test_a_variant_is_never_larger_than_its_original(storage: LocalDisk) -> None:
    original = store_original(storage, build_orientation_image())
    assert get_variant(storage, original, width=4096).path == get_variant(storage, original).path
    assert open_image(get_variant(storage, original, 4096, "webp").path.read_bytes()).size == (120, 80)


def test_a_variant_can_be_one_pixel_wide(storage: LocalDisk) -> None:
    served = get_variant(storage, store_original(storage, build_orientation_image(500, 3)), width=1)
    assert open_image(served.path.read_bytes()).size == (1, 1)


def test_transparency_is_kept_in_webp_and_becomes_white_in_jpeg(storage: LocalDisk) -> None:
    original = store_original(storage, Image.new("RGBA", (80, 80), (255, 0, 0, 0)))
    assert open_image(get_variant(storage, original, 40, "webp").path.read_bytes()).mode == "RGBA"
    image = open_image(get_variant(storage, original, 40, "jpeg").path.read_bytes())
    assert min(image.getpixel((20, 20))) > 250


def test_etags_differ_between_variants_and_are_stable(storage: LocalDisk) -> None:
    original = store_original(storage, build_orientation_image())
    parameters = [(None, None), (60, None), (60, "webp"), (61, "webp"), (None, "avif")]
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


def test_the_number_of_cached_variants_is_limited(storage: LocalDisk) -> None:
    original = store_original(storage, build_orientation_image())
    for width in range(1, variants.MAX_VARIANTS + 12):
        get_variant(storage, original, width)
    assert (
        len(list(storage.list_files(f"{media_folder(original.resource_id)}/variants")))
        == variants.MAX_VARIANTS
    )


def test_a_missing_original_is_not_found(storage: LocalDisk) -> None:
    with pytest.raises(NotFound):
        get_variant(storage, OriginalImage(uuid4(), "png", 100, "hash"), 10)
    with pytest.raises(NotFound):
        get_variant(storage, OriginalImage(uuid4(), "png", 100, "hash"))
