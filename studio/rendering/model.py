"""Data types of the renderer: the request, the cut-out and the result.

Frozen dataclasses that know no HTTP, database rows or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RENDERER_VERSION = "1.9"

FileFormat = Literal["JPEG", "PNG", "WEBP", "AVIF"]
Framing = Literal["FULL_BODY", "THREE_QUARTER", "HALF_BODY", "CLOSE_UP", "DETAIL", "FLAT_LAY", "STILL_LIFE"]
ViewAngle = Literal["FRONT", "BACK", "SIDE", "TOP"]
BackgroundKind = Literal["SOLID", "GRADIENT", "SWEEP", "IMAGE"]
ShadowKind = Literal["NONE", "CONTACT", "SOFT"]
PredictionWarning = Literal[
    "not_cut_out",
    "mask_uncertain",
    "touches_edge",
    "enlarged",
    "low_resolution",
    "background_already_compliant",
    "subject_not_shown",
    "background_not_used",
]

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Progress = Callable[[float], None]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""

FRAMED_CROP = "framed_crop"
"""Method of a cut-out that shows a crop of the photo, because no mask was found."""
EXTENDED_PHOTO = "extended_photo"
"""Method of a cut-out that shows the photo itself, extended with its own white background."""


@dataclass(frozen=True, eq=False)
class Mask:
    """Where a mask provider found the product in a photo."""

    values: Floats
    """How much of each pixel is product, 0..1: a small copy of the area `box` of the photo."""
    box: Box
    method: str
    confidence: float
    """Probability that the mask is right, 0..1."""
    is_usable: bool
    """Whether the mask may be shown, if need be with the warning `mask_uncertain`."""
    confidence_parts: dict[str, float] = field(default_factory=dict)
    coarseness: float = 1.0
    """Pixels of `values` per pixel of what the provider looked at: the outline is no more precise."""


DOUBTFUL: frozenset[PredictionWarning] = frozenset(("not_cut_out", "mask_uncertain"))
"""Warnings that an image needs a look before it is published, whatever its score."""

MAX_SHARP_ENLARGEMENT = 1.5
"""Pixels of an image per pixel of its photo above which it has the warning `enlarged`."""

MaskProvider = Callable[[Pixels], Mask]
"""Returns where the product is in a photo of any size: RGB, height x width x 3."""


@dataclass(frozen=True, eq=False)
class CutOut:
    """A product cut out of its photo; all predictions of a generation share one."""

    photo: Pixels
    """The whole photo, RGB, height x width x 3."""
    product: Pixels
    """The photo cropped to the product, RGB, without background color on the rim."""
    alpha: Pixels
    """The product's opacity, of the size of `product`."""
    box: Box
    """The area of `product` in the photo."""
    method: str
    """`alpha`, the name of the mask provider, `framed_crop` or `extended_photo`."""
    confidence: float
    """Probability that the mask is right, 0..1."""
    touches: frozenset[str] = frozenset()
    """Edges of the photo that cut the product off: left, top, right, bottom."""
    standing: bool = False
    """Whether the product stands on the ground."""
    warnings: tuple[PredictionWarning, ...] = ()
    """What is wrong or doubtful with the photo and its mask."""
    confidence_parts: dict[str, float] = field(default_factory=dict)
    """The parts of the confidence, each 0..1."""

    @property
    def is_trusted(self) -> bool:
        """Return whether the cut-out may be shown, instead of a framed crop of the photo."""
        return self.method != FRAMED_CROP

    @property
    def is_extended(self) -> bool:
        """Return whether this is the photo itself, to be extended with its own white background."""
        return self.method == EXTENDED_PHOTO


@dataclass(frozen=True, eq=False)
class Background:
    """A background preset; colors are `#RRGGBB`."""

    kind: BackgroundKind = "SWEEP"
    color: str = "#F2F0EC"
    color_end: str | None = None
    image: Image.Image | None = None
    shadow: ShadowKind = "SOFT"


@dataclass(frozen=True)
class Grade:
    """Color and light of a style; contrast, saturation and temperature are -100..100."""

    contrast: int = 0
    saturation: int = 0
    temperature: int = 0
    tone: str | None = None
    lighting: str | None = None


@dataclass(frozen=True, eq=False)
class RenderRequest:
    """One prediction to render. `seed + variant` determines everything that varies."""

    cut_out: CutOut
    width: int = 1536
    height: int = 2048
    file_format: FileFormat = "JPEG"
    quality: int = 90
    framing: Framing = "STILL_LIFE"
    view_angle: ViewAngle = "FRONT"
    padding_percent: float = 8
    """Clear space on each side, in percent of the shorter side; the larger of padding and margin applies."""
    margin_percent: float = 0
    background: Background = field(default_factory=Background)
    grade: Grade = field(default_factory=Grade)
    subject_image: Image.Image | CutOut | None = None
    product_category: str | None = None
    """What the product is, as free text. It decides whether the product can stand beside a subject."""
    seed: int = 0
    variant: int = 0
    marketplace: str | None = None
    """The marketplace whose rules the image follows and is measured against, a key of `MARKETPLACES`."""


@dataclass(frozen=True)
class Quality:
    """Quality of a rendering: a score and its parts, each 0..1."""

    score: float
    sharpness: float
    exposure: float
    cut_out_edge: float
    coverage: float
    clearance: float
    confidence: float | None = None
    """Probability that the product was cut out correctly, 0..1; None if nothing was cut out."""

    def as_dict(self) -> dict[str, float | None]:
        """Return the score and its parts by name, rounded to four digits."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: None if value is None else round(value, 4) for name, value in values.items()}


@dataclass(frozen=True)
class Preview:
    """What is known about a prediction before it is rendered in its full size."""

    score: float
    warnings: tuple[PredictionWarning, ...]


@dataclass(frozen=True, eq=False)
class Rendering:
    """An encoded image with its quality and its provenance."""

    image: bytes
    content_type: str
    width: int
    height: int
    quality: Quality
    provenance: dict[str, Any]
    compliance: list[dict[str, Any]] = field(default_factory=list)
    """How the image meets each rule of its marketplace; empty without one."""
    warnings: tuple[PredictionWarning, ...] = ()
