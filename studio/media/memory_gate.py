"""Limit the memory of decoded images with a semaphore, however many requests arrive at the same time.

An image of the maximum size fills half a gigabyte while it is converted. So at most two images are in memory
at a time, and at most one of them is large. The slot is taken before the file's bytes are read, because these
count too. One account has one of the two slots at most, and waiting accounts and addresses take turns. An
address may have both: a turn comes after one decoding, which takes a few seconds at most.

Rendering has a gate of its own, weighted by pixels, because its work takes longer than a request can wait.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from studio.infrastructure.fair_slots import FairSlots, Requester, current_requester
from studio.infrastructure.weighted_semaphore import WeightedSemaphore

M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -8, -3, -1
"""Parameters of mallopt(3): the number of arenas, and the sizes from which memory is returned at once."""
RETURNED_BYTES = 1 << 20

LARGE_PIXELS = 16_000_000
MAX_LOADED_IMAGES = 2

MAX_WAIT_SECONDS = 10.0
"""How long a request waits for a slot. A worker, for which no client waits, waits any time."""

PIXELS_PER_RENDER_THREAD = 8_000_000
"""What each thread that renders adds to the pixels that large work of a process may have at the same time."""
SMALL_RENDER_PIXELS = 4_000_000
"""Work with at most so many pixels never waits: its memory is bounded by the number of threads."""

# Lock order: the slot first, then the lock for large images. The holder of both can always finish, so the two
# cannot deadlock.
LOAD_SLOTS = FairSlots(MAX_LOADED_IMAGES, 1)
_large_lock = threading.Lock()
_render_pixels = WeightedSemaphore(2 * PIXELS_PER_RENDER_THREAD)


def return_freed_memory() -> None:
    """Have the malloc of glibc return freed memory to the system, from now on and in the whole process.

    All threads allocate from one arena instead of up to eight per core: memory that is freed in one arena is
    not used by another, and threads of Python rarely allocate at once. Blocks of a megabyte are mapped. By
    default glibc raises that size to 32 MB as soon as such a block is freed, and images then leave holes.
    """
    with suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, RETURNED_BYTES)
        mallopt(M_TRIM_THRESHOLD, RETURNED_BYTES)


@contextmanager
def load_slot(max_seconds: float | None = None, requester: Requester | None = None) -> Iterator[None]:
    """Wait for one of the two slots to load a file and its pixels, and hold it for the block.

    A thread calls it. A coroutine takes a slot of `LOAD_SLOTS`.

    Args:
        max_seconds: How long to wait, None for any time.
        requester: The requester of the slot, the current one by default.

    Raises:
        TimeoutError: No slot was free within `max_seconds`.
    """
    with LOAD_SLOTS.hold(requester or current_requester(), max_seconds):
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


def set_render_threads(count: int) -> None:
    """Set how many threads of this process render. They share the memory for large work."""
    _render_pixels.resize(count * PIXELS_PER_RENDER_THREAD)


@contextmanager
def reserve_render_memory(size: tuple[int, int], check: Callable[[], None] | None = None) -> Iterator[None]:
    """Reserve the memory to decode and cut out a photo of this size, or to render an image, and wait for it.

    With two threads, two photos of 8 megapixels are worked on at the same time, and those of 16 take turns.
    A block within another one of the same thread never waits. The caller holds no slot of `LOAD_SLOTS`.

    Args:
        size: Width and height in pixels.
        check: Called twice a second during the wait. If it raises, the wait ends.
    """
    pixels = size[0] * size[1]
    with nullcontext() if pixels <= SMALL_RENDER_PIXELS else _render_pixels.hold(pixels, check):
        yield
