"""Run a network that finds the salient object of a photo, with the `dnn` module of OpenCV.

A network is loaded when a photo needs it and runs for one photo at a time: `cv2.dnn.Net` keeps its inputs and
outputs in itself. It uses the threads of OpenCV, as many as there are cores. Large networks stay loaded. This
module knows nothing about products, crops or confidence (`network_mask`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from studio.infrastructure.mask_models import MaskModelType
from studio.rendering.model import Floats, Pixels

Predict = Callable[[Pixels], Floats]

_lock = threading.Lock()
# A network keeps the results of all its layers: 200 MB for U-2-Net-p, which is loaded again in 0.05 s.
_MIN_KEPT_BYTES = 16_000_000


class UnusableMaskModel(Exception):
    """The file of a mask model is missing, or OpenCV cannot run it. The message names the file."""


@dataclass(frozen=True)
class _Family:
    """What a family of networks expects and returns, as in the code of its authors."""

    side: int
    """Width and height of the input, in pixels."""
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    returns_logits: bool = False


# ImageNet's mean and standard deviation (U-2-Net: `ToTensorLab`, BiRefNet: `transforms.Normalize`).
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FAMILIES: dict[MaskModelType, _Family] = {
    "u2net": _Family(320, *_IMAGENET),
    "isnet": _Family(1024, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),
    "birefnet": _Family(1024, *_IMAGENET, returns_logits=True),
}


def get_input_side(model_type: MaskModelType) -> int:
    """Return the width and height of the network's input and mask, in pixels."""
    return _FAMILIES[model_type].side


@contextmanager
def open_network(path: Path, model_type: MaskModelType) -> Iterator[Predict]:
    """Yield a function that returns per pixel of a photo how probably it belongs to the salient object, 0..1.

    The masks are square and have the size of the network's input, whatever the shape of the photo. Other
    threads wait until the block ends.

    Raises:
        UnusableMaskModel: The file is missing, or OpenCV cannot run it.
    """
    with _lock:
        loaded = [_load_network(path)]
        try:
            yield partial(_predict, loaded, _FAMILIES[model_type])
        except cv2.error as error:
            raise UnusableMaskModel(
                f"{path} does not run as a model of the type {model_type}: {error}"
            ) from error
        finally:
            # The function outlives the block, as a variable of the caller. It must not keep the network.
            loaded.clear()
            if path.stat().st_size < _MIN_KEPT_BYTES:
                _load_network.cache_clear()


def _predict(loaded: list[tuple[cv2.dnn.Net, str]], family: _Family, photo: Pixels) -> Floats:
    ((network, output),) = loaded
    mask = _run(network, output, _to_input(photo, family))
    return _to_probability(mask, family)


@cache
def _load_network(path: Path) -> tuple[cv2.dnn.Net, str]:
    """Return the network and the name of its first output, which is the mask that fuses all others."""
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise UnusableMaskModel(f"{path} cannot be loaded: {error}") from error
    return network, network.getUnconnectedOutLayersNames()[0]


def _run(network: cv2.dnn.Net, output: str, values: Floats) -> Floats:
    network.setInput(values)
    result = np.squeeze(network.forward(output))
    if result.shape != values.shape[2:]:
        raise cv2.error(f"the output has the shape {result.shape}")
    return result.astype(np.float32)


def _to_input(photo: Pixels, family: _Family) -> Floats:
    small = cv2.resize(photo, (family.side, family.side), interpolation=cv2.INTER_AREA).astype(np.float32)
    # U-2-Net divides by the brightest value of the photo, not by 255. It makes no difference for most photos.
    small /= max(1.0, float(small.max()))
    values = (small - np.array(family.mean)) / np.array(family.deviation)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)


def _to_probability(mask: Floats, family: _Family) -> Floats:
    if family.returns_logits:
        return (1 / (1 + np.exp(-mask))).astype(np.float32)
    return np.clip(mask, 0, 1)
