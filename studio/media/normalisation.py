"""Turns a file into the one form in which the studio keeps pictures: upright, sRGB, 8 bits a channel, one
frame, without metadata (a phone writes the place where it stood into its pictures).

The rule: the compressed pixels are kept and only the metadata is cut away, when the file is a JPEG, PNG or
still WEBP that is upright, sRGB and of 8 bits. Everything else is encoded anew: an opaque picture from a
lossy source as JPEG of quality 95 without chroma subsampling, any other as PNG. So AVIF and GIF are never
stored.
"""

import hashlib
import io
import struct
import threading
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms

from db.errors import Unreadable
from studio.media.inspection import (
    JPEG_END,
    Inspected,
    inspect,
    jpeg_segments,
    open_picture,
    read_bounded,
)

# A picture at the budget takes up to half a gigabyte while it is turned and converted: two at a time bound
# the memory. Variants take their turn here too.
decoding = threading.BoundedSemaphore(2)

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_PROFILE_MODES = {"RGB": ("RGB", "RGBA"), "GRAY": ("L",), "CMYK": ("CMYK",)}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_JFIF, _ADOBE, _COMMENT = 0xE0, 0xEE, 0xFE
_JPEG_METADATA = {*range(0xE0, 0xF0), _COMMENT}
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"sRGB", b"IDAT", b"IEND"}
_WEBP_CHUNKS = {b"VP8 ", b"VP8L", b"ALPH"}

CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "avif": "image/avif"}
EXTENSION_OF_TYPE = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/gif": "gif",
}
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class Picture:
    """A normalised picture: the bytes to store and what the database says about them."""

    data: bytes
    extension: str
    width: int
    height: int
    has_alpha: bool
    dominant_color: str
    content_hash: str

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.extension]


def read_picture(file: BinaryIO) -> Picture:
    """The picture in a file, as it is stored; NotAnImage, TooLarge or Unreadable when there is none."""
    return normalise(read_bounded(file))


def normalise(data: bytes) -> Picture:
    """The picture as it is stored; NotAnImage, TooLarge or Unreadable (truncated data included)."""
    inspected = inspect(data)
    with decoding:
        upright, kept = _decode(data, inspected)
        stored, file_format = kept or _encode(upright, inspected.file_format, data)
        color = dominant_color(upright)
    return Picture(
        data=stored,
        extension=_EXTENSIONS[file_format],
        width=upright.width,
        height=upright.height,
        has_alpha=upright.mode == "RGBA",
        dominant_color=color,
        content_hash=hashlib.sha256(stored).hexdigest(),
    )


def dominant_color(picture: Image.Image) -> str:
    """The most frequent colour among the visible pixels as `#rrggbb`."""
    small = picture.convert("RGBA")
    small.thumbnail((96, 96), reducing_gap=2.0)
    pixels = np.asarray(small).reshape(-1, 4)
    visible = pixels[pixels[:, 3] > 127][:, :3]
    if not len(visible):
        return "#ffffff"
    coarse = (visible >> 4).astype(np.int32) @ np.array([256, 16, 1])
    members = visible[coarse == np.bincount(coarse).argmax()]
    return "#" + bytes(members.mean(axis=0).round().astype(np.uint8)).hex()


def _decode(data: bytes, inspected: Inspected) -> tuple[Image.Image, tuple[bytes, str] | None]:
    """The upright sRGB pixels, and the original without its metadata where that is allowed to stay."""
    with open_picture(data, inspected.file_format) as picture:
        try:
            picture.load()
        except Exception as error:  # Decoders raise OSError, SyntaxError, ValueError, EOFError ...
            raise Unreadable("The picture is damaged or incomplete.") from error
        orientation = _orientation(picture)
        profile = _foreign_profile(picture)
        kept = None
        if orientation == 1 and profile is None and inspected.frames == 1:
            kept = _without_metadata(data, picture, inspected.file_format)
        pixels = _to_srgb(_eight_bits(picture), profile)
        return (pixels.transpose(_TURNS[orientation]) if orientation in _TURNS else pixels), kept


