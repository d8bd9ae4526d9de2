"""The provider LOCAL_STUDIO: what it can be asked for, and what a picture is in this house.

How it paints is in `local_renderer.py`. That loads OpenCV, so only who paints does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROVIDER = "LOCAL_STUDIO"
STRATEGIES = frozenset({"GENERATE", "REFINE", "BACKGROUND_FIXING", "IMAGE_ADJUSTING"})
MAX_PIXELS = 16_000_000
MAX_SIDE = 8_192


@dataclass(frozen=True, eq=False)
class RenderedImage:
    """A finished picture: its bytes, how good it is, and what the renderer says about it."""

    image: bytes
    content_type: str
    width: int
    height: int
    seed: int
    quality: dict[str, float]
    cut_out: str | None
    settings: dict[str, Any]
    unused: frozenset[str]
    """Inputs that the renderer found it could not use."""
    renderer_version: str
