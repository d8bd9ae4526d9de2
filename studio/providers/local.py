"""The provider LOCAL_STUDIO: its limits, and the class of a rendered image.

The renderer itself is in `local_renderer`, which loads OpenCV: only processes that render import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PROVIDER = "LOCAL_STUDIO"
STRATEGIES = frozenset({"GENERATE", "REFINE", "BACKGROUND_FIXING", "IMAGE_ADJUSTING"})
MAX_PIXELS = 16_000_000
MAX_SIDE = 8_192


@dataclass(frozen=True, eq=False)
class RenderedImage:
    """A rendered image: the encoded bytes, its quality, and its provenance."""

    image: bytes
    content_type: str
    width: int
    height: int
    seed: int
    quality: dict[str, float]
    cut_out: str | None
    settings: dict[str, Any]
    unused: frozenset[str]
    """Inputs that the renderer could not use."""
    renderer_version: str
    compliance: list[dict[str, Any]] = field(default_factory=list)
    """How the image meets each rule of its marketplace; empty without one."""
