"""Color conversions: images to 8-bit sRGB, preset colors to numbers, and curves shared by the renderer.

The sRGB transfer function is that of IEC 61966-2-1.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageCms

from studio.rendering.model import Floats, Pixels

_SRGB = ImageCms.createProfile("sRGB")
_STRIP_ROWS = 256


def _with_fixed_date(profile: bytes) -> bytes:
    """Return the profile with a fixed date (ICC.1, section 7.2.8).

    Little CMS writes the current time, which would make every encoded file different.
    """
    date = (2020, 1, 1, 0, 0, 0)
    return profile[:24] + b"".join(number.to_bytes(2, "big") for number in date) + profile[36:]


SRGB_PROFILE = _with_fixed_date(ImageCms.ImageCmsProfile(_SRGB).tobytes())


def to_srgb(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Return the image as sRGB pixels, and its opacity or None if it is opaque.

    Accepts every mode that Pillow opens. An embedded color profile is applied; a damaged one is ignored.
    """
    alpha: Image.Image | None = None
    if "transparency" in image.info and image.mode in ("P", "L", "RGB", "1"):
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA") if image.mode != "LA" else image
        alpha = image.getchannel("A")
        image = image.convert("RGB") if image.mode != "LA" else image.getchannel("L")
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bit(image)
    if image.mode in ("P", "1"):
        image = image.convert("RGB")
    return _to_array(_apply_profile(image)), None if alpha is None else _to_array(alpha)


def _to_array(image: Image.Image) -> Pixels:
    """Return the pixels of an image with the mode RGB or L.

    In strips: numpy asks Pillow for all pixels as bytes, which is one more copy of them.
    """
    width, height = image.size
    pixels = np.empty((height, width, 3) if image.mode == "RGB" else (height, width), dtype=np.uint8)
    for first in range(0, height, _STRIP_ROWS):
        last = min(height, first + _STRIP_ROWS)
        pixels[first:last] = np.asarray(image.crop((0, first, width, last)))
    return pixels


def _to_eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    top = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 255.0
    if image.mode == "F" and values.max(initial=0) <= 1:
        top = 1.0
    return Image.fromarray(np.clip(values * (255.0 / top) + 0.5, 0, 255).astype(np.uint8))


def _apply_profile(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L", "LAB"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # A profile that does not fit its image is common; the conversion without it is close.
    # Pillow would copy an image that has this mode already.
    return image if image.mode == "RGB" else image.convert("RGB")


def parse_color(color: str | None, fallback: str = "#FFFFFF") -> Floats:
    """Return the color `#RGB` or `#RRGGBB` as three floats 0..255; the fallback if it is not valid."""
    for text in (color, fallback):
        digits = (text or "").lstrip("#")
        if len(digits) == 3:
            digits = "".join(digit * 2 for digit in digits)
        try:
            if len(digits) == 6:
                return np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)], dtype=np.float32)
        except ValueError:
            continue
    return np.array([255, 255, 255], dtype=np.float32)


def srgb_to_linear(value: Floats) -> Floats:
    """Convert sRGB values 0..255 to linear light 0..1."""
    unit = value / 255.0
    return np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(value: Floats) -> Floats:
    """Convert linear light 0..1 to sRGB values 0..255."""
    unit = np.clip(value, 0, 1)
    curve = np.where(unit <= 0.0031308, unit * 12.92, 1.055 * unit ** (1 / 2.4) - 0.055)
    return (curve * 255.0).astype(np.float32, copy=False)


def luminance(pixels: Pixels | Floats) -> Floats:
    """Return the Rec. 709 luma of RGB pixels, 0..255."""
    weights = np.array([[0.2126, 0.7152, 0.0722]], dtype=np.float32)
    return cv2.transform(pixels.astype(np.float32), weights)


def to_lab(pixels: Pixels) -> Floats:
    """Return the CIE L*a*b* values of RGB pixels, in which distances match perceived differences."""
    return cv2.cvtColor(pixels.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB).astype(np.float32)


def smoothstep(low: float, high: float, value: Floats) -> Floats:
    """Return 0 below low, 1 above high, and a smooth transition between."""
    unit = np.clip((value - low) / (high - low), 0, 1)
    return (unit * unit * (3 - 2 * unit)).astype(np.float32)
