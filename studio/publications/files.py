"""Choose the file that a request for a published image gets.

Converts nothing: the requests come from anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from db.models.media import MediaResource
from studio.infrastructure.storage import Storage
from studio.media.variants import (
    LADDER,
    OriginalImage,
    ServedFile,
    Variant,
    VariantMissing,
    find_width,
    get_variant,
)

FORMATS = ("avif", "webp", "jpg")
"""The extensions of each published image, besides that of the stored image."""

_TYPES = {"jpg": "jpeg"}


@dataclass(frozen=True)
class PublishedFile:
    """The file to send."""

    file: ServedFile
    is_exact: bool
    """Whether this is the requested variant; otherwise a worker has not made it yet."""


def to_original(media: MediaResource) -> OriginalImage:
    """Return the columns of an image that its variants depend on."""
    return OriginalImage(media.id, media.extension, media.width, media.content_hash)


def list_formats(original: OriginalImage) -> list[str]:
    """Return the extensions that the URL of a published image can have."""
    return [*FORMATS, *([] if original.extension in FORMATS else [original.extension])]


def list_widths(original: OriginalImage) -> list[int]:
    """Return the widths of a published image in ascending order; the last one is that of the stored image."""
    return [*(width for width in LADDER if width < original.width), original.width]


def list_published_variants(original: OriginalImage) -> list[Variant]:
    """Return the variants that a publication needs, the smallest widths first."""
    return [
        Variant(original, width, extension)
        for width in list_widths(original)
        for extension in list_formats(original)
        if (width, extension) != (original.width, original.extension)
    ]


def find_published_file(
    storage: Storage, original: OriginalImage, extension: str, width: int | None
) -> PublishedFile:
    """Return the requested variant, or else the same width in the stored format, or else the stored image.

    Args:
        storage: The storage of the image.
        original: The stored image.
        extension: One of `list_formats`.
        width: The requested width in pixels; None for that of the stored image.

    Raises:
        NotFound: The stored image does not exist.
    """
    wanted = find_width(width or original.width, original.width), extension
    for choice in _list_choices(original, *wanted):
        try:
            file = get_variant(storage, original, choice[0], _TYPES.get(choice[1], choice[1]))
        except VariantMissing:
            continue
        return PublishedFile(file, is_exact=choice == wanted)
    raise AssertionError("the stored image is always there or NotFound")


def _list_choices(original: OriginalImage, width: int, extension: str) -> Iterator[tuple[int, str]]:
    yield width, extension
    yield width, original.extension
    yield original.width, original.extension
