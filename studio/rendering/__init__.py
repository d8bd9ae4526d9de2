"""The local renderer: turn a product photo into predictions, without another service or a GPU.

Pure image code that knows no HTTP, no database and no files but those of mask models. Start with `model` (the
request and the result) and `compose.render` (the steps). The same request returns the same bytes: raise
`RENDERER_VERSION` if you change them.
"""

from studio.rendering.compose.backgrounds import get_image_size
from studio.rendering.compose.quality import score
from studio.rendering.compose.render import measure_preview, render
from studio.rendering.compose.retouch import adjust, downscale, refine
from studio.rendering.cut_out.cut_out import cut_out_product, get_working_side
from studio.rendering.cut_out.mask_providers import get_cut_out_version, get_mask_provider
from studio.rendering.model import (
    DOUBTFUL,
    RENDERER_VERSION,
    Background,
    CutOut,
    Grade,
    Mask,
    MaskProvider,
    Quality,
    Rendering,
    RenderRequest,
)

__all__ = [
    "DOUBTFUL",
    "RENDERER_VERSION",
    "Background",
    "CutOut",
    "Grade",
    "Mask",
    "MaskProvider",
    "Quality",
    "RenderRequest",
    "Rendering",
    "adjust",
    "cut_out_product",
    "downscale",
    "get_cut_out_version",
    "get_image_size",
    "get_mask_provider",
    "get_working_side",
    "measure_preview",
    "refine",
    "render",
    "score",
]
