"""The local studio renderer: a product photograph to finished pictures, without network or GPU.

Pure image code: it knows no HTTP, no database and no files.
"""

from studio.rendering.cut_out import prepare
from studio.rendering.model import (
    RENDERER_VERSION,
    Background,
    CutOut,
    Grade,
    Quality,
    Rendering,
    RenderRequest,
)
from studio.rendering.quality import score
from studio.rendering.render import render

__all__ = [
    "RENDERER_VERSION",
    "Background",
    "CutOut",
    "Grade",
    "Quality",
    "RenderRequest",
    "Rendering",
    "prepare",
    "render",
    "score",
]
