"""Build image files whose compressed parts or metadata are far larger than their pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from functools import partial

from PIL import Image

from tests.support.digital_source_types import encode_with_packet
from tests.support.sample_media import (
    broken_megabyte,
    build_orientation_image,
    deflated_zeros,
    encode_image,
    exif_with_location,
    jpeg_segment,
    png_chunk,
    png_of,
    png_of_chunks,
    split_png,
    webp_of_frames,
)

MEGABYTE = 1 << 20
LARGE = 45 * MEGABYTE
"""The size of the files that consist of metadata, just below the limit of an upload."""
GROUPS = 1 << 16
"""Groups of Huffman codes: as many as the two bytes of their number can tell apart."""


def png_with(*chunks: bytes) -> bytes:
    """Return a small PNG with these chunks before its pixels."""
    plain = encode_image(build_orientation_image(), "PNG")
    pixels = plain.index(b"IDAT") - 4
    return plain[:pixels] + b"".join(chunks) + plain[pixels:]


def png_of_texts() -> bytes:
    """Return a PNG with 64 texts that inflate to a megabyte each, and to four as Python strings."""
    text = zlib.compress(("😀" + "a" * 1_000_000).encode(), 9)
    return png_with(*(png_chunk(b"iTXt", b"key%d\0\1\0\0\0" % number + text) for number in range(64)))


def png_of_compressed(kind: bytes, head: bytes) -> bytes:
    """Return a PNG with a text or profile that inflates to half a gigabyte."""
    return png_with(png_chunk(kind, head + deflated_zeros(512)))


def jpeg_with(*segments: bytes) -> bytes:
    """Return a small JPEG with these segments after its start."""
    plain = encode_image(build_orientation_image(), "JPEG")
    return plain[:2] + b"".join(segments) + plain[2:]


def jpeg_of_segments(segment: bytes, size: int = LARGE) -> bytes:
    """Return a JPEG of the size that repeats a segment."""
    return jpeg_with(segment * (size // len(segment)))


def jpeg_with_hidden_segments() -> bytes:
    """Return a JPEG whose EXIF segments are inside of a segment that has no length for decoders."""
    exif = jpeg_segment(0xE1, b"Exif\0\0" + bytes(50)) * 1_000
    return jpeg_of_segments(b"\xff\xd8" + struct.pack(">H", len(exif)) + exif, 20 << 20)


def webp_of(*chunks: tuple[bytes, bytes], flags: int = 0, size: tuple[int, int] = (120, 80)) -> bytes:
    """Return a WEBP of these chunks, with an extended header."""
    side = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
    everything = [(b"VP8X", bytes([flags, 0, 0, 0]) + side), *chunks]
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in everything
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_with(kind: bytes, data: bytes, flag: int) -> bytes:
    """Return a small lossy WEBP with a chunk of metadata."""
    return webp_of((kind, data), (b"VP8 ", _lossy_pixels((120, 80))), flags=flag)


def _lossy_pixels(size: tuple[int, int]) -> bytes:
    plain = encode_image(Image.new("RGB", size, (90, 20, 40)), "WEBP", quality=10)
    return plain[20 : 20 + struct.unpack_from("<I", plain, 16)[0]]


class _Bits:
    """A writer of bits, the lowest bit of each byte first, as lossless WEBP reads them."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, value: int, count: int) -> None:
        """Append the lowest `count` bits of a value."""
        self._parts.append(format(value, f"0{count}b")[::-1])

    def to_bytes(self) -> bytes:
        """Return the bits as bytes."""
        text = "".join(self._parts)
        return int(text[::-1] or "0", 2).to_bytes(-(-len(text) // 8), "little")


def lossless_groups() -> bytes:
    """Return the lossless pixels of 1,024 x 1,024 black pixels with 65,536 groups of five Huffman codes.

    The decoder builds a table of a kilobyte for each code. The format is that of RFC 9649, section 3.
    """
    bits = _Bits()
    bits.add(0, 1)  # no transform
    bits.add(0, 1)  # no color cache
    bits.add(1, 1)  # several groups: an image of their numbers follows
    bits.add(0, 3)  # one number for 4 x 4 pixels
    bits.add(0, 1)  # no color cache
    for symbols in (280, 256):  # green and red: 256 symbols of eight bits each
        bits.add(0, 1)
        bits.add(8, 4)  # 12 lengths of the code of lengths; only the last one, for length 8, is not 0
        bits.add(0, 33)
        bits.add(1, 3)
        bits.add(symbols > 256, 1)
        if symbols > 256:
            bits.add(3, 3)
            bits.add(254, 8)
    for _ in range(3):  # blue, alpha and distance: one symbol
        bits.add(1, 4)
    for number in range(GROUPS):
        bits.add(number, 16)
    for _ in range(GROUPS):
        bits.add(0b0001_0001_0001_0001_0001, 20)  # five codes of one symbol, which need no bits
    return bits.to_bytes()


def webp_of_groups() -> bytes:
    """Return a lossless WEBP of one megapixel whose Huffman codes fill 400 MB."""
    header = b"\x2f" + struct.pack("<I", 1_023 | 1_023 << 14)
    return webp_of((b"VP8L", header + lossless_groups()), size=(1_024, 1_024))


def webp_of_alpha_groups() -> bytes:
    """Return a lossy WEBP of one megapixel whose transparency has the same Huffman codes."""
    size = (1_024, 1_024)
    alpha, color = b"\x01" + lossless_groups(), _lossy_pixels(size)
    return webp_of((b"ALPH", alpha), (b"VP8 ", color), flags=0x10, size=size)


def avif_of_extents(count: int, length: int) -> bytes:
    """Return an AVIF whose EXIF has `count` parts, most of them copies of `length` bytes of the file."""
    plain = encode_image(build_orientation_image(), "AVIF", exif=exif_with_location())
    start = plain.index(b"iloc") - 4
    size = int.from_bytes(plain[start : start + 4], "big")
    content = plain[start + 8 : start + size]
    assert content[:6] == b"\0\0\0\0\x44\0", content[:8]  # version 0, offsets and lengths of four bytes
    items = [content[8 + 14 * number :][:14] for number in range(int.from_bytes(content[6:8], "big"))]
    grown = 8 * (count - 1)
    rebuilt = b""
    for number, item in enumerate(items):
        identity, _, extents, offset, item_bytes = struct.unpack(">HHHII", item)
        assert extents == 1
        is_exif = number == len(items) - 1
        rebuilt += struct.pack(">HHHII", identity, 0, count if is_exif else 1, offset + grown, item_bytes)
        rebuilt += struct.pack(">II", 0, length) * (count - 1) if is_exif else b""
    box = struct.pack(">I", size + grown) + b"iloc" + content[:8] + rebuilt
    changed = bytearray(plain[:start] + box + plain[start + size :] + bytes(length))
    meta = changed.index(b"meta") - 4
    changed[meta : meta + 4] = struct.pack(">I", int.from_bytes(changed[meta : meta + 4], "big") + grown)
    return bytes(changed)


def avif_of_items(count: int = 65_000) -> bytes:
    """Return an AVIF that lists very many items: the decoder looks each one up in the list of the others."""
    plain = encode_image(build_orientation_image(), "AVIF")
    entries = b"".join(
        struct.pack(">I4sIHH", 21, b"infe", 2 << 24, 100 + number, 0) + b"junk\0" for number in range(count)
    )
    start = plain.index(b"iinf") - 4
    size = int.from_bytes(plain[start : start + 4], "big")
    old = int.from_bytes(plain[start + 12 : start + 14], "big")
    content = struct.pack(">H", old + count) + plain[start + 14 : start + size] + entries
    box = struct.pack(">I4sI", len(content) + 12, b"iinf", 0) + content
    changed = bytearray(plain[:start] + box + plain[start + size :])
    meta = changed.index(b"meta") - 4
    grown = int.from_bytes(changed[meta : meta + 4], "big") + len(entries)
    changed[meta : meta + 4] = struct.pack(">I", grown)
    return bytes(changed)


def gif_of_comments(block: bytes, size: int = LARGE) -> bytes:
    """Return a GIF whose comment has as many blocks as fit."""
    plain = encode_image(build_orientation_image(), "GIF")
    frame = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
    return plain[:frame] + b"\x21\xfe" + block * (size // len(block)) + b"\0" + plain[frame:]


def gif_of_blocks() -> bytes:
    """Return a GIF whose pixels are followed by blocks of one byte."""
    plain = encode_image(build_orientation_image(), "GIF")
    return plain[:-2] + b"\x01\x00" * (LARGE // 2) + b"\0;"


def jpeg_of_entities() -> bytes:
    """Return a JPEG whose XMP packet would expand to a billion characters (billion laughs)."""
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    packet = f'<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><x>&e9;</x>'.encode()
    return encode_with_packet(build_orientation_image(), "JPEG", packet)


def _with_xmp(file_format: str, depth: int) -> bytes:
    """Return an image with an XMP packet of elements inside elements."""
    options = {"max_threads": 1} if file_format == "AVIF" else {}
    packet = b"<a>" * depth + b"</a>" * depth
    return encode_with_packet(build_orientation_image(), file_format, packet, **options)


def _segment(marker: int, start: bytes) -> bytes:
    return jpeg_segment(marker, start.ljust(65_533, b"\x01"))


def _png_texts(kind: bytes, head: bytes) -> Callable[[], bytes]:
    return lambda: png_of_chunks(kind, head + broken_megabyte())


ACCEPTED = ("jpg", "png", "webp")
UNREADABLE, TOO_LARGE = ("UnreadableImage",), ("TooLarge",)

Bombs = dict[str, tuple[Iterable[str], Callable[[], bytes]]]

SMALL_BOMBS: Bombs = {
    "png: one chunk of pixels": (UNREADABLE, lambda: png_of(deflated_zeros(1_024))),
    "png: many chunks of pixels": (UNREADABLE, lambda: split_png(png_of(deflated_zeros(1_024)))),
    "png: interlaced": (UNREADABLE, lambda: png_of(deflated_zeros(1_024), kind=(8, 2, 1))),
    "png: one bit a pixel": (UNREADABLE, lambda: png_of(deflated_zeros(1_024), kind=(1, 0, 0))),
    # Pillow stops after the announced rows, and 16-bit files are always re-encoded.
    "png: 16 bits": (ACCEPTED, lambda: png_of(deflated_zeros(1_024), kind=(16, 2, 0))),
    "png: a text": (ACCEPTED, lambda: png_of_compressed(b"zTXt", b"Title\0\0")),
    "png: an international text": (ACCEPTED, lambda: png_of_compressed(b"iTXt", b"Title\0\1\0\0\0")),
    "png: a profile": (UNREADABLE, lambda: png_of_compressed(b"iCCP", b"p\0\0")),
    "png: an orientation": (UNREADABLE, lambda: png_of_compressed(b"zTXt", b"Raw profile type exif\0\0")),
    "png: 64 wide texts": (ACCEPTED, png_of_texts),
    "png: xmp that inflates": (
        UNREADABLE,
        lambda: png_of_compressed(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
    ),
    **{
        f"{name}: nested xmp": (ACCEPTED, partial(_with_xmp, name.upper(), depth))
        for name, depth in (("jpeg", 9_000), ("png", 130_000), ("webp", 130_000), ("avif", 130_000))
    },
    "jpeg: xmp with entities": (ACCEPTED, jpeg_of_entities),
    "jpeg: short exif": (TOO_LARGE, lambda: jpeg_of_segments(jpeg_segment(0xE1, b"Exif\0\0x"), 4 * MEGABYTE)),
    "webp: codes": (UNREADABLE, webp_of_groups),
    "webp: codes of the transparency": (UNREADABLE, webp_of_alpha_groups),
    "avif: exif of copies": (UNREADABLE, lambda: avif_of_extents(2_000, MEGABYTE)),
    "avif: items": (UNREADABLE, avif_of_items),
    "gif: blocks of a comment": (TOO_LARGE, lambda: gif_of_comments(b"\x02ab", 2 * MEGABYTE)),
}
"""What normalization does with each file (the stored extension or the error), and the file."""

LARGE_BOMBS: Bombs = {
    "png: many texts": (TOO_LARGE, _png_texts(b"zTXt", b"Title\0\0")),
    "png: many international texts": (TOO_LARGE, _png_texts(b"iTXt", b"Title\0\1\0\0\0")),
    "png: many profiles": (TOO_LARGE, _png_texts(b"iCCP", b"p\0\0")),
    "png: lines of an orientation": (
        ACCEPTED,
        lambda: png_with(png_chunk(b"tEXt", b"Raw profile type exif\0".ljust(LARGE, b"\n"))),
    ),
    "png: a plain text": (
        ACCEPTED,
        lambda: png_with(png_chunk(b"iTXt", b"t\0\0\0\0\0" + "😀".encode().ljust(LARGE, b"a"))),
    ),
    "png: exif": (
        ACCEPTED,
        lambda: png_with(png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff".ljust(LARGE, b"\1"))),
    ),
    "png: a palette": (UNREADABLE, lambda: png_with(png_chunk(b"PLTE", bytes(LARGE)))),
    "png: unknown": (ACCEPTED, lambda: png_with(png_chunk(b"prVt", bytes(LARGE)))),
    "png: many empty chunks": (TOO_LARGE, lambda: png_of_chunks(b"prVt", b"")),
    "png: many frames": (TOO_LARGE, lambda: png_of_chunks(b"fcTL", bytes(26))),
    "jpeg: long exif": (
        ACCEPTED,
        lambda: jpeg_of_segments(_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\x15\x00")),
    ),
    "jpeg: hidden exif": (TOO_LARGE, jpeg_with_hidden_segments),
    "jpeg: profiles": (ACCEPTED, lambda: jpeg_of_segments(_segment(0xE2, b"ICC_PROFILE\0\1\1"))),
    "jpeg: xmp": (ACCEPTED, lambda: jpeg_of_segments(_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0"))),
    "jpeg: photoshop": (ACCEPTED, lambda: jpeg_of_segments(_segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 9))),
    "jpeg: previews": (ACCEPTED, lambda: jpeg_of_segments(_segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\xff\xff"))),
    "jpeg: comments": (TOO_LARGE, lambda: jpeg_of_segments(b"\xff\xfe\0\2")),
    "jpeg: tables": (UNREADABLE, lambda: jpeg_of_segments(_segment(0xDB, b"\0"))),
    "jpeg: components": (UNREADABLE, lambda: jpeg_of_segments(_segment(0xC0, b"\x08\0\x10\0\x10\3"))),
    "jpeg: frames": (UNREADABLE, lambda: jpeg_of_segments(jpeg_segment(0xC0, b"\x08\0\x10\0\x10\1\1\x11\0"))),
    "jpeg: zeros before the header": (ACCEPTED, lambda: jpeg_with(b"\xff\xfe\0\2", bytes(LARGE))),
    "jpeg: padding": (ACCEPTED, lambda: jpeg_with(b"\xff" * LARGE)),
    "jpeg: scans": (TOO_LARGE, lambda: jpeg_of_segments(b"\xff\xda\0\2")),
    "webp: exif": (ACCEPTED, lambda: webp_with(b"EXIF", b"MM\0*\0\0\0\x08\xff\xff".ljust(LARGE, b"\1"), 8)),
    "webp: a profile": (ACCEPTED, lambda: webp_with(b"ICCP", bytes(LARGE), 32)),
    "webp: xmp": (ACCEPTED, lambda: webp_with(b"XMP ", bytes(LARGE), 4)),
    "webp: unknown": (ACCEPTED, lambda: webp_with(b"junk", bytes(LARGE), 0)),
    "webp: many frames": (TOO_LARGE, lambda: webp_of_frames(500_000)),
    "avif: exif": (UNREADABLE, lambda: avif_of_extents(2, LARGE)),
    "gif: long blocks of a comment": (ACCEPTED, lambda: gif_of_comments(b"\xff".ljust(256, b"a"))),
    "gif: empty comments": (TOO_LARGE, lambda: gif_of_comments(b"\0\x21\xfe")),
    "gif: blocks after the pixels": (TOO_LARGE, gif_of_blocks),
}
"""The same for files of up to 45 MB."""

BOMBS = SMALL_BOMBS | LARGE_BOMBS
