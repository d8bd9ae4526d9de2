"""Colour: any picture to 8 bit sRGB, colours of presets, and the few curves the renderer shares.

Sources: IEC 61966-2-1 (the sRGB transfer function).
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageCms

from studio.rendering.model import Floats, Pixels

_SRGB = ImageCms.createProfile("sRGB")


def _with_fixed_date(profile: bytes) -> bytes:
    """The profile with a fixed date (ICC.1 7.2.8): Little CMS stamps now, which would change every file."""
    date = (2020, 1, 1, 0, 0, 0)
    return profile[:24] + b"".join(number.to_bytes(2, "big") for number in date) + profile[36:]


SRGB_PROFILE = _with_fixed_date(ImageCms.ImageCmsProfile(_SRGB).tobytes())


def to_srgb(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """The picture as RGB pixels in sRGB and its opacity, None where it has none.

    Takes every mode Pillow opens; an embedded profile is honoured, a broken one is not.
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
    rgb = _apply_profile(image)
    return np.array(rgb, dtype=np.uint8), None if alpha is None else np.array(alpha, dtype=np.uint8)


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
            pass  # A profile that does not fit its picture is common; the plain conversion is close.
    return image.convert("RGB")


def parse_color(color: str | None, fallback: str = "#FFFFFF") -> Floats:
    """The colour `#RGB` or `#RRGGBB` as three floats 0..255; the fallback where it is none."""
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
    """sRGB values 0..255 as linear light 0..1."""
    unit = value / 255.0
    return np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(value: Floats) -> Floats:
    """Linear light 0..1 as sRGB values 0..255."""
    unit = np.clip(value, 0, 1)
    curve = np.where(unit <= 0.0031308, unit * 12.92, 1.055 * unit ** (1 / 2.4) - 0.055)
    return (curve * 255.0).astype(np.float32, copy=False)


def luminance(pixels: Pixels | Floats) -> Floats:
    """Rec. 709 luma of RGB pixels, 0..255."""
    weights = np.array([[0.2126, 0.7152, 0.0722]], dtype=np.float32)
    return cv2.transform(pixels.astype(np.float32), weights)


def to_lab(pixels: Pixels) -> Floats:
    """CIE L*a*b* of RGB pixels, so that distances are differences one sees."""
    return cv2.cvtColor(pixels.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB).astype(np.float32)


def smoothstep(low: float, high: float, value: Floats) -> Floats:
    """0 below low, 1 above high, smooth between."""
    unit = np.clip((value - low) / (high - low), 0, 1)
    return (unit * unit * (3 - 2 * unit)).astype(np.float32)
