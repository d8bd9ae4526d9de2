"""Make the smaller variants of an image in the background, when the image is stored.

It takes one or two seconds for a photo, too long for a request. The list of images that wait is in memory: a
variant is a cache entry, which is made on request if it is missing, so nothing is lost when a process ends.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from db.errors import NotFound
from studio.infrastructure.fair_slots import Requester
from studio.infrastructure.storage import Storage, is_storage_unavailable
from studio.media.memory_gate import LOAD_SLOTS, load_slot
from studio.media.variants import OriginalImage, list_ladder, make_variants

logger = logging.getLogger(__name__)

MAX_WAITING = 1_000
"""Images that wait in this process. Beyond that, variants are made on request."""
MAX_WAITING_OF_OWNER = 200
"""Images of one owner that wait in this process."""


class LadderQueue:
    """The images whose variants are made next: one image of each owner in turn."""

    def __init__(self) -> None:
        self._images: dict[Requester, deque[OriginalImage]] = {}
        self._count = 0
        self._changed = threading.Condition()

    def put(self, original: OriginalImage, requester: Requester) -> bool:
        """Append an image; return False if too many images wait."""
        with self._changed:
            images = self._images.get(requester, deque())
            if self._count >= MAX_WAITING or len(images) >= MAX_WAITING_OF_OWNER:
                return False
            images.append(original)
            self._images[requester] = images
            self._count += 1
            self._changed.notify()
            return True

    def get(self, stopping: threading.Event) -> tuple[OriginalImage, Requester] | None:
        """Wait for an image and return it; None once the event is set."""
        with self._changed:
            self._changed.wait_for(lambda: self._count or stopping.is_set())
            if stopping.is_set():
                return None
            requester = next(iter(self._images))
            images = self._images.pop(requester)
            original = images.popleft()
            if images:
                # At the end: the other owners come first.
                self._images[requester] = images
            self._count -= 1
            return original, requester

    def wake(self) -> None:
        """Let `get` look at its event."""
        with self._changed:
            self._changed.notify_all()


_waiting = LadderQueue()


def schedule_ladder(original: OriginalImage, requester: Requester) -> None:
    """Have the variants of a stored image made for a requester. Call it after the commit."""
    if not _waiting.put(original, requester):
        logger.debug("too many images wait for their variants, which are made on request instead")


def make_ladder(storage: Storage, original: OriginalImage, requester: Requester) -> None:
    """Make the smaller variants of an image in its own format.

    Raises:
        NotFound: The image was deleted meanwhile.
    """
    is_complete = False
    while not is_complete:
        # The slot is returned after each variant while an upload or a request waits for one.
        with load_slot(requester=requester):
            is_complete = make_variants(
                storage, original, list_ladder(original), lambda: not LOAD_SLOTS.has_waiting()
            )


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
        _waiting.wake()
        self._thread.join(1.0)

    def _run(self) -> None:
        while (task := _waiting.get(self._stopping)) is not None:
            original, requester = task
            try:
                make_ladder(self._storage, original, requester)
            except NotFound:
                continue
            except Exception as error:
                if is_storage_unavailable(error):
                    logger.warning("variants were not made, the storage is unavailable: %s", error)
                else:
                    logger.exception("variants of image %s were not made", original.resource_id)
