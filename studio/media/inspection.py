"""Check the type and the size limits of an image file before it is decoded.

A few kilobytes can declare an image that fills the memory (decompression bomb), and the file name and the
declared media type are controlled by the client. So the type is read from the content, and bytes, pixels,
frames, scans and chunks are checked against limits before a decoder allocates memory. Nothing here decodes
pixels.
"""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from db.errors import NotAnImage, TooLarge, UnreadableImage
from studio.media.stored_image import MAX_FILE_BYTES, MAX_PIXELS

# malloc returns blocks of more than 32 MB to the system when they are freed. It keeps smaller ones, such as
# Pillow's default of 16 MB, in the arena of each thread: memory would grow with the number of threads.
# https://pillow.readthedocs.io/en/stable/reference/block_allocator.html
Image.core.set_block_size(64 * 1024 * 1024)  # type: ignore[attr-defined]  # documented, but not typed

MAX_SIDE = 16_384
MAX_FRAMES = 1_000
# A progressive JPEG is decoded once per scan: a small file with very many scans would keep a core busy. Ten
# are usual; 20 scans of an image with MAX_PIXELS take about two seconds.
MAX_JPEG_SCANS = 100
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS
# Pillow inflates up to a megabyte of each compressed text or profile of a PNG. Its own limit of 64 MB counts
# intact texts only: a file of 45 MB could keep a core busy for minutes. Usual files have fewer than ten.
MAX_COMPRESSED_CHUNKS = 64
# Pillow takes 4 microseconds per empty chunk: 16 seconds for 45 MB of them. libpng writes 6,400 chunks into a
# file of 50 MB.
MAX_PNG_CHUNKS = 32_768

JPEG_SCAN, JPEG_END = 0xDA, 0xD9
# Markers followed by a length, and EOI. Restart markers and escaped 0xFF bytes are part of a scan.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_COMPRESSED_CHUNKS = (b"iCCP", b"zTXt", b"iTXt")
_STORED_FORMATS = ["JPEG", "PNG", "WEBP"]
_AVIF_BRANDS = {b"avif", b"avis"}


@dataclass(frozen=True)
class ImageInfo:
    """The headers of a file: Pillow's format name, the size before EXIF rotation, the frame count."""

    file_format: str
    width: int
    height: int
    frames: int


@dataclass(frozen=True)
class JpegSegment:
    """One marker segment of a JPEG, `data[start:end]`; a scan includes its entropy-coded bytes."""

    marker: int
    start: int
    end: int


def read_bounded(file: BinaryIO) -> bytes:
    """Read a file of at most `MAX_FILE_BYTES` (50 MiB) into memory.

    Raises:
        TooLarge: The file has more bytes; reading stops at the limit.
        UnreadableImage: The file is empty.
    """
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(f"An image may have at most {MAX_FILE_BYTES} bytes.")
    if not data:
        raise UnreadableImage("The file is empty.")
    return data


def inspect_image(data: bytes) -> ImageInfo:
    """Read the headers of a file and check them against the limits.

    Raises:
        NotAnImage: The content is not JPEG, PNG, WEBP, AVIF or GIF.
        TooLarge: The image exceeds a limit (pixels, side, frames, scans or chunks).
        UnreadableImage: The headers are damaged.
    """
    file_format = _sniff(data)
    if file_format == "GIF":
        _check_gif(data)
    if file_format == "PNG":
        _check_png(data)
    with open_image(data, file_format) as image:
        _check_size(*image.size)
        if file_format == "JPEG":
            _check_scans(data, image.width * image.height)
        # GIF frames are counted above: Pillow would parse every frame of a hostile file first.
        frames = 1 if file_format == "GIF" else getattr(image, "n_frames", 1)
        _check_frames(frames)
        return ImageInfo(file_format, image.width, image.height, frames)


