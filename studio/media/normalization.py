"""Normalize an image file: upright, sRGB, 8 bits a channel, one frame, without metadata.

Phones write their GPS position into photos, so metadata is never stored. The only exception is the IPTC
Digital Source Type: a new XMP packet holds it, and nothing else of the old one.

A JPEG, PNG or still WEBP that is already upright, sRGB and 8-bit keeps its compressed pixels and only loses
its metadata (`metadata_stripping`). Every other file is re-encoded: opaque images from a lossy source as JPEG
of quality 95 without chroma subsampling, all others as PNG. So AVIF, HEIC and GIF are never stored.
"""

import hashlib
import io
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms

from db.errors import UnreadableImage
from studio.media.digital_source_type import build_packet, parse_packet
from studio.media.inspection import ImageInfo, inspect_image, open_image, read_bounded
from studio.media.memory_gate import load_slot, reserve_memory
from studio.media.metadata_stripping import strip_metadata
from studio.media.sandbox import DecodeError, FileHeader, decode_in_subprocess
from studio.media.stored_image import StoredImage
from studio.media.xmp_embedding import embed_xmp

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_PROFILE_MODES = {"RGB": ("RGB", "RGBA"), "GRAY": ("L",), "CMYK": ("CMYK",)}
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_STRIP_ROWS = 256
_DAMAGED = "The image is damaged or incomplete"
# Larger images are sampled before their dominant color is computed.
_MAX_SAMPLED_SIDE = 2048

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def read_image(file: BinaryIO) -> StoredImage:
    """Return the normalized image of a file. The caller holds a slot of `memory_gate`.

    Raises:
        NotAnImage: The content is not of an accepted image format.
        TooLarge: The file exceeds a limit (bytes, pixels, side, frames, scans or chunks).
        UnreadableImage: The file is empty, damaged or truncated.
    """
    return _normalize_bounded(read_bounded(file))


def normalize(data: bytes, max_wait_seconds: float | None = None) -> StoredImage:
    """Take a slot of `memory_gate` and return the normalized image of a file's bytes.

    Raises:
        NotAnImage, TooLarge, UnreadableImage: As `read_image`.
        TimeoutError: No slot was free within `max_wait_seconds`.
    """
    with load_slot(max_wait_seconds):
        return _normalize_bounded(data)


def _normalize_bounded(data: bytes) -> StoredImage:
    inspected = inspect_image(data)
    del data
    with reserve_memory((inspected.width, inspected.height)):
        upright, stripped, xmp = _decode(inspected)
        stored, file_format = stripped or _encode(upright, inspected.file_format, inspected.data)
        if source_type := parse_packet(xmp):
            stored = embed_xmp(stored, build_packet(source_type))
        color = dominant_color(upright)
    return StoredImage(
        data=stored,
        extension=_EXTENSIONS[file_format],
        width=upright.width,
        height=upright.height,
        has_alpha=upright.mode == "RGBA",
        dominant_color=color,
        content_hash=hashlib.sha256(stored).hexdigest(),
    )


def dominant_color(image: Image.Image) -> str:
    """Return the most frequent color of the visible pixels as `#rrggbb`."""
    if max(image.size) > _MAX_SAMPLED_SIDE:
        # Other resampling filters would convert, and so copy, the whole image first.
        image = _downsample(image)
    small = image.convert("RGBA")
    small.thumbnail((96, 96), reducing_gap=2.0)
    pixels = np.asarray(small).reshape(-1, 4)
    visible = pixels[pixels[:, 3] > 127][:, :3]
    if not len(visible):
        return "#ffffff"
    coarse = (visible >> 4).astype(np.int32) @ np.array([256, 16, 1])
    members = visible[coarse == np.bincount(coarse).argmax()]
    return "#" + bytes(members.mean(axis=0).round().astype(np.uint8)).hex()


def _downsample(image: Image.Image) -> Image.Image:
    share = _MAX_SAMPLED_SIDE / max(image.size)
    width, height = (max(1, round(side * share)) for side in image.size)
    return image.resize((width, height), Image.Resampling.NEAREST)


