"""Test the IPTC Digital Source Type: packets, the files that hold them, uploads and variants."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from studio.infrastructure.storage import LocalDisk, media_key
from studio.media.conversion import convert_image
from studio.media.digital_source_type import (
    MAX_PACKET_BYTES,
    RENDERED,
    DigitalSourceType,
    build_packet,
    parse_packet,
)
from studio.media.normalization import normalize
from studio.media.stored_image import CONTENT_TYPES
from studio.media.variants import LADDER, OriginalImage, list_ladder, make_variants
from studio.media.xmp_embedding import embed_xmp
from tests.contract.operations import CONTRACT
from tests.support.digital_source_types import (
    IPTC,
    RDF,
    VOCABULARY,
    build_foreign_packet,
    encode_with_packet,
    read_source_type,
)
from tests.support.sample_media import build_orientation_image, encode_image, png_chunk

COMPOSITE = DigitalSourceType.COMPOSITE
GENERATED = DigitalSourceType.TRAINED_ALGORITHMIC_MEDIA
FOREIGN = build_foreign_packet(VOCABULARY + GENERATED)


def build_transparent_image() -> Image.Image:
    image = build_orientation_image().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize("source_type", DigitalSourceType)
def test_a_packet_is_read_as_it_was_built(source_type: DigitalSourceType) -> None:
    assert parse_packet(build_packet(source_type)) is source_type
    assert build_packet(source_type) == build_packet(source_type)


@pytest.mark.parametrize("notation", ["attribute", "text", "resource"])
@pytest.mark.parametrize("uri", [VOCABULARY, VOCABULARY.replace("http:", "https:")])
def test_packets_of_other_programs_are_read_in_each_notation(notation: str, uri: str) -> None:
    assert parse_packet(build_foreign_packet(uri + "compositeCapture", notation)) == "compositeCapture"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "composite",
        f"{VOCABULARY}unknownTerm",
        f"{VOCABULARY}composite/x",
        "http://example.test/composite",
    ],
)
def test_values_outside_the_vocabulary_are_ignored(value: str) -> None:
    assert parse_packet(build_foreign_packet(value)) is None


def test_the_source_of_an_ingredient_is_not_that_of_the_image() -> None:
    nested = (
        f"<ext:Ingredient><rdf:Description ext:DigitalSourceType='{VOCABULARY}composite'/></ext:Ingredient>"
    )
    packet = build_foreign_packet("x", "text").replace(
        b"<ext:DigitalSourceType>x</ext:DigitalSourceType>", nested.encode()
    )
    assert b"Ingredient" in packet
    assert parse_packet(packet) is None


ENTITY = f'<!DOCTYPE x [<!ENTITY e "{VOCABULARY}composite">]>'.encode()


@pytest.mark.parametrize(
    "packet",
    [
        None,
        b"",
        b"\xff\xfe" + "<x/>".encode("utf-16-le"),
        b'<?xml version="1.0" encoding="unicode_escape"?><x/>',
        FOREIGN[:-600],
        FOREIGN.replace(b"<rdf:RDF", b"<rdf:Rdf"),
        FOREIGN.replace(b"<x:xmpmeta", ENTITY + b"<x:xmpmeta"),
        build_foreign_packet("&e;", "text").replace(b"<x:xmpmeta", ENTITY + b"<x:xmpmeta"),
        FOREIGN + b" " * MAX_PACKET_BYTES + b"<!---->",
    ],
)
def test_malformed_and_large_packets_and_document_types_are_ignored(packet: bytes | None) -> None:
    assert parse_packet(packet) is None


def deep(count: int) -> bytes:
    return b"<a>" * count + b"</a>" * count


@pytest.mark.parametrize(
    "content",
    [
        deep(MAX_PACKET_BYTES // 8),
        b"<a " + b" ".join(b"b%d=''" % n for n in range(25_000)) + b"/>",
        b"<a " + b" ".join(b"xmlns:b%d='%d'" % (n, n) for n in range(12_000)) + b"/>",
        b"<a>" + b"&lt;" * 60_000 + b"</a>",
        b"<!--" + b"- " * 120_000 + b"-->",
        f"<ext:DigitalSourceType xmlns:ext='{IPTC}'>".encode()
        + b"&#60;" * 45_000
        + b"</ext:DigitalSourceType>",
    ],
    ids=["depth", "attributes", "namespaces", "references", "comment", "value"],
)
def test_s33_a_hostile_packet_takes_little_time(content: bytes) -> None:
    head = f"<rdf:RDF xmlns:rdf='{RDF}'><rdf:Description>".encode()
    packet = head + content + b"</rdf:Description></rdf:RDF>"
    assert len(packet) <= MAX_PACKET_BYTES
    started = time.process_time()
    assert parse_packet(packet) is None
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("file_format", "image", "options"),
    [
        ("JPEG", build_orientation_image(), {}),
        ("JPEG", build_orientation_image().convert("L"), {"progressive": True}),
        ("JPEG", build_orientation_image().convert("CMYK"), {}),
        ("PNG", build_orientation_image(), {}),
        ("PNG", build_orientation_image().convert("P"), {}),
        ("PNG", build_transparent_image(), {}),
        ("WEBP", build_orientation_image(121, 83), {}),
        ("WEBP", build_orientation_image(121, 83), {"lossless": True}),
        ("WEBP", build_transparent_image(), {}),
        ("WEBP", build_transparent_image(), {"lossless": True}),
        ("WEBP", build_orientation_image(), {"icc_profile": b"p" * 131}),
    ],
)
def test_a_packet_is_embedded_without_a_change_of_the_pixels(
    file_format: str, image: Image.Image, options: dict[str, Any]
) -> None:
    plain = encode_image(image, file_format, **options)
    marked = embed_xmp(plain, build_packet(COMPOSITE))
    assert marked == embed_xmp(plain, build_packet(COMPOSITE))
    assert read_source_type(marked) == "composite"
    with Image.open(io.BytesIO(plain)) as before, Image.open(io.BytesIO(marked)) as after:
        assert (after.format, after.mode, after.size) == (before.format, before.mode, before.size)
        assert after.tobytes() == before.tobytes()
        assert after.info.get("icc_profile") == before.info.get("icc_profile")


def test_each_format_holds_the_packet_where_its_specification_says() -> None:
    packet = build_packet(COMPOSITE)
    jpeg, png, webp = (
        embed_xmp(encode_image(build_orientation_image(), name), packet) for name in ("JPEG", "PNG", "WEBP")
    )
    # APP1 after the JFIF segment, which has 18 bytes.
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet
    assert jpeg[20:].startswith(b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + b"\xff")
    assert png[33:].startswith(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    # The extended header with the flag for XMP and the size minus one, and the chunk at the end.
    sides = (119).to_bytes(3, "little") + (79).to_bytes(3, "little")
    assert webp[12:30] == b"VP8X" + struct.pack("<I", 10) + b"\x04\0\0\0" + sides
    assert webp.endswith(b"XMP " + struct.pack("<I", len(packet)) + packet + b"\0" * (len(packet) % 2))
    assert int.from_bytes(webp[4:8], "little") == len(webp) - 8


def test_other_files_cannot_hold_a_packet() -> None:
    with pytest.raises(ValueError, match="not a JPEG"):
        embed_xmp(encode_image(build_orientation_image(), "GIF"), build_packet(COMPOSITE))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {}),
        ("PNG", {}),
        ("PNG", {"compressed": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"max_threads": 1}),
    ],
)
def test_an_upload_keeps_its_source_and_no_other_metadata(file_format: str, options: dict[str, Any]) -> None:
    sent = encode_with_packet(build_orientation_image(), file_format, FOREIGN, **options)
    stored = normalize(sent)
    assert read_source_type(stored.data) == GENERATED
    for lost in (b"Secret Town", b"photoshop", b'rdf:about=""/>'):
        assert lost not in stored.data
    assert normalize(sent) == stored
    # A second upload of the stored file is the same image.
    assert normalize(stored.data).data == stored.data


def test_an_upload_that_is_turned_upright_keeps_its_source() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sent = encode_with_packet(build_orientation_image(), "JPEG", FOREIGN, exif=exif)
    stored = normalize(sent)
    assert (stored.width, stored.height) == (80, 120)
    assert read_source_type(stored.data) == GENERATED


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_an_upload_without_a_source_is_stored_as_before(file_format: str) -> None:
    plain = encode_image(build_orientation_image(), file_format)
    sent = encode_with_packet(build_orientation_image(), file_format, build_foreign_packet("unknown"))
    assert normalize(plain).data == normalize(sent).data == plain


def test_s33_a_text_of_a_png_that_inflates_to_half_a_megabyte_is_no_packet() -> None:
    packet = FOREIGN + b"<!--" + b"a" * 512_000 + b"-->"
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)
    plain = encode_image(build_orientation_image(), "PNG")
    assert normalize(plain[:33] + png_chunk(b"iTXt", text) + plain[33:]).data == plain


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("extension", sorted(CONTENT_TYPES))
def test_a_variant_has_the_source_of_its_original(source: str, extension: str) -> None:
    original = normalize(encode_with_packet(build_orientation_image(), source, FOREIGN)).data
    variant = convert_image(original, 64, extension)
    assert read_source_type(variant) == (None if extension == "gif" else GENERATED)
    assert convert_image(original, 64, extension) == variant


def test_a_variant_that_a_subprocess_makes_has_the_source_of_its_original() -> None:
    original = normalize(encode_with_packet(build_orientation_image(1200, 800), "PNG", FOREIGN)).data
    assert read_source_type(convert_image(original, 960, "jpg")) == GENERATED


def test_the_variants_of_an_image_without_a_source_have_none() -> None:
    original = normalize(encode_image(build_orientation_image(), "PNG")).data
    for extension in CONTENT_TYPES:
        assert read_source_type(convert_image(original, 64, extension)) is None


def test_the_variants_that_are_made_in_advance_have_the_source_of_their_original(tmp_path: Path) -> None:
    storage, resource_id = LocalDisk(tmp_path), uuid4()
    stored = normalize(encode_with_packet(build_orientation_image(600, 400), "WEBP", FOREIGN))
    storage.write(media_key(resource_id, "webp"), stored.data)
    original = OriginalImage(resource_id, "webp", stored.width, stored.content_hash)
    assert make_variants(storage, original, list_ladder(original), lambda: True)
    made = [storage.read(variant.key) for variant in list_ladder(original)]
    assert [read_source_type(data) for data in made] == [GENERATED] * sum(width < 600 for width in LADDER)


def test_the_contract_lists_the_terms_that_a_prediction_can_have() -> None:
    listed = CONTRACT["components"]["schemas"]["DigitalSourceType"]["enum"]
    assert set(listed) == RENDERED
