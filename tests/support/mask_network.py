"""Run the mask network once per photo in a run of the tests.

It takes seconds, and many tests cut the same photo out. The rest of a cut-out is always computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

from studio.mask_models import MaskModelType
from studio.rendering import mask_network
from studio.rendering.mask_network import Predict
from studio.rendering.model import Floats, Pixels


class ReusedResults:
    """The results of networks, in files that the processes of one run share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def open_network(self, path: Path, model_type: MaskModelType) -> Iterator[Predict]:
        """Yield what `mask_network.open_network` yields, but run the network for new photos only."""

        def predict(photo: Pixels) -> Floats:
            key = hashlib.sha256(f"{path} {model_type} {photo.shape}".encode())
            key.update(np.ascontiguousarray(photo))
            stored = self._folder / f"{key.hexdigest()}.npy"
            if not stored.exists():
                with mask_network.open_network(path, model_type) as run:
                    _save(stored, run(photo))
            result: Floats = np.load(stored)
            return result

        yield predict


def _save(path: Path, values: Floats) -> None:
    """Write a file that other processes and threads see when it is complete."""
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.save(file, values)
    Path(file.name).replace(path)
