"""Test image normalization: stored formats, stripped metadata, limits and damaged files."""

import io
import itertools
import shutil
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from db.errors import NotAnImage, TooLarge, UnreadableImage
from studio.media import inspection
from studio.media.normalization import normalize
from studio.media.stored_image import StoredImage
from tests.support.sample_media import (
    build_orientation_image,
    encode_image,
    exif_with_location,
    gif_of_frames,
    open_image,
    png_bomb,
    png_chunk,
    png_of,
    swapped_primaries_profile,
)

RED, BLUE = (220, 30, 30), (20, 40, 200)


def is_near(
    image: Image.Image, position: tuple[int, int], expected: tuple[int, ...], tolerance: int = 12
) -> bool:
    actual = image.convert("RGB").getpixel(position)
    return all(abs(a - b) <= tolerance for a, b in zip(actual, expected, strict=True))


def shows_orientation_image(stored: StoredImage, tolerance: int = 12) -> bool:
    image = open_image(stored.data)
    assert image.size == (stored.width, stored.height) == (120, 80)
    return is_near(image, (20, 15), RED, tolerance) and is_near(image, (90, 60), BLUE, tolerance)


def count_declared_bytes(size: tuple[int, int], bits: int, interlaced: int) -> int:
    """Return the number of bytes of a PNG's rows, counted with the table of passes in the PNG standard."""
    passes = ["16462646", "77777777", "56565656", "77777777", "36463646", "77777777", "56565656", "77777777"]
    rows: dict[tuple[str, int], int] = {}
    for y in range(size[1]):
        for x in range(size[0]):
            row = (passes[y % 8][x % 8] if interlaced else "0", y)
            rows[row] = rows.get(row, 0) + bits
    return sum(1 + -(-row // 8) for row in rows.values())


def idat(png: bytes) -> bytes:
    """Return the content of the only IDAT chunk."""
    start = png.index(b"IDAT")
    return png[start + 4 : start + 4 + int.from_bytes(png[start - 4 : start], "big")]


@pytest.mark.parametrize(
    ("file_format", "options", "extension"),
    [
        ("JPEG", {"quality": 95}, "jpg"),
        ("JPEG", {"progressive": True}, "jpg"),
        ("PNG", {}, "png"),
        ("WEBP", {"lossless": True}, "webp"),
        ("WEBP", {"quality": 90}, "webp"),
        ("AVIF", {"quality": 90}, "jpg"),
        ("GIF", {}, "png"),
    ],
)
def test_each_format_is_stored_in_the_documented_format(
    file_format: str, options: dict, extension: str
) -> None:
    stored = normalize(encode_image(build_orientation_image(), file_format, **options))
    assert stored.extension == extension
    assert shows_orientation_image(stored, tolerance=20)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_s11_the_gps_position_of_a_photo_is_not_stored(file_format: str) -> None:
    sent = encode_image(build_orientation_image(), file_format, exif=exif_with_location())
    assert b"Secret Camera Maker" in sent
    stored = normalize(sent)
    assert b"Secret Camera" not in stored.data
    assert b"Exif" not in stored.data
    assert not open_image(stored.data).getexif()
    assert shows_orientation_image(stored, tolerance=20)


def test_s11_a_jpeg_keeps_its_compressed_pixels_and_loses_all_metadata() -> None:
    plain = encode_image(build_orientation_image(), "JPEG", quality=90)
    sent = encode_image(
        build_orientation_image(),
        "JPEG",
        quality=90,
        exif=exif_with_location(),
        comment=b"at home",
        xmp=b"<gps/>",
    )
    stored = normalize(sent + b"a video that the phone appended")
    assert stored.data == plain


def test_s11_a_png_keeps_its_compressed_pixels_and_loses_its_texts() -> None:
    plain = encode_image(build_orientation_image(), "PNG")
    end = plain.index(b"IEND") - 4
    sent = plain[:end] + png_chunk(b"tEXt", b"Location\0here") + plain[end:] + b"appended"
    assert normalize(sent).data == plain


def test_a_transparent_webp_keeps_its_transparency_without_its_metadata() -> None:
    image = build_orientation_image().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    plain = encode_image(image, "WEBP", quality=80)
    stored = normalize(encode_image(image, "WEBP", quality=80, exif=exif_with_location()))
    assert stored.data == plain


@pytest.mark.parametrize(
    ("file_format", "orientation"),
    [
        *itertools.product(("JPEG", "PNG"), range(1, 9)),
        ("AVIF", 1),
        ("AVIF", 6),
        *(
            pytest.param("AVIF", other, marks=pytest.mark.slow("it starts the process of the AVIF decoder"))
            for other in (2, 3, 4, 5, 7, 8)
        ),
    ],
)
def test_an_image_with_exif_rotation_is_stored_upright(file_format: str, orientation: int) -> None:
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    rotated = (
        build_orientation_image().transpose(inverse[orientation])
        if orientation > 1
        else build_orientation_image()
    )
    assert shows_orientation_image(
        normalize(encode_image(rotated, file_format, exif=exif_with_location(orientation)))
    )


@pytest.mark.parametrize("file_format", ["PNG", "AVIF"])
def test_another_color_space_becomes_srgb(file_format: str) -> None:
    # With this profile, stored red means green.
    image = Image.new("RGB", (40, 40), (255, 0, 0))
    stored = normalize(encode_image(image, file_format, icc_profile=swapped_primaries_profile()))
    assert is_near(open_image(stored.data), (20, 20), (0, 255, 0), 20)
    assert "icc_profile" not in open_image(stored.data).info


def test_an_srgb_profile_is_dropped_without_touching_the_pixels() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert normalize(encode_image(build_orientation_image(), "JPEG", icc_profile=srgb)).data == encode_image(
        build_orientation_image(), "JPEG"
    )


def test_a_damaged_color_profile_is_ignored() -> None:
    assert shows_orientation_image(
        normalize(encode_image(build_orientation_image(), "PNG", icc_profile=b"not a profile"))
    )


def test_a_cmyk_jpeg_becomes_a_correct_rgb_image() -> None:
    stored = normalize(encode_image(build_orientation_image().convert("CMYK"), "JPEG", quality=95))
    assert open_image(stored.data).mode == "RGB"
    assert shows_orientation_image(stored, tolerance=25)


def test_a_16_bit_gray_png_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :].repeat(4, axis=0)
    image = open_image(normalize(encode_image(Image.fromarray(ramp), "PNG")).data)
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image)[0], np.arange(256))


