"""Color grading: apply contrast, saturation, temperature and tone of a style to float strips 0..255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from studio.rendering.color import luminance
from studio.rendering.model import Floats, Grade

# tone word: contrast, saturation, temperature (-100..100), exposure (stops), lifted blacks (0..255)
_TONES: dict[str, tuple[float, float, float, float, float]] = {
    "warm": (0, 4, 28, 0.02, 0),
    "golden": (4, 10, 42, 0.04, 2),
    "cool": (2, -4, -28, 0.0, 0),
    "airy": (-14, -8, 4, 0.14, 8),
    "bright": (2, 2, 0, 0.12, 0),
    "light": (-8, -4, 2, 0.10, 4),
    "soft": (-14, -4, 4, 0.04, 4),
    "moody": (20, -14, -6, -0.20, 3),
    "dark": (14, -8, 0, -0.25, 0),
    "dramatic": (34, -4, 0, -0.08, 0),
    "vivid": (14, 26, 0, 0.02, 0),
    "bold": (22, 18, 0, 0.0, 0),
    "muted": (-10, -28, 0, 0.02, 6),
    "matte": (-12, -12, 2, 0.02, 12),
    "film": (8, -10, 10, 0.0, 9),
    "vintage": (-4, -22, 22, 0.0, 12),
    "editorial": (14, -8, -4, 0.0, 3),
    "monochrome": (8, -100, 0, 0.0, 0),
}


@dataclass(frozen=True)
class GradeCurve:
    """A grade compiled to the numbers that are applied to pixels."""

    gains: tuple[float, float, float]
    curve: float
    saturation: float
    lift: float

    @property
    def is_neutral(self) -> bool:
        """Return whether the curve changes nothing."""
        return self == GradeCurve((1.0, 1.0, 1.0), 0.0, 1.0, 0.0)


def compile_grade(grade: Grade, share: float = 1.0) -> GradeCurve:
    """Return the curve of a grade.

    Args:
        share: Strength, 0..1.
    """
    contrast, saturation, temperature = (
        float(grade.contrast),
        float(grade.saturation),
        float(grade.temperature),
    )
    exposure = lift = 0.0
    for word in known_tones(grade.tone):
        tone = _TONES[word]
        contrast, saturation, temperature = contrast + tone[0], saturation + tone[1], temperature + tone[2]
        exposure, lift = exposure + tone[3], lift + tone[4]
    warmth = float(np.clip(temperature / 100, -1, 1)) * share
    # Normalized to equal luminance, so that warming does not brighten.
    red, green, blue = 1 + 0.13 * warmth, 1 + 0.015 * warmth, 1 - 0.19 * warmth
    bright = 2 ** (exposure * share / 2.2) / (0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return GradeCurve(
        gains=(red * bright, green * bright, blue * bright),
        curve=float(np.clip(contrast / 100, -1, 1)) * 0.45 * share,
        saturation=1 + float(np.clip(saturation / 100, -1, 1)) * share * (0.55 if saturation > 0 else 1.0),
        lift=lift * share,
    )


def known_tones(tone: str | None) -> list[str]:
    """Return the words of a tone that the renderer knows, in their order and without repeats."""
    words = "".join(letter if letter.isalpha() else " " for letter in (tone or "").lower()).split()
    return [word for word in dict.fromkeys(words) if word in _TONES]


def apply_grade(curve: GradeCurve, strip: Floats) -> Floats:
    """Return the graded strip; highlights are rolled off instead of clipped."""
    if curve.is_neutral:
        return strip
    unit = strip * (np.array(curve.gains, dtype=np.float32) / 255.0)
    unit = _roll_off_highlights(unit)
    if curve.curve:
        unit = unit + (4 * curve.curve) * unit * (1 - unit) * (unit - 0.5)
    if curve.lift:
        unit = unit + (curve.lift / 255.0) * (1 - unit)
    result = unit * 255.0
    if curve.saturation != 1:
        gray = luminance(result)[..., None]
        result = gray + (result - gray) * curve.saturation
    return np.clip(result, 0, 255).astype(np.float32)


def _roll_off_highlights(unit: Floats) -> Floats:
    """Compress values above 0.9, so that highlights that would clip keep their detail; 1 stays 1."""
    over = np.maximum(unit - 0.9, 0)
    compressed = 0.9 + over / (1 + np.maximum(over - 0.1, 0) * 10)
    return np.minimum(np.where(unit > 0.9, compressed, unit), 1.0).astype(np.float32)
