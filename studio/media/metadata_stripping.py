"""What stays of a picture's file when its compressed pixels are kept: they, and what it takes to decode them.

Parts that may hold anything are not copied but left out, or written anew in their shortest form. A file that
is built unusually is not kept. What hides among the compressed pixels themselves stays, as it would in pixels
that are encoded anew: the media type that a file is served with keeps it from being more than a picture.
"""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from db.errors import UnreadableImage
from studio.media.inspection import JPEG_END, JPEG_SCAN, jpeg_segments

_JFIF, _ADOBE, _COMMENT = 0xE0, 0xEE, 0xFE
# Version 1.1, square pixels, no thumbnail; and the start of what tells, in one byte, how colours are coded.
_JFIF_HEADER = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
_ADOBE_HEADER = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0"
_JPEG_METADATA = {*range(0xE0, 0xF0), _COMMENT}
# Baseline, extended and progressive frames in Huffman code, which every browser reads, with their tables.
_JPEG_PIXELS = {0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, JPEG_SCAN, JPEG_END}
_PNG_PALETTE = 3
_MAX_TRANSPARENCY_BYTES = {0: 2, 2: 6, _PNG_PALETTE: 256}
_WEBP_PIXELS = ([b"VP8 "], [b"VP8L"], [b"ALPH", b"VP8 "])
# Adam7: the first column and row of each pass, and the steps to the next.
_PNG_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_ONE_PASS = ((0, 0, 1, 1),)
_PNG_SAMPLES = {0: 1, 2: 3, _PNG_PALETTE: 1, 4: 2, 6: 4}
_PIECE_BYTES, _SLICE_BYTES = 1 << 20, 1 << 16
# Some encoders append rows that decoders ignore: such a file is encoded anew, and not refused.
_SPARE_BYTES = 1 << 20


def strip_metadata(data: bytes, image: Image.Image, file_format: str) -> bytes | None:
    """Return the file with its compressed pixels untouched and the rest cut away.

    Returns:
        The bytes to store, or None when the picture must be encoded anew.

    Raises:
        Unreadable: The pixels of a PNG inflate to far more than its header announces.
    """
    if file_format == "JPEG" and image.mode in ("L", "RGB"):
        return _strip_jpeg(data)
    if file_format == "PNG" and data[24] <= 8:
        return _strip_png(data)
    return _strip_webp(data, image) if file_format == "WEBP" else None


def _strip_jpeg(data: bytes) -> bytes | None:
    """Without comments, application data but the colour transform, and what a phone appended (videos)."""
    marker, parts = 0, [data[:2]]
    for segment in jpeg_segments(data):
        marker = segment.marker
        body = data[segment.start : segment.end]
        if marker == _JFIF and body[4:9] == b"JFIF\0" and len(parts) == 1:
            parts.append(_JFIF_HEADER)
        elif marker == _ADOBE and body[4:9] == b"Adobe" and len(body) >= 16:
            parts.append(_ADOBE_HEADER + body[15:16])
        elif marker in _JPEG_PIXELS:
            parts.append(body)
        elif marker not in _JPEG_METADATA:
            return None
    return b"".join(parts) if marker == JPEG_END else None


def _strip_png(data: bytes) -> bytes | None:
    if data[12:16] != b"IHDR":
        return None
    longest = _max_png_chunk_sizes(data[25])
    parts, pixels, seen, position, kind = [data[:8]], [], set(), 8, b""
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"IDAT":
            pixels.append(data[position + 8 : end - 4])
            parts.append(data[position:end])
        elif kind in longest:
            if kind in seen or length > longest[kind]:
                return None
            seen.add(kind)
            parts.append(data[position:end])
        position = len(data) if kind == b"IEND" else end
    is_whole = kind == b"IEND" and _is_one_stream(pixels, _announced_bytes(data[16:29]))
    return b"".join(parts) if is_whole else None


def _max_png_chunk_sizes(colour_type: int) -> dict[bytes, int]:
    """The chunks that a decoder needs beside the pixels, with the most bytes that they may have."""
    chunks = {b"IHDR": 13, b"sRGB": 1, b"IEND": 0}
    if colour_type in _MAX_TRANSPARENCY_BYTES:
        chunks[b"tRNS"] = _MAX_TRANSPARENCY_BYTES[colour_type]
    return chunks | ({b"PLTE": 768} if colour_type == _PNG_PALETTE else {})


def _announced_bytes(header: bytes) -> int:
    """Return how many bytes the rows of pixels have, by the content of the IHDR chunk."""
    width, height, depth, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", header[:13])
    bits = depth * _PNG_SAMPLES[colour_type]
    total = 0
    for left, top, across, down in _PNG_PASSES if interlaced else _ONE_PASS:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        # A byte before each row says how it is filtered. A pass without columns has no rows.
        total += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    return total


def _is_one_stream(parts: list[bytes], announced: int) -> bool:
    """Return whether the compressed pixels end where their bytes end, and are not more than announced.

    Raises:
        Unreadable: They inflate to far more than announced. No more than that is inflated.
    """
    inflater, inflated = zlib.decompressobj(), 0
    try:
        for part in _slices(parts):
            if inflater.eof:
                return False
            piece, grown = part, _PIECE_BYTES
            # A full piece means that there may be more, even of input that is used up. `flush` has no bound.
            while grown == _PIECE_BYTES:
                grown = len(inflater.decompress(piece, _PIECE_BYTES))
                piece = inflater.unconsumed_tail
                inflated += grown
                if inflated > announced + _SPARE_BYTES:
                    raise UnreadableImage("The picture has more pixels than its header announces.")
    except zlib.error:
        return False
    return inflated <= announced and inflater.eof and not inflater.unused_data


def _slices(parts: list[bytes]) -> Iterator[bytes]:
    """Yield the bytes in short slices: what a call leaves over is copied each time."""
    for part in parts:
        for start in range(0, len(part), _SLICE_BYTES):
            yield part[start : start + _SLICE_BYTES]


def _strip_webp(data: bytes, image: Image.Image) -> bytes | None:
    chunks, position = [], 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        if kind in (b"VP8 ", b"VP8L", b"ALPH"):
            chunks.append(data[position:end].ljust(8 + length + length % 2, b"\0"))
        position = end
    kinds = [chunk[:4] for chunk in chunks]
    if kinds not in _WEBP_PIXELS:
        return None
    if kinds[0] == b"ALPH":
        size = (image.width - 1).to_bytes(3, "little") + (image.height - 1).to_bytes(3, "little")
        chunks.insert(0, b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + size)
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body