def test_a_16_bit_color_png_becomes_a_correct_8_bit_image() -> None:
    deep = np.repeat(np.asarray(build_orientation_image()).astype(">u2") * 257, 1, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", 120, 80, 16, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    stored = normalize(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    assert stored.data[24] == 8
    assert shows_orientation_image(stored, tolerance=0)


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(
    ("depth", "color_type", "samples"),
    [(1, 0, 1), (2, 0, 1), (4, 0, 1), (8, 0, 1), (8, 2, 3), (8, 4, 2), (8, 6, 4)],
)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 9), (10, 10), (33, 17)])
def test_a_png_with_exactly_the_declared_bytes_is_kept_and_one_with_more_is_re_encoded(
    size: tuple[int, int], depth: int, color_type: int, samples: int, interlaced: int
) -> None:
    rows = bytes(count_declared_bytes(size, depth * samples, interlaced))
    kind = (depth, color_type, interlaced)
    exact = png_of(zlib.compress(rows), size, kind)
    assert normalize(exact).data == exact
    for trailing in (zlib.compress(rows + b"\0"), zlib.compress(rows) + b"more"):
        stored = normalize(png_of(trailing, size, kind))
        assert (stored.width, stored.height) == size
        assert trailing not in stored.data


def test_a_png_in_very_small_chunks_is_kept() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (80, 120, 3), np.uint8)
    plain = encode_image(Image.fromarray(noise), "PNG")
    start, pixels = plain.index(b"IDAT") - 4, idat(plain)
    chunks = [png_chunk(b"IDAT", pixels[at : at + 3]) for at in range(0, len(pixels), 3)]
    sent = plain[:start] + b"".join([*chunks, png_chunk(b"IDAT", b""), png_chunk(b"IEND", b"")])
    assert normalize(sent).data == sent


def test_a_png_is_kept_without_the_padding_after_its_end() -> None:
    plain = encode_image(build_orientation_image(), "PNG")
    assert normalize(plain + bytes(1_000_000)).data == plain


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_png_with_a_usual_number_of_texts_is_accepted(kind: bytes) -> None:
    plain = encode_image(build_orientation_image(), "PNG")
    pixels = plain.index(b"IDAT") - 4
    text = b"Title\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0") + zlib.compress(b"a dress")
    assert normalize(plain[:pixels] + png_chunk(kind, text) * 60 + plain[pixels:]).data == plain


