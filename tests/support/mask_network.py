"""Run the mask network once per photo and version of the code that runs it.

It takes most of a second of CPU, and many tests cut the same photo out. The rest of a cut-out is always
computed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import cv2
import numpy as np

from studio.mask_models import MaskModelType
from studio.rendering import mask_network
from studio.rendering.mask_network import Predict
from studio.rendering.model import Floats, Pixels


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


@cache
def _hash_file(path: Path, _changed_at: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _save(path: Path, values: Floats) -> None:
    """Write a file that other processes and threads see when it is complete."""
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.save(file, values)
    Path(file.name).replace(path)
