"""The words of the renderer: what it is asked for and what it answers.

Plain frozen values; nothing here knows HTTP, rows of a database, or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RENDERER_VERSION = "1.2"

FileFormat = Literal["JPEG", "PNG", "WEBP", "AVIF"]
Framing = Literal["FULL_BODY", "THREE_QUARTER", "HALF_BODY", "CLOSE_UP", "DETAIL", "FLAT_LAY", "STILL_LIFE"]
ViewAngle = Literal["FRONT", "BACK", "SIDE", "TOP"]
BackgroundKind = Literal["SOLID", "GRADIENT", "SWEEP", "IMAGE"]
ShadowKind = Literal["NONE", "CONTACT", "SOFT"]
CutOutMethod = Literal["alpha", "plain_background", "grabcut", "framed_crop"]

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class CutOut:
    """A product cut out of its photograph; one is shared by all predictions of a generation."""

    photograph: Pixels
    """The whole photograph, RGB, height x width x 3."""
    product: Pixels
    """The photograph cropped to the product, RGB, the rim freed of background colour."""
    alpha: Pixels
    """The product's opacity, of the size of `product`."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of `product` in the photograph."""
    method: CutOutMethod
    confidence: float
    """0..1; below `cut_out.TRUSTED` the renderer shows a framed crop instead of the cut-out."""
    touches: frozenset[str] = frozenset()
    """Sides of the photograph that cut the product off: left, top, right, bottom."""
    standing: bool = False
    """The product rests on a flat base."""
    confidence_parts: dict[str, float] = field(default_factory=dict)
    """What the trust was judged by."""

    @property
    def is_trusted(self) -> bool:
        """Whether the cut-out itself may be shown."""
        return self.method != "framed_crop"


@dataclass(frozen=True, eq=False)
class Background:
    """A background preset; colours are `#RRGGBB`."""

    kind: BackgroundKind = "SWEEP"
    color: str = "#F2F0EC"
    color_end: str | None = None
    image: Image.Image | None = None
    shadow: ShadowKind = "SOFT"


@dataclass(frozen=True)
class Grade:
    """What a style asks of colour and light; contrast, saturation and temperature are -100..100."""

    contrast: int = 0
    saturation: int = 0
    temperature: int = 0
    tone: str | None = None
    lighting: str | None = None


@dataclass(frozen=True, eq=False)
class RenderRequest:
    """One prediction to render. `seed + variant` decides everything that varies."""

    cut_out: CutOut
    width: int = 1536
    height: int = 2048
    file_format: FileFormat = "JPEG"
    quality: int = 90
    framing: Framing = "STILL_LIFE"
    view_angle: ViewAngle = "FRONT"
    padding_percent: float = 8
    """Clear space on every side, of the shorter side; the larger of padding and margin counts."""
    margin_percent: float = 0
    background: Background = field(default_factory=Background)
    grade: Grade = field(default_factory=Grade)
    subject_image: Image.Image | CutOut | None = None
    seed: int = 0
    variant: int = 0


@dataclass(frozen=True)
class Quality:
    """How good a rendering is: a score and the parts it is made of, each 0..1."""

    score: float
    sharpness: float
    exposure: float
    cut_out_edge: float
    coverage: float
    clearance: float

    def as_dict(self) -> dict[str, float]:
        """The score and its parts by name, rounded to four digits."""
        return {part.name: round(getattr(self, part.name), 4) for part in fields(self)}


@dataclass(frozen=True, eq=False)
class Rendering:
    """A finished picture, encoded, with its quality and where it came from."""

    image: bytes
    content_type: str
    width: int
    height: int
    quality: Quality
    provenance: dict[str, Any]