def test_the_first_frame_of_an_animated_gif_is_stored() -> None:
    frames = [
        build_orientation_image(),
        Image.new("RGB", (120, 80), "green"),
        Image.new("RGB", (120, 80), "black"),
    ]
    stored = normalize(encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50))
    assert shows_orientation_image(stored)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_the_first_frame_of_other_animations_is_stored(file_format: str) -> None:
    frames = [build_orientation_image(), Image.new("RGB", (120, 80), "green")]
    sent = encode_image(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
    stored = normalize(sent)
    assert shows_orientation_image(stored)
    assert getattr(open_image(stored.data), "n_frames", 1) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_mode_of_png_is_accepted(mode: str) -> None:
    stored = normalize(encode_image(build_orientation_image().convert(mode), "PNG"))
    assert open_image(stored.data).size == (120, 80)
    assert stored.dominant_color.startswith("#")
    assert len(stored.dominant_color) == 7


def test_the_dominant_color_is_the_most_frequent_visible_one() -> None:
    image = Image.new("RGBA", (100, 100), (250, 250, 250, 0))
    image.paste((10, 120, 60, 255), (10, 10, 60, 60))
    assert normalize(encode_image(image, "PNG")).dominant_color == "#0a783c"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("a PDF", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj"),
        ("an SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        ("a web page", b"<!doctype html><script>alert(1)</script>"),
        ("a TIFF", encode_image(build_orientation_image(), "TIFF")),
        ("a BMP", encode_image(build_orientation_image(), "BMP")),
        ("one byte", b"\xff"),
        ("a video", b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42"),
    ],
)
def test_s11_files_of_other_types_are_rejected_by_their_content(kind: str, content: bytes) -> None:
    with pytest.raises(NotAnImage):
        normalize(content)


def test_an_empty_file_is_unreadable() -> None:
    with pytest.raises(UnreadableImage):
        inspection.read_bounded(io.BytesIO(b""))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
@pytest.mark.parametrize("part", [0.08, 0.5, 0.9])
def test_s10_a_truncated_image_is_unreadable(file_format: str, part: float) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (80, 120, 3), np.uint8)
    sent = encode_image(Image.fromarray(noise), file_format)
    with pytest.raises(UnreadableImage):
        normalize(sent[: int(len(sent) * part)])


def test_s10_a_png_of_900_million_pixels_is_rejected_before_it_is_decoded() -> None:
    sent = png_bomb(30_000, 30_000)
    assert len(sent) < 150_000
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(TooLarge):
        normalize(sent)
    assert time.perf_counter() - started < 0.5
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("size", [(10_000, 8_000), (20_000, 10)])
def test_s10_an_image_above_the_limit_of_pixels_or_side_is_too_large(size: tuple[int, int]) -> None:
    with pytest.raises(TooLarge):
        normalize(png_bomb(*size))


def test_s10_a_jpeg_with_a_false_size_in_its_header_is_too_large() -> None:
    sent = bytearray(encode_image(build_orientation_image(), "JPEG"))
    at = sent.index(b"\xff\xc0") + 5
    sent[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(TooLarge):
        normalize(bytes(sent))


def test_s10_a_gif_of_very_many_frames_is_too_large_and_the_check_is_quick() -> None:
    started = time.perf_counter()
    with pytest.raises(TooLarge):
        normalize(gif_of_frames(1_000_000))
    assert time.perf_counter() - started < 0.5
    assert normalize(gif_of_frames(900)).width == 1


def test_s10_a_gif_whose_frame_exceeds_its_screen_is_too_large() -> None:
    sent = bytearray(gif_of_frames(1))
    at = sent.index(b"\x2c") + 5
    sent[at : at + 4] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(TooLarge):
        normalize(bytes(sent))


def test_s10_a_jpeg_of_very_many_scans_is_too_large() -> None:
    sent = encode_image(build_orientation_image(), "JPEG", progressive=True)
    last_scan = sent.rindex(b"\xff\xda")
    with pytest.raises(TooLarge):
        normalize(sent[:last_scan] + sent[last_scan:-2] * 500 + b"\xff\xd9")


def test_s10_more_than_50_megabytes_are_too_large() -> None:
    with pytest.raises(TooLarge):
        inspection.read_bounded(io.BytesIO(bytes(inspection.MAX_FILE_BYTES + 1)))


def test_a_decoder_that_does_not_start_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match="did not start"):
        normalize(encode_image(build_orientation_image(), "AVIF"))


@pytest.mark.slow("it decodes hundreds of damaged files")
def test_s10_random_damage_ends_in_an_image_or_a_documented_error() -> None:
    random = np.random.default_rng(7)
    for file_format in ("JPEG", "PNG", "WEBP", "AVIF", "GIF"):
        sent = encode_image(build_orientation_image(64, 48), file_format)
        for _ in range(60):
            damaged = bytearray(sent)
            for position in random.integers(0, len(sent), 3):
                damaged[position] = random.integers(0, 256)
            try:
                stored = normalize(bytes(damaged))
            except (NotAnImage, TooLarge, UnreadableImage):
                continue
            assert open_image(stored.data).size == (stored.width, stored.height)