def _decode(inspected: ImageInfo) -> tuple[Image.Image, tuple[bytes, str] | None, bytes | None]:
    """Return the upright sRGB pixels, the stripped original if it need not be re-encoded, and its XMP packet.

    The original comes with its format name; it is None if the pixels must be re-encoded.
    """
    data, file_format = inspected.data, inspected.file_format
    image = _load(inspected)
    xmp = image.info.get("xmp")
    orientation = _orientation(image)
    profile = _foreign_profile(image)
    stripped = None
    if orientation == 1 and profile is None and inspected.frames == 1:
        stripped_bytes = strip_metadata(data, image, file_format)
        stripped = (stripped_bytes, file_format) if stripped_bytes else None
    pixels = _to_eight_bits(image)
    # Freed before the next conversion, so that at most two copies of the pixels exist instead of four.
    del image
    pixels = _to_srgb(pixels, profile)
    if orientation in _TRANSPOSITIONS:
        pixels = pixels.transpose(_TRANSPOSITIONS[orientation])
    # Pillow would write a comment of the source into the new file.
    pixels.info.clear()
    return pixels, stripped, xmp


def _load(inspected: ImageInfo) -> Image.Image:
    """Return the image with its pixels decoded; raise UnreadableImage if decoding fails."""
    if inspected.header is not None:
        return _load_with_header(inspected.data, inspected.file_format, inspected.header)
    image = open_image(inspected.data, inspected.file_format)
    if inspected.file_format == "WEBP" and not _is_plain_webp(inspected.data):
        loaded = _load_in_subprocess(inspected.data, "WEBP", image.mode, image.size)
        # The orientation and the color profile of the file.
        loaded.info.update(image.info)
        return loaded
    try:
        image.load()
    except Exception as error:  # Decoders raise OSError, SyntaxError, ValueError, EOFError ...
        raise UnreadableImage(_DAMAGED) from error
    return image


def _load_with_header(data: bytes, file_format: str, header: FileHeader) -> Image.Image:
    loaded = _load_in_subprocess(data, file_format, header.mode, (header.width, header.height))
    loaded.getexif()[_EXIF_ORIENTATION] = header.orientation
    loaded.info.update(icc_profile=header.profile, xmp=header.xmp)
    return loaded


def _is_plain_webp(data: bytes) -> bool:
    """Return whether nothing is lossless: then the size of the image limits the memory of the decoder."""
    return not any(kind in data for kind in (b"VP8L", b"ALPH", b"ANMF"))


def _load_in_subprocess(data: bytes, file_format: str, mode: str, size: tuple[int, int]) -> Image.Image:
    try:
        return Image.frombytes(mode, size, decode_in_subprocess(data, file_format, size))
    except (DecodeError, ValueError) as error:
        raise UnreadableImage(_DAMAGED) from error


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF is common and does not affect the pixels
        return 1
    return orientation if orientation in _TRANSPOSITIONS else 1


def _foreign_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """Return the embedded color profile, or None if it is sRGB, damaged or does not fit the mode."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        space = profile.profile.xcolor_space.strip()
        name = ImageCms.getProfileDescription(profile)
    except (KeyError, TypeError, OSError, ImageCms.PyCMSError):
        return None
    mode = "RGB" if image.mode == "P" else image.mode
    return profile if mode in _PROFILE_MODES.get(space, ()) and "srgb" not in name.lower() else None


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return the image as L, RGB, RGBA or CMYK with 8 bits a channel."""
    if image.mode.startswith("I"):
        return _scale_gray(np.asarray(image))
    if image.mode == "RGBA" or (image.mode in ("L", "RGB", "CMYK") and not image.has_transparency_data):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")


def _scale_gray(deep: np.ndarray) -> Image.Image:
    """Return 16-bit grays scaled to 8 bits, strip by strip; Pillow's own conversion clips them at 255."""
    gray = np.empty(deep.shape, np.uint8)
    for top in range(0, len(deep), _STRIP_ROWS):
        strip = deep[top : top + _STRIP_ROWS].astype(np.uint32)
        gray[top : top + _STRIP_ROWS] = ((strip + 128) // 257).clip(0, 255)
    return Image.fromarray(gray)


def _to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    if profile is not None:
        output_mode = "RGBA" if image.mode == "RGBA" else "RGB"
        try:
            converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode=output_mode)
        except (ImageCms.PyCMSError, ValueError):
            converted = None  # A profile that cannot be applied is ignored.
        if converted is not None:
            return converted
    return image.convert("RGB") if image.mode == "CMYK" else image


def _encode(image: Image.Image, source_format: str, source: bytes) -> tuple[bytes, str]:
    lossy = source_format in ("JPEG", "AVIF", "HEIC") or (
        source_format == "WEBP" and b"VP8L" not in source[:64]
    )
    output = io.BytesIO()
    if lossy and image.mode != "RGBA":
        image.save(output, "JPEG", quality=95, subsampling=0, icc_profile=None)
        return output.getvalue(), "JPEG"
    image.save(output, "PNG", compress_level=3, icc_profile=None)
    return output.getvalue(), "PNG"
