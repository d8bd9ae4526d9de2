"""Test the decoding of HEIC files: pixels, orientation, colors, transparency, metadata, damage."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from db.errors import NotAnImage, TooLarge, UnreadableImage
from studio.media.normalization import normalize
from tests.support.sample_media import build_orientation_image, heic_with_size, open_image, read_heic


def mean_difference(image: Image.Image, expected: Image.Image) -> float:
    """Return the mean difference of two images of the same size, in levels."""
    assert image.size == expected.size
    difference = np.asarray(image, np.int16) - np.asarray(expected.convert(image.mode), np.int16)
    return float(np.abs(difference).mean())


@pytest.mark.parametrize("name", ["plain", "with_location", "rotated", "tiles"])
def test_a_heic_is_stored_upright_as_jpeg_without_its_metadata(name: str) -> None:
    sent = read_heic(name)
    assert (b"Secret Camera Maker" in sent) is (name in ("with_location", "rotated"))
    stored = normalize(sent)
    assert (stored.extension, stored.width, stored.height, stored.has_alpha) == ("jpg", 120, 80, False)
    image = open_image(stored.data)
    assert mean_difference(image, build_orientation_image()) < 2
    assert not image.getexif()
    assert b"Secret Camera" not in stored.data


def test_a_transparent_heic_keeps_its_transparency() -> None:
    stored = normalize(read_heic("transparent"))
    assert (stored.extension, stored.has_alpha) == ("png", True)
    image = open_image(stored.data)
    expected = Image.linear_gradient("L").resize((120, 80))
    assert mean_difference(image.getchannel("A"), expected) < 2


def test_the_color_profile_of_a_heic_is_applied() -> None:
    # With this profile, stored red means green.
    image = open_image(normalize(read_heic("swapped_primaries")).data)
    assert mean_difference(image, Image.new("RGB", (40, 40), (0, 255, 0))) < 20
    assert "icc_profile" not in image.info


def test_a_heif_file_with_another_compression_is_named() -> None:
    with pytest.raises(NotAnImage, match="a HEIF image without HEVC"):
        normalize(b"\0\0\0\x18ftypmif1\0\0\0\0mif1jpeg" + bytes(100))


def test_a_heic_is_named_if_its_decoder_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.media.inspection._can_decode_heic", lambda: False)
    with pytest.raises(NotAnImage, match="a HEIC image: send"):
        normalize(read_heic("plain"))


@pytest.mark.parametrize("part", [0.08, 0.5, 0.9])
def test_s10_a_truncated_heic_is_unreadable(part: float) -> None:
    sent = read_heic("tiles")
    with pytest.raises(UnreadableImage):
        normalize(sent[: int(len(sent) * part)])


def test_data_that_a_phone_appends_is_dropped() -> None:
    sent = read_heic("tiles")
    assert normalize(sent + b"SEFT of a phone").data == normalize(sent).data


def test_s10_a_heic_that_announces_another_size_than_its_frame_is_not_stored() -> None:
    sent = read_heic("plain")
    for size in ((16_000, 16_000), (60_000, 60_000)):
        with pytest.raises(TooLarge):
            normalize(heic_with_size(sent, size))
    for size in ((64, 64), (80, 120)):
        with pytest.raises(UnreadableImage):
            normalize(heic_with_size(sent, size))


@pytest.mark.slow("it decodes hundreds of damaged files")
def test_s10_random_damage_of_a_heic_ends_in_an_image_or_a_documented_error() -> None:
    random = np.random.default_rng(7)
    for name in ("tiles", "transparent"):
        sent = read_heic(name)
        for _ in range(40):
            damaged = bytearray(sent)
            for position in random.integers(0, len(sent), 3):
                damaged[position] = random.integers(0, 256)
            try:
                stored = normalize(bytes(damaged))
            except (NotAnImage, TooLarge, UnreadableImage):
                continue
            assert open_image(stored.data).size == (stored.width, stored.height)
