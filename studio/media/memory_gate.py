"""Turns for whoever holds decoded pictures, so that memory does not depend on how many callers come at once.

A picture of the most pixels that are taken fills half a gigabyte while it is converted. So there is one large
picture at a time, with one small one beside it. The bytes of files count too: they are read when it is their
turn.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

LARGE_PIXELS = 16_000_000

# Who waits for the large one has a place already: so whoever has both can always finish.
_slots = threading.BoundedSemaphore(2)
_large_lock = threading.Lock()


@contextmanager
def load_slot() -> Iterator[None]:
    """Wait for a place among those who hold a file and its picture, and hold it for the block."""
    with _slots:
        yield


@contextmanager
def reserve_memory(size: tuple[int, int]) -> Iterator[None]:
    """In a place, wait until a picture of this width and height may be decoded, and hold it for the block."""
    with _large_lock if size[0] * size[1] > LARGE_PIXELS else nullcontext():
        yield
