"""Turn stored photos into the cut-outs that the renderer uses, from the stored cut-out where there is one.

It reads stored files and knows no rows. It loads OpenCV: only processes that render import it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeGuard
from uuid import UUID

from PIL import Image

from db.errors import NotFound
from studio.cutouts.requests import UnusableCutoutInputs
from studio.infrastructure.storage import Storage, media_key
from studio.media.inspection import open_stored
from studio.media.memory_gate import reserve_render_memory
from studio.rendering import CutOut, get_cut_out_version, get_working_side
from studio.rendering.cut_out.selection import EmptyMask, cut_out_selection
from studio.rendering.cut_out.stored_cut_out import restore_cut_out

logger = logging.getLogger(__name__)

LARGEST_SIDE = 8_192
"""The longer side of the predictions that stored cut-outs are made for, in pixels: any prediction."""

FileReference = Mapping[str, Any]
"""A stored file as generations name it: `media_id` and `extension`."""


def cut_out_photo(storage: Storage, file: FileReference, photo: Image.Image, output_side: int) -> CutOut:
    """Return the cut-out of a photo for predictions of this longer side, in pixels.

    Args:
        storage: The storage of the mask and of the stored cut-out.
        file: The file of the photo, with its `region`, `mask` and stored `cut_out` if it has any. The stored
            one is used if this version of the renderer made it.
        photo: The photo, from `open_photo`. It is closed, which frees its pixels, before a network runs.
        output_side: The longer side of the predictions.

    Raises:
        NotFound: The file of the mask was deleted.
        UnusableCutoutInputs: The mask shows nothing inside the region.
    """
    region, mask, stored = file.get("region"), file.get("mask"), file.get("cut_out")
    if is_current(stored):
        try:
            product = open_file(storage, stored) if stored["media_id"] else None
            return restore_cut_out(photo, product, stored["facts"], output_side, region)
        except NotFound:
            logger.warning("the stored cut-out of photo %s is missing", file["media_id"])
    try:
        opened_mask = open_file(storage, mask) if mask else None
        return cut_out_selection(photo, output_side, region, opened_mask, closes_photo=True)
    except EmptyMask as error:
        raise UnusableCutoutInputs from error


def is_current(stored: FileReference | None) -> TypeGuard[FileReference]:
    """Return whether there is a stored cut-out which this renderer made with the present mask model."""
    return stored is not None and stored["renderer_version"] == get_cut_out_version()


@contextmanager
def open_photo(
    storage: Storage, file: FileReference, output_side: int, check: Callable[[], None] | None = None
) -> Iterator[Image.Image]:
    """Yield a decoded photo, if possible in the lowest resolution that `cut_out_photo` needs.

    The memory to decode the photo and to cut it out is reserved for the block.

    Args:
        storage: The storage of the photo.
        file: The file of the photo.
        output_side: The longer side of the predictions, in pixels.
        check: Called twice a second while the thread waits for the memory. If it raises, the wait ends.

    Raises:
        NotFound: The file was deleted.
    """
    region = file.get("region")
    share = 1.0 if region is None else max(region["width"], region["height"])
    # A stored cut-out was made for predictions of every size.
    side = get_working_side(LARGEST_SIDE if is_current(file.get("cut_out")) else output_side)
    photo = _open_header(storage, file, (math.ceil(side / share),) * 2)
    with reserve_render_memory(photo.size, check), closing(photo):
        photo.load()
        yield photo


def open_file(storage: Storage, file: FileReference, enough: tuple[int, int] | None = None) -> Image.Image:
    """Return a decoded image, if possible in a lower resolution of at least the size that is enough."""
    image = _open_header(storage, file, enough)
    image.load()  # decode in one thread, before several threads read it
    return image


def _open_header(storage: Storage, file: FileReference, enough: tuple[int, int] | None) -> Image.Image:
    """Return an image whose pixels are not decoded yet, with the size that it will have."""
    image = open_stored(storage.read(media_key(UUID(str(file["media_id"])), file["extension"])))
    # Only JPEG can be decoded in a lower resolution; other formats ignore this.
    image.draft(None, enough)
    return image
