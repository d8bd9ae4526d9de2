"""The local studio renderer: a product photograph to finished pictures, without network or GPU.

Pure image code: it knows no HTTP, no database and no files.
"""

from studio.rendering.contact_sheet import build_contact_sheet
from studio.rendering.cut_out import cut_out_product
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
from studio.rendering.retouch import adjust, downscale, refine

__all__ = [
    "RENDERER_VERSION",
    "Background",
    "CutOut",
    "Grade",
    "Quality",
    "RenderRequest",
    "Rendering",
    "adjust",
    "build_contact_sheet",
    "cut_out_product",
    "downscale",
    "refine",
    "render",
    "score",
]