def _orientation(picture: Image.Image) -> int:
    try:
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF is common and says nothing about the pixels.
        return 1
    return orientation if orientation in _TURNS else 1


def _foreign_profile(picture: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The embedded colour profile, unless it is sRGB, damaged, or for another kind of pixels than these."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
        space = profile.profile.xcolor_space.strip()
        name = ImageCms.getProfileDescription(profile)
    except (KeyError, TypeError, OSError, ImageCms.PyCMSError):
        return None
    mode = "RGB" if picture.mode == "P" else picture.mode
    return profile if mode in _PROFILE_MODES.get(space, ()) and "srgb" not in name.lower() else None


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The same picture as L, RGB, RGBA or CMYK with 8 bits a channel."""
    if picture.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit greys at 255 instead of scaling them.
        return Image.fromarray(
            ((np.asarray(picture).astype(np.uint32) + 128) // 257).clip(0, 255).astype(np.uint8)
        )
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    if picture.mode in ("L", "RGB", "CMYK"):
        return picture.copy()
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _to_srgb(picture: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    if profile is not None:
        output_mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        try:
            converted = ImageCms.profileToProfile(picture, profile, _SRGB, outputMode=output_mode)
        except (ImageCms.PyCMSError, ValueError):
            converted = None  # A profile that cannot be applied is worth no more than none.
        if converted is not None:
            return converted
    return picture.convert("RGB") if picture.mode == "CMYK" else picture


def _encode(picture: Image.Image, source_format: str, source: bytes) -> tuple[bytes, str]:
    lossy = source_format in ("JPEG", "AVIF") or (source_format == "WEBP" and b"VP8L" not in source[:64])
    output = io.BytesIO()
    if lossy and picture.mode != "RGBA":
        picture.save(output, "JPEG", quality=95, subsampling=0, icc_profile=None)
        return output.getvalue(), "JPEG"
    picture.save(output, "PNG", compress_level=3, icc_profile=None)
    return output.getvalue(), "PNG"


def _without_metadata(data: bytes, picture: Image.Image, file_format: str) -> tuple[bytes, str] | None:
    """The file with its compressed pixels untouched and the rest cut away; None when it must be encoded."""
    bare = None
    if file_format == "JPEG" and picture.mode in ("L", "RGB"):
        bare = _bare_jpeg(data)
    elif file_format == "PNG" and data[24] <= 8:
        bare = _bare_png(data)
    elif file_format == "WEBP":
        bare = _bare_webp(data, picture)
    return (bare, file_format) if bare else None


def _bare_jpeg(data: bytes) -> bytes | None:
    """Without comments, application data but the colour transform, and what a phone appended (videos)."""
    marker, parts = 0, [data[:2]]
    for segment in jpeg_segments(data):
        marker = segment.marker
        body = data[segment.start : segment.end]
        if marker == _JFIF and body[4:9] == b"JFIF\0" and len(parts) == 1:
            # The header may hold a thumbnail: it is rewritten without.
            parts.append(b"\xff\xe0\x00\x10" + body[4:16].ljust(12, b"\0") + b"\0\0")
        elif marker not in _JPEG_METADATA or (marker == _ADOBE and body[4:9] == b"Adobe"):
            parts.append(body)
    return b"".join(parts) if marker == JPEG_END else None


def _bare_png(data: bytes) -> bytes | None:
    kind, parts, position = b"", [data[:8]], 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in _PNG_CHUNKS:
            parts.append(data[position:end])
        position = len(data) if kind == b"IEND" else end
    return b"".join(parts) if kind == b"IEND" else None


def _bare_webp(data: bytes, picture: Image.Image) -> bytes:
    chunks, position = [], 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        if kind in _WEBP_CHUNKS:
            chunks.append(data[position:end].ljust(8 + length + length % 2, b"\0"))
        position = end
    if any(chunk.startswith(b"ALPH") for chunk in chunks):
        size = (picture.width - 1).to_bytes(3, "little") + (picture.height - 1).to_bytes(3, "little")
        chunks.insert(0, b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + size)
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body
