"""Cut the product out of a photo once, although many tests use the same photo.

The mask network takes most of a second of CPU: it runs once per photo and version of the code that runs it.
The rest takes a third of a second: it runs once per photo and process.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import cv2
import numpy as np

from studio.infrastructure.mask_models import MaskModel, MaskModelType, get_mask_model
from studio.rendering.cut_out import cut_out
from studio.rendering.cut_out import inference as mask_network
from studio.rendering.cut_out.inference import Predict
from studio.rendering.cut_out.mask_providers import find_chosen_mask
from studio.rendering.model import CutOut, Floats, MaskProvider, Pixels

cut_out_of_photo = cut_out._from_photo
"""What computes the cut-out of a photo without transparency."""
_MAX_PIXELS = 1_000_000
_MAX_CUT_OUTS = 32


class ReusedResults:
    """The results of networks, in files that processes and runs share.

    Args:
        folder: Where the results are kept. Those of another version of the code or of OpenCV are deleted.
    """

    def __init__(self, folder: Path) -> None:
        code = Path(mask_network.__file__).read_bytes()
        version = hashlib.sha256(code + cv2.__version__.encode()).hexdigest()[:16]
        for other in folder.iterdir():
            if other.name != version:
                shutil.rmtree(other, ignore_errors=True)
        self._folder = folder / version
        self._folder.mkdir(exist_ok=True)

    @contextmanager
    def open_network(self, path: Path, model_type: MaskModelType) -> Iterator[Predict]:
        """Yield what `mask_network.open_network` yields, but run the network for new photos only."""

        def predict(photo: Pixels) -> Floats:
            key = hashlib.sha256(f"{path} {model_type} {photo.shape}".encode())
            # Running a network that is missing raises its error.
            if path.exists():
                key.update(_hash_file(path, path.stat().st_mtime_ns))
            key.update(np.ascontiguousarray(photo))
            stored = self._folder / f"{key.hexdigest()}.npy"
            if not stored.exists():
                with mask_network.open_network(path, model_type) as run:
                    _save(stored, run(photo))
            result: Floats = np.load(stored)
            return result

        yield predict


class ReusedCutOuts:
    """The last cut-outs of small photos, by the photo and the mask model that this process has chosen."""

    def __init__(self) -> None:
        self._cut_outs: OrderedDict[object, CutOut] = OrderedDict()

    def cut_out_of_photo(self, pixels: Pixels, find_mask: MaskProvider) -> CutOut:
        """Return what `cut_out_of_photo` returns, but compute it for new photos only."""
        chosen = get_mask_model()
        # A model in a file may change, and other functions that find a mask belong to one test.
        is_shipped = find_mask is find_chosen_mask and chosen in (MaskModel(), MaskModel("color"))
        if not is_shipped or pixels.shape[0] * pixels.shape[1] > _MAX_PIXELS:
            return cut_out_of_photo(pixels, find_mask)
        photo = hashlib.sha256(np.ascontiguousarray(pixels)).digest()
        key = (chosen, pixels.shape, photo)
        found = self._cut_outs.pop(key, None) or cut_out_of_photo(pixels, find_mask)
        self._cut_outs[key] = found
        while len(self._cut_outs) > _MAX_CUT_OUTS:
            self._cut_outs.popitem(last=False)
        return found


@cache
def _hash_file(path: Path, _changed_at: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _save(path: Path, values: Floats) -> None:
    """Write a file that other processes and threads see when it is complete."""
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.save(file, values)
    Path(file.name).replace(path)
