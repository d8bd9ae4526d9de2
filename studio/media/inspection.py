"""Check the type and the size limits of an image file before it is decoded.

A few kilobytes can declare an image that fills the memory (decompression bomb), and the file name and the
declared media type are controlled by the client. So the type is read from the content, and bytes, pixels,
frames, scans and chunks are checked against limits before a decoder allocates memory. Nothing here decodes
pixels.
"""

import io
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import BinaryIO

from PIL import Image

from db.errors import NotAnImage, TooLarge, UnreadableImage
from studio.media.reduction import JPEG_SCAN, check_frames, check_size, jpeg_segments, reduce_file
from studio.media.sandbox import DecodeError, FileHeader, inspect_in_subprocess
from studio.media.stored_image import CONTAINER_FORMATS, MAX_FILE_BYTES, MAX_PIXELS

# malloc returns blocks of more than 32 MB to the system when they are freed. It keeps smaller ones, such as
# Pillow's default of 16 MB, in the arena of each thread: memory would grow with the number of threads.
# https://pillow.readthedocs.io/en/stable/reference/block_allocator.html
Image.core.set_block_size(64 * 1024 * 1024)  # type: ignore[attr-defined]  # documented, but not typed

# A progressive JPEG is decoded once per scan: a small file with very many scans would keep a core busy. Ten
# are usual; 20 scans of an image with MAX_PIXELS take about two seconds.
MAX_JPEG_SCANS = 100
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS

_UNREADABLE_HEADER = "The file's header cannot be read"
_STORED_FORMATS = ["JPEG", "PNG", "WEBP"]
_AVIF_BRANDS = {b"avif", b"avis"}
# The brands of images that HEVC compresses. Others have only a brand of the container, `mif1` or `msf1`.
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_ACCEPTED = "JPEG, PNG, WEBP, AVIF, HEIC or GIF image"
_OTHER_FORMATS = {
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"II+\x00": "a TIFF image",
    b"MM\x00+": "a TIFF image",
    b"BM": "a BMP image",
    b"<svg": "an SVG image",
    b"8BPS": "a Photoshop file",
    b"%PDF-": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
}
"""The first bytes of formats that people try to upload, and their names."""


@dataclass(frozen=True)
class ImageInfo:
    """The headers of a file: Pillow's format name, the size before EXIF rotation, the frame count."""

    data: bytes
    """The file without what no decoder needs (`reduction`)."""
    file_format: str
    width: int
    height: int
    frames: int
    header: FileHeader | None = None
    """The header of an AVIF or HEIC file, which is opened in a subprocess only."""


def read_bounded(file: BinaryIO) -> bytes:
    """Read a file of at most `MAX_FILE_BYTES` (50 MiB) into memory.

    Raises:
        TooLarge: The file has more bytes; reading stops at the limit.
        UnreadableImage: The file is empty.
    """
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(f"An image may have at most {MAX_FILE_BYTES} bytes")
    if not data:
        raise UnreadableImage("The file is empty")
    return data


def inspect_image(data: bytes) -> ImageInfo:
    """Read the headers of a file and check them against the limits.

    Raises:
        NotAnImage: The content is not JPEG, PNG, WEBP, AVIF, HEIC or GIF.
        TooLarge: The image exceeds a limit (pixels, side, frames, scans, chunks, segments or blocks).
        UnreadableImage: The headers are damaged.
    """
    file_format = _sniff(data)
    data, frames = reduce_file(data, file_format)
    if file_format in CONTAINER_FORMATS:
        header = _inspect_in_subprocess(data, file_format)
        return ImageInfo(data, file_format, header.width, header.height, header.frames, header)
    with open_image(data, file_format) as image:
        check_size(*image.size)
        if file_format == "JPEG":
            _check_scans(data, image.width * image.height)
        return ImageInfo(data, file_format, image.width, image.height, frames)


def open_image(data: bytes, file_format: str) -> Image.Image:
    """Open an image without decoding its pixels; raise TooLarge or UnreadableImage like `inspect_image`."""
    try:
        return Image.open(io.BytesIO(data), formats=[file_format])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"An image may have at most {MAX_PIXELS} pixels") from error
    except Exception as error:  # Pillow's parsers raise many kinds of errors on hostile headers.
        raise UnreadableImage(_UNREADABLE_HEADER) from error


def open_stored(data: bytes) -> Image.Image:
    """Open an image that this server has stored, without decoding its pixels.

    Only the decoders of stored formats are tried, which keeps the attack surface small.
    """
    return Image.open(io.BytesIO(data), formats=_STORED_FORMATS)


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
    if _is_heic(data) and _can_decode_heic():
        return "HEIC"
    found = _name_other_format(data)
    if found is None:
        raise NotAnImage(f"The content is not a {_ACCEPTED}")
    raise NotAnImage(f"The content is {found}: send a {_ACCEPTED}")


def _name_other_format(data: bytes) -> str | None:
    """Return what a file of a known format that is not accepted is, None for any other content."""
    if _is_heic(data):
        return "a HEIC image"
    if data[4:8] == b"ftyp" and {b"mif1", b"msf1"} & _brands(data):
        return "a HEIF image without HEVC"
    return next((name for start, name in _OTHER_FORMATS.items() if data.startswith(start)), None)


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and bool(_HEIC_BRANDS & _brands(data))


@cache
def _can_decode_heic() -> bool:
    """Return whether the decoder is installed, without loading it. An operator may leave it out."""
    return find_spec("pi_heif") is not None


def _brands(data: bytes) -> set[bytes]:
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[start : start + 4] for start in range(16, end, 4))}


def _inspect_in_subprocess(data: bytes, file_format: str) -> FileHeader:
    try:
        header = inspect_in_subprocess(data, file_format)
    except DecodeError as error:
        raise UnreadableImage(_UNREADABLE_HEADER) from error
    check_size(header.width, header.height)
    check_frames(header.frames)
    return header


def _check_scans(data: bytes, pixels: int) -> None:
    scans = sum(segment.marker == JPEG_SCAN for segment in jpeg_segments(data))
    allowed = min(MAX_JPEG_SCANS, MAX_SCANNED_PIXELS // max(1, pixels))
    if scans > allowed:
        raise TooLarge(f"An image of this size may have at most {allowed} scans")
