"""Helpers of the cut-out tests: a worker whose cut-outs are made at once, and the images for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from PIL import Image

from db.session import Database
from studio.cutouts.queue import CutoutLease, MadeCutout
from studio.cutouts.worker import run_next_cutout
from studio.infrastructure.storage import Storage
from studio.media.stored_image import StoredImage
from tests.support.queues import build_worker
from tests.support.sample_media import encode_image

LEASE = timedelta(seconds=60)
VERSION = "test-1"


def build_mask(width: int, height: int, box: tuple[int, int, int, int]) -> bytes:
    """Return a black mask as a PNG file that is white in a box: left, top, right, bottom in pixels."""
    mask = Image.new("L", (width, height))
    mask.paste(255, box)
    return encode_image(mask, "PNG")


def build_cutout_file(color: str = "red") -> StoredImage:
    """Return a small image with transparency, as a cut-out that is ready to be stored."""
    image = Image.new("RGBA", (8, 6), color)
    # Pillow writes a WebP without transparency if all pixels are opaque.
    image.putpixel((0, 0), (0, 0, 0, 0))
    data = encode_image(image, "WEBP", lossless=True, exact=True)
    return StoredImage(data, "webp", 8, 6, True, "#ff0000", hashlib.sha256(data).hexdigest())


def make_quickly(_storage: Storage, lease: CutoutLease) -> MadeCutout:
    """Return a cut-out whose color depends on what it is made from."""
    digest = hashlib.sha256(lease.input_hash.encode()).hexdigest()
    return MadeCutout(
        image=build_cutout_file(f"#{digest[:6]}"),
        method="u2netp",
        confidence=0.91,
        renderer_version=VERSION,
        warnings=("touches_edge",),
        facts={"placement": {"x": 0.25, "y": 0.5, "width": 0.5, "height": 0.25}},
    )


def make_cutouts(
    database: Database, storage: Storage, make: Callable[[Storage, CutoutLease], MadeCutout] = make_quickly
) -> int:
    """Make all cut-outs of the queue, and return how many were leased."""
    worker, count = build_worker(database, storage), 0
    while run_next_cutout(worker, make):
        count += 1
    return count


def box_of(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    """Return a region as clients send it."""
    return {"x": x, "y": y, "width": width, "height": height}
