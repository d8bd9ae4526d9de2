"""Pictures of other servers: fetched once, over the guarded client, and from then on treated like uploads.

A caller learns that there was no picture to be had, and nothing of what the other server answered.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from db.errors import Conflict, NotAnImage, TargetNotAllowed, TooLarge, UnreadableImage
from studio.http_client import NOT_PUBLIC, HttpClientError, SafeHttpClient
from studio.media.stored_image import MAX_FILE_BYTES, StoredImage, normalise

TIMEOUT_SECONDS = 15.0
MAX_REDIRECTS = 3
_HEADERS = {"accept": "image/*", "user-agent": "Sartiq-Images/1.0"}


class ImageNotFetched(Conflict):
    """The other server was not reached, did not answer in time, or answered with anything but 200."""

    code = "image_not_fetched"
    default_detail = "The image could not be fetched from its address"


class ImageNotUsable(Conflict):
    """What came from the address would be refused as an upload."""

    code = "image_not_usable"
    default_detail = "What the address leads to cannot be used as an image"


class FetchedImage(str):
    """An address as the client wrote it, with the picture that came from there."""

    image: StoredImage

    def __new__(cls, url: str, image: StoredImage) -> FetchedImage:
        """Return the address; it compares, and is stored, like any text."""
        made = super().__new__(cls, url)
        made.image = image
        return made


def fetch_images(client: SafeHttpClient, urls: Iterable[str]) -> dict[str, FetchedImage]:
    """Each address with the picture behind it, all of them within SECONDS.

    TargetNotAllowed for an address where this server does not go, or that leads to one; ImageNotFetched and
    ImageNotUsable when no picture came of it.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    wanted = dict.fromkeys(urls)
    return {address: FetchedImage(address, _fetch_image(client, address, deadline)) for address in wanted}


def _fetch_image(client: SafeHttpClient, url: str, deadline: float) -> StoredImage:
    try:
        reply = client.send(
            "GET",
            url,
            headers=_HEADERS,
            timeout_seconds=deadline - time.monotonic(),
            max_bytes=MAX_FILE_BYTES,
            redirects=MAX_REDIRECTS,
        )
    except HttpClientError as failure:
        raise _to_conflict(failure) from failure
    if reply.status != 200:
        raise ImageNotFetched()
    try:
        return normalise(reply.content)
    except (NotAnImage, TooLarge, UnreadableImage) as error:
        raise ImageNotUsable(error.detail) from error


def _to_conflict(failure: HttpClientError) -> Conflict:
    if failure.reason == "unresolved":
        return TargetNotAllowed(NOT_PUBLIC)
    if failure.reason == "too_large":
        return ImageNotUsable(f"A picture may have at most {MAX_FILE_BYTES} bytes.")
    return ImageNotFetched()
