"""Limit the memory of decoded images with a semaphore, however many requests arrive at the same time.

An image of the maximum size fills half a gigabyte while it is converted. So at most two images are in memory
at a time, and at most one of them is large. The slot is taken before the file's bytes are read, because these
count too. One account has one of the two slots at most, and waiting accounts and addresses take turns. An
address may have both: a turn comes after one decoding, which takes a few seconds at most.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from studio.fair_slots import FairSlots, Subject, current_subject

LARGE_PIXELS = 16_000_000
MAX_LOADED_IMAGES = 2

MAX_WAIT_SECONDS = 10.0
"""How long a request waits for a slot. A worker, for which no client waits, waits any time."""

# Lock order: the slot first, then the lock for large images. The holder of both can always finish, so the two
# cannot deadlock.
LOAD_SLOTS = FairSlots(MAX_LOADED_IMAGES, 1)
_large_lock = threading.Lock()


@contextmanager
def load_slot(max_seconds: float | None = None, subject: Subject | None = None) -> Iterator[None]:
    """Wait for one of the two slots to load a file and its pixels, and hold it for the block.

    A thread calls it. A coroutine takes a slot of `LOAD_SLOTS`.

    Args:
        max_seconds: How long to wait, None for any time.
        subject: The subject of the slot, the current one by default.

    Raises:
        TimeoutError: No slot was free within `max_seconds`.
    """
    with LOAD_SLOTS.hold(subject or current_subject(), max_seconds):
        yield


@contextmanager
def reserve_memory(size: tuple[int, int]) -> Iterator[None]:
    """Wait until an image of this size may be decoded, and reserve its memory for the block.

    The caller already holds a slot of `LOAD_SLOTS`.

    Args:
        size: Width and height in pixels.
    """
    with _large_lock if size[0] * size[1] > LARGE_PIXELS else nullcontext():
        yield