def open_image(data: bytes, file_format: str) -> Image.Image:
    """Open an image without decoding its pixels; raise TooLarge or UnreadableImage like `inspect_image`."""
    try:
        return Image.open(io.BytesIO(data), formats=[file_format])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"An image may have at most {MAX_PIXELS} pixels.") from error
    except Exception as error:  # Pillow's parsers raise many kinds of errors on hostile headers.
        raise UnreadableImage("The file's header cannot be read.") from error


def open_stored(data: bytes) -> Image.Image:
    """Open an image that this server has stored, without decoding its pixels.

    Only the decoders of stored formats are tried, which keeps the attack surface small.
    """
    return Image.open(io.BytesIO(data), formats=_STORED_FORMATS)


def jpeg_segments(data: bytes) -> Iterator[JpegSegment]:
    """Yield the marker segments after SOI, including EOI; skip bytes between them, as decoders do."""
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        start, marker = match.start(), data[match.start() + 1]
        if marker == JPEG_END:
            yield JpegSegment(marker, start, start + 2)
            return
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == JPEG_SCAN:
            next_marker = _JPEG_MARKER.search(data, end)
            end = next_marker.start() if next_marker else len(data)
        yield JpegSegment(marker, start, min(end, len(data)))
        position = end


def _sniff(data: bytes) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and _AVIF_BRANDS & _brands(data):
        return "AVIF"
    raise NotAnImage("The content is not a JPEG, PNG, WEBP, AVIF or GIF image.")


def _brands(data: bytes) -> set[bytes]:
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[start : start + 4] for start in range(16, end, 4))}


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise TooLarge(f"An image may have at most {MAX_PIXELS} pixels and {MAX_SIDE} pixels a side.")


def _check_scans(data: bytes, pixels: int) -> None:
    scans = sum(segment.marker == JPEG_SCAN for segment in jpeg_segments(data))
    allowed = min(MAX_JPEG_SCANS, MAX_SCANNED_PIXELS // max(1, pixels))
    if scans > allowed:
        raise TooLarge(f"An image of this size may have at most {allowed} scans.")


def _check_frames(frames: int) -> None:
    if frames > MAX_FRAMES:
        raise TooLarge(f"An image may have at most {MAX_FRAMES} frames.")


def _check_png(data: bytes) -> None:
    """Check the number of chunks of a PNG.

    Compressed chunks are counted by searching for their type as bytes, so that an unusual arrangement of
    chunks cannot hide one from this check.
    """
    if sum(data.count(kind) for kind in _COMPRESSED_CHUNKS) > MAX_COMPRESSED_CHUNKS:
        raise TooLarge(
            f"A PNG may have at most {MAX_COMPRESSED_CHUNKS} international or compressed texts and profiles."
        )
    position = 8
    for _ in range(MAX_PNG_CHUNKS):
        if position >= len(data) or data[position + 4 : position + 8] == b"IEND":
            return
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    raise TooLarge(f"A PNG may have at most {MAX_PNG_CHUNKS} chunks.")


def _check_gif(data: bytes) -> None:
    """Check the size and number of the frames of a GIF, up to where the file is truncated."""
    try:
        for number, (right, bottom) in enumerate(_gif_frames(data), start=1):
            _check_size(right, bottom)
            _check_frames(number)
    except (IndexError, struct.error):
        return  # A truncated file is accepted if its first frame can be decoded.


def _gif_frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the right and bottom edge of each frame: a frame may be larger than the declared screen."""
    position = 13 + _gif_palette_bytes(data[10])
    # 0x21 starts an extension, 0x2C a frame. Pillow stops at anything else too.
    while (kind := data[position]) in (0x21, 0x2C):
        if kind == 0x2C:
            left, top, width, height, flags = struct.unpack_from("<HHHHB", data, position + 1)
            yield left + width, top + height
            position += 9 + _gif_palette_bytes(flags)
        position = _skip_gif_blocks(data, position + 2)


def _gif_palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_gif_blocks(data: bytes, position: int) -> int:
    while data[position]:
        position += data[position] + 1
    return position + 1
