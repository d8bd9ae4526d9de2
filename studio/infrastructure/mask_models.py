"""Name what finds products in photos, for the processes that choose it and for the renderer.

The settings `MASK_MODEL` and `MASK_MODEL_TYPE` choose it once, when a process that runs generations starts.
`studio.rendering` alone loads it, when a photo needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studio.infrastructure.settings import InvalidSettings, Settings
from studio.infrastructure.settings import MaskModelType as MaskModelType

INCLUDED = ("color", "u2netp")
"""The names of what needs no file of the operator."""


@dataclass(frozen=True)
class MaskModel:
    """What finds products in photos."""

    name: str = "u2netp"
    """`color`, `u2netp`, or the path of an ONNX file."""
    model_type: MaskModelType = "u2net"
    """What kind of network the ONNX file contains."""

    @classmethod
    def from_settings(cls, settings: Settings) -> MaskModel:
        """Return what `MASK_MODEL` names; releases up to 0.2.0 spelled it `colour`."""
        name = "color" if settings.mask_model == "colour" else settings.mask_model
        return cls(name, settings.mask_model_type)


_chosen = [MaskModel()]


def choose_mask_model(mask_model: MaskModel) -> None:
    """Choose what finds products in photos in this process.

    Raises:
        InvalidSettings: `MASK_MODEL` is the path of a file that cannot be read.
    """
    if mask_model.name not in INCLUDED:
        try:
            Path(mask_model.name).open("rb").close()
        except OSError as error:
            # Otherwise each cut-out would fail, while the workers seem to run.
            raise InvalidSettings(f"MASK_MODEL: the file cannot be read: {error}") from error
    _chosen[0] = mask_model


def get_mask_model() -> MaskModel:
    """Return what finds products in photos in this process, U-2-Net-p by default."""
    return _chosen[0]
