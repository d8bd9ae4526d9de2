"""Make the cut-out of a queued photo with the renderer.

This module loads OpenCV, and the mask model with the first photo: only processes that render import it.
"""

from __future__ import annotations

import hashlib

from db.errors import NotFound
from studio.cutouts.photos import LARGEST_SIDE, cut_out_photo, open_photo
from studio.cutouts.queue import CutoutLease, MadeCutout, StoredFile
from studio.cutouts.requests import UnusableCutoutInputs
from studio.infrastructure.storage import Storage, is_storage_unavailable
from studio.media.inspection import open_stored
from studio.media.normalization import dominant_color
from studio.media.stored_image import StoredImage
from studio.rendering import CutOut, get_cut_out_version
from studio.rendering.cut_out.stored_cut_out import describe_cut_out, encode_cut_out
from studio.rendering.model import FRAMED_CROP


def make_cutout(storage: Storage, lease: CutoutLease) -> MadeCutout:
    """Return the cut-out of a leased photo.

    Raises:
        UnusableCutoutInputs: A file was deleted or is damaged, or the mask shows nothing inside the region.
        OSError: The storage is unreachable.
    """
    try:
        file = _describe_photo(lease)
        with open_photo(storage, file, LARGEST_SIDE) as photo:
            cut_out = cut_out_photo(storage, file, photo, LARGEST_SIDE)
    except NotFound as error:
        raise UnusableCutoutInputs from error
    except OSError as error:
        if is_storage_unavailable(error):
            raise
        raise UnusableCutoutInputs from error
    is_photo = cut_out.method == FRAMED_CROP and lease.region is None
    return MadeCutout(
        image=None if is_photo else _to_stored_image(cut_out),
        method=cut_out.method,
        confidence=round(cut_out.confidence, 4),
        renderer_version=get_cut_out_version(),
        warnings=cut_out.warnings,
        facts=describe_cut_out(cut_out, lease.region),
    )


def _describe_photo(lease: CutoutLease) -> dict[str, object]:
    photo: dict[str, object] = {**_to_reference(lease.photo), "region": lease.region}
    return photo if lease.mask is None else {**photo, "mask": _to_reference(lease.mask)}


def _to_reference(file: StoredFile) -> dict[str, object]:
    return {"media_id": str(file.media_id), "extension": file.extension}


def _to_stored_image(cut_out: CutOut) -> StoredImage:
    data = encode_cut_out(cut_out)
    height, width = cut_out.alpha.shape
    with open_stored(data) as image:
        color = dominant_color(image)
    return StoredImage(
        data=data,
        extension="webp",
        width=width,
        height=height,
        has_alpha=int(cut_out.alpha.min()) < 255,
        dominant_color=color,
        content_hash=hashlib.sha256(data).hexdigest(),
    )
