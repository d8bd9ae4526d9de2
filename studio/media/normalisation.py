"""Turns a file into the one form in which the studio keeps pictures: upright, sRGB, 8 bits a channel, one
frame, without metadata (a phone writes the place where it stood into its pictures).

The rule: the compressed pixels are kept and everything around them is cut away (`stripping.py`), when the
file is a JPEG, PNG or still WEBP that is upright, sRGB, of 8 bits and built like any other. Everything else
is encoded anew: an opaque picture from a lossy source as JPEG of quality 95 without chroma subsampling, any
other as PNG. So AVIF and GIF are never stored.
"""

import hashlib
import io
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms

from db.errors import Unreadable
from studio.media.avif import Undecodable, decode_apart
from studio.media.inspection import Inspected, inspect, open_picture, read_bounded
from studio.media.picture import Picture
from studio.media.stripping import strip
from studio.media.turns import place, room_for

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
_STRIP_ROWS = 256
_DAMAGED = "The picture is damaged or incomplete."
# Beyond this, pictures are sampled before they are looked at in whole.
_LARGEST_LOOK = 2048

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def read_picture(file: BinaryIO) -> Picture:
    """The picture in a file, as it is stored; NotAnImage, TooLarge or Unreadable when there is none."""
    with place():
        return _normalised(read_bounded(file))


def normalise(data: bytes) -> Picture:
    """The picture as it is stored; NotAnImage, TooLarge or Unreadable (truncated data included)."""
    with place():
        return _normalised(data)


def _normalised(data: bytes) -> Picture:
    inspected = inspect(data)
    with room_for((inspected.width, inspected.height)):
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
    if max(picture.size) > _LARGEST_LOOK:
        # The nearest pixels: what else makes a picture smaller converts, and so copies, all of it first.
        picture = _sampled(picture)
    small = picture.convert("RGBA")
    small.thumbnail((96, 96), reducing_gap=2.0)
    pixels = np.asarray(small).reshape(-1, 4)
    visible = pixels[pixels[:, 3] > 127][:, :3]
    if not len(visible):
        return "#ffffff"
    coarse = (visible >> 4).astype(np.int32) @ np.array([256, 16, 1])
    members = visible[coarse == np.bincount(coarse).argmax()]
    return "#" + bytes(members.mean(axis=0).round().astype(np.uint8)).hex()


def _sampled(picture: Image.Image) -> Image.Image:
    share = _LARGEST_LOOK / max(picture.size)
    width, height = (max(1, round(side * share)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.NEAREST)


def _decode(data: bytes, inspected: Inspected) -> tuple[Image.Image, tuple[bytes, str] | None]:
    """The upright sRGB pixels, and the original without its metadata where that is allowed to stay."""
    with open_picture(data, inspected.file_format) as opened:
        picture = _load(opened, data)
        orientation = _orientation(picture)
        profile = _foreign_profile(picture)
        kept = None
        if orientation == 1 and profile is None and inspected.frames == 1:
            bare = strip(data, picture, inspected.file_format)
            kept = (bare, inspected.file_format) if bare else None
        pixels = _eight_bits(picture)
    # One after the other, so that two copies of the pixels are held and not four.
    del opened, picture
    pixels = _to_srgb(pixels, profile)
    if orientation in _TURNS:
        pixels = pixels.transpose(_TURNS[orientation])
    # Pillow would write a comment that it read into the new file.
    pixels.info.clear()
    return pixels, kept


def _load(picture: Image.Image, data: bytes) -> Image.Image:
    """The picture with its pixels; Unreadable when they cannot be had."""
    if picture.format == "AVIF":
        return _load_avif(picture, data)
    try:
        picture.load()
    except Exception as error:  # Decoders raise OSError, SyntaxError, ValueError, EOFError ...
        raise Unreadable(_DAMAGED) from error
    return picture


def _load_avif(picture: Image.Image, data: bytes) -> Image.Image:
    try:
        loaded = Image.frombytes(picture.mode, picture.size, decode_apart(data, picture.size))
    except (Undecodable, ValueError) as error:
        raise Unreadable(_DAMAGED) from error
    # With what else was in the file: how it is turned, and its colour profile.
    loaded.info.update(picture.info)
    return loaded


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
        return _scaled_grey(np.asarray(picture))
    if picture.mode == "RGBA" or (picture.mode in ("L", "RGB", "CMYK") and not picture.has_transparency_data):
        return picture
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _scaled_grey(deep: np.ndarray) -> Image.Image:
    """16-bit greys scaled to 8 bits, where Pillow's own conversion clips them at 255; a strip at a time."""
    grey = np.empty(deep.shape, np.uint8)
    for top in range(0, len(deep), _STRIP_ROWS):
        strip_of_rows = deep[top : top + _STRIP_ROWS].astype(np.uint32)
        grey[top : top + _STRIP_ROWS] = ((strip_of_rows + 128) // 257).clip(0, 255)
    return Image.fromarray(grey)


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
