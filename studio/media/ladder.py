"""Make the smaller variants of an image in the background, when the image is stored.

It takes one or two seconds for a photo, too long for a request. The list of images that wait is in memory: a
variant is a cache entry, which is made on request if it is missing, so nothing is lost when a process ends.
"""

from __future__ import annotations

import logging
import queue
import threading
from contextlib import suppress

from db.errors import NotFound
from studio.media.memory_gate import load_slot
from studio.media.storage import Storage, is_storage_unavailable
from studio.media.variants import OriginalImage, list_ladder, make_variant

logger = logging.getLogger(__name__)

MAX_WAITING = 1_000
"""Images that wait in this process. Beyond that, variants are made on request."""

_waiting: queue.Queue[OriginalImage | None] = queue.Queue(MAX_WAITING)


def schedule_ladder(original: OriginalImage) -> None:
    """Have the variants of a stored image made. Call it after the commit."""
    try:
        _waiting.put_nowait(original)
    except queue.Full:
        logger.debug("too many images wait for their variants, which are made on request instead")


def make_ladder(storage: Storage, original: OriginalImage) -> None:
    """Make the smaller variants of an image in its own format.

    Raises:
        NotFound: The image was deleted meanwhile.
    """
    for variant in list_ladder(original):
        # A slot for each: requests for other images come in between.
        with load_slot():
            make_variant(storage, variant)


class LadderBuilder:
    """The thread that makes the variants of the images that this process stores; start and stop it once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="image-ladder", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further image, and wait up to a second for the running one."""
        self._stopping.set()
        # If the queue is full, the thread does not wait for an entry.
        with suppress(queue.Full):
            _waiting.put_nowait(None)
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            original = _waiting.get()
            if original is None:
                continue
            try:
                make_ladder(self._storage, original)
            except NotFound:
                continue
            except Exception as error:
                if is_storage_unavailable(error):
                    logger.warning("variants were not made, the storage is unavailable: %s", error)
                else:
                    logger.exception("variants of image %s were not made", original.resource_id)
