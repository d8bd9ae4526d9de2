"""Strip metadata (EXIF, XMP, GPS positions, comments, embedded videos) without re-encoding the pixels.

Only the compressed pixels and what is needed to decode them are copied; `normalization` adds the one
property that is kept. Segments that can hold arbitrary data are dropped or replaced by their shortest valid
form. A file with an unusual structure is not stripped but re-encoded (`normalization`). Data that is hidden
in the pixels themselves is not detected; it is harmless, because files are served with an image media type
and `nosniff`.
"""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from db.errors import UnreadableImage
from studio.media.reduction import JPEG_END, JPEG_SCAN, jpeg_segments

_JFIF, _ADOBE, _COMMENT = 0xE0, 0xEE, 0xFE
# JFIF version 1.1 with square pixels and no thumbnail. The Adobe segment ends with one byte, the color
# transform.
_JFIF_HEADER = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
_ADOBE_HEADER = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0"
_JPEG_METADATA = {*range(0xE0, 0xF0), _COMMENT}
# Baseline, extended and progressive frames with Huffman coding, which every browser decodes, and their
# tables.
_JPEG_PIXELS = {0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, JPEG_SCAN, JPEG_END}
_PNG_PALETTE = 3
_MAX_TRANSPARENCY_BYTES = {0: 2, 2: 6, _PNG_PALETTE: 256}
_WEBP_PIXELS = ([b"VP8 "], [b"VP8L"], [b"ALPH", b"VP8 "])
# Adam7 interlacing: first column, first row, column step and row step of each pass.
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
# Some encoders append rows that decoders ignore. Such a file is re-encoded, not rejected.
_SPARE_BYTES = 1 << 20


def strip_metadata(data: bytes, image: Image.Image, file_format: str) -> bytes | None:
    """Return the file with its compressed pixels unchanged and its metadata removed.

    Args:
        data: The whole file.
        image: The same file as opened by Pillow.
        file_format: Pillow's format name.

    Returns:
        The bytes to store, or None if the image must be re-encoded.

    Raises:
        UnreadableImage: The pixels of a PNG inflate to far more than its header announces.
    """
    if file_format == "JPEG" and image.mode in ("L", "RGB"):
        return _strip_jpeg(data)
    if file_format == "PNG" and data[24] <= 8:
        return _strip_png(data)
    return _strip_webp(data, image) if file_format == "WEBP" else None


def _strip_jpeg(data: bytes) -> bytes | None:
    """Drop comments, application segments except the color transform, and data after the end of the image.

    Phones append videos there.
    """
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
    max_sizes = _max_png_chunk_sizes(data[25])
    parts, pixels, seen, position, kind = [data[:8]], [], set(), 8, b""
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"IDAT":
            pixels.append(data[position + 8 : end - 4])
            parts.append(data[position:end])
        elif kind in max_sizes:
            if kind in seen or length > max_sizes[kind]:
                return None
            seen.add(kind)
            parts.append(data[position:end])
        position = len(data) if kind == b"IEND" else end
    is_complete = kind == b"IEND" and _is_one_stream(pixels, _announced_bytes(data[16:29]))
    return b"".join(parts) if is_complete else None


def _max_png_chunk_sizes(color_type: int) -> dict[bytes, int]:
    """Return the chunks that a decoder needs besides the pixels, with their maximum size in bytes."""
    chunks = {b"IHDR": 13, b"sRGB": 1, b"IEND": 0}
    if color_type in _MAX_TRANSPARENCY_BYTES:
        chunks[b"tRNS"] = _MAX_TRANSPARENCY_BYTES[color_type]
    return chunks | ({b"PLTE": 768} if color_type == _PNG_PALETTE else {})


def _announced_bytes(header: bytes) -> int:
    """Return the number of bytes of the inflated rows, computed from the content of the IHDR chunk."""
    width, height, depth, color_type, _, _, interlaced = struct.unpack(">IIBBBBB", header[:13])
    bits = depth * _PNG_SAMPLES[color_type]
    total = 0
    for left, top, across, down in _PNG_PASSES if interlaced else _ONE_PASS:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        # Each row starts with one byte, its filter type. A pass without columns has no rows.
        total += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    return total


def _is_one_stream(parts: list[bytes], announced: int) -> bool:
    """Return whether the parts are exactly one zlib stream that inflates to at most the announced size.

    Raises:
        UnreadableImage: They inflate to far more than announced; inflation stops there.
    """
    inflater, inflated = zlib.decompressobj(), 0
    try:
        for part in _slices(parts):
            if inflater.eof:
                return False
            piece, grown = part, _PIECE_BYTES
            # A full piece means that more output may follow, even if the input is used up. `flush()` is not
            # used, because its output has no limit.
            while grown == _PIECE_BYTES:
                grown = len(inflater.decompress(piece, _PIECE_BYTES))
                piece = inflater.unconsumed_tail
                inflated += grown
                if inflated > announced + _SPARE_BYTES:
                    raise UnreadableImage("The image has more pixels than its header announces")
    except zlib.error:
        return False
    return inflated <= announced and inflater.eof and not inflater.unused_data


def _slices(parts: list[bytes]) -> Iterator[bytes]:
    """Yield the bytes in short slices: each call of the inflater copies the input that it leaves over."""
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
