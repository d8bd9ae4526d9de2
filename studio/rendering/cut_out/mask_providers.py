"""Choose the mask provider: what finds the product in a photo.

`u2netp` is the network that ships with the renderer, `color` needs none, and a path is a network of the
operator.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from studio.infrastructure.mask_models import MaskModelType, get_mask_model
from studio.rendering.cut_out.color_mask import find_color_mask
from studio.rendering.cut_out.network_mask import find_network_mask
from studio.rendering.cut_out.weights import U2NETP
from studio.rendering.model import RENDERER_VERSION, Mask, MaskProvider, Pixels


def get_mask_provider(mask_model: str, model_type: MaskModelType = "u2net") -> MaskProvider:
    """Return the mask provider of a setting. A network is loaded when the first photo needs it.

    Args:
        mask_model: `color`, `u2netp`, or the path of an ONNX file.
        model_type: What kind of network the file contains.
    """
    if mask_model == "color":
        return find_color_mask
    if mask_model == "u2netp":
        return find_u2netp_mask
    path = Path(mask_model)
    return partial(find_network_mask, path=path, model_type=model_type, method=path.stem.lower()[:40])


def get_cut_out_version() -> str:
    """Return what decides a cut-out besides its photo: the version of the renderer and the mask model."""
    name = get_mask_model().name
    # The column has 40 characters.
    return RENDERER_VERSION if name == "u2netp" else f"{RENDERER_VERSION}-{Path(name).stem.lower()}"[:40]


def find_chosen_mask(pixels: Pixels) -> Mask:
    """Return where the mask model that this process has chosen finds the product."""
    chosen = get_mask_model()
    return get_mask_provider(chosen.name, chosen.model_type)(pixels)


def find_u2netp_mask(pixels: Pixels) -> Mask:
    """Return where U-2-Net-p finds the product, the network that ships with the renderer."""
    return find_network_mask(pixels, U2NETP, "u2net", "u2netp")
