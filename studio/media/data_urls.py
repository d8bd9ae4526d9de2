"""Read images that a request body holds as base64 data URLs (RFC 2397)."""

from __future__ import annotations

import base64
import binascii
import io

from studio.media.fetching import ImageNotUsable, rejects_unusable_images
from studio.media.images import read_image
from studio.media.stored_image import StoredImage

MAX_DATA_URL_BYTES = 10_000_000
"""The maximum size of an image in a data URL, decoded from base64."""


def is_data_url(url: str) -> bool:
    """Return whether a URL holds its content itself."""
    return url.startswith("data:")


def read_data_url(url: str) -> StoredImage:
    """Return the normalized image of a data URL. The caller holds a slot of `memory_gate`.

    The media type in the URL is not trusted: the content decides, as for uploads.

    Raises:
        ImageNotUsable: The URL is not valid base64, or its content is not an image, too large or damaged.
    """
    try:
        data = base64.b64decode(url.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise ImageNotUsable("The data URL is not valid base64") from error
    if len(data) > MAX_DATA_URL_BYTES:
        raise ImageNotUsable(
            f"A data URL may have at most {MAX_DATA_URL_BYTES} bytes: upload the file instead"
        )
    with rejects_unusable_images():
        return read_image(io.BytesIO(data))
