"""Fetch images from remote URLs that clients pass, over the SSRF-safe HTTP client.

A fetched image is normalised like an upload. The caller learns that the image is not available, but nothing
about the response of the remote server: otherwise the API could be used to probe other hosts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from db.errors import Conflict, NotAnImage, TargetNotAllowed, TooLarge, UnreadableImage
from studio.http_client import NOT_PUBLIC, HttpClientError, SafeHttpClient
from studio.media.images import normalise
from studio.media.memory_gate import MAX_WAIT_SECONDS
from studio.media.stored_image import MAX_FILE_BYTES, StoredImage

TIMEOUT_SECONDS = 15.0
MAX_REDIRECTS = 3
_HEADERS = {"accept": "image/*", "user-agent": "Sartiq-Images/1.0"}


class ImageNotFetched(Conflict):
    """The remote server is unreachable, too slow, or responds with a status other than 200."""

    code = "image_not_fetched"
    default_detail = "The image could not be fetched from its URL"


class ImageNotUsable(Conflict):
    """The content of the URL is not accepted as an image, by the same rules as for uploads."""

    code = "image_not_usable"
    default_detail = "The content of the URL cannot be used as an image"


class FetchedImage(str):
    """A URL as the client wrote it, with the image that was fetched from it."""

    image: StoredImage

    def __deepcopy__(self, _memo: object) -> FetchedImage:
        """Return the URL itself, which cannot be changed."""
        return self

    def __new__(cls, url: str, image: StoredImage) -> FetchedImage:
        """Create the URL; it compares and is stored like any string."""
        fetched = super().__new__(cls, url)
        fetched.image = image
        return fetched


def fetch_images(client: SafeHttpClient, urls: Iterable[str]) -> dict[str, FetchedImage]:
    """Fetch the image of each URL, all of them within `TIMEOUT_SECONDS`.

    Raises:
        TargetNotAllowed: A URL, or a redirect from it, leads to a host that is not public.
        ImageNotFetched: A remote server did not return the content.
        ImageNotUsable: The content of a URL is not an image, too large or damaged.
        TimeoutError: No slot was free in which a fetched image could be decoded.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    return {url: FetchedImage(url, _fetch_image(client, url, deadline)) for url in dict.fromkeys(urls)}


def _fetch_image(client: SafeHttpClient, url: str, deadline: float) -> StoredImage:
    try:
        response = client.send(
            "GET",
            url,
            headers=_HEADERS,
            timeout_seconds=deadline - time.monotonic(),
            max_bytes=MAX_FILE_BYTES,
            redirects=MAX_REDIRECTS,
        )
    except HttpClientError as error:
        raise _to_conflict(error) from error
    if response.status != 200:
        raise ImageNotFetched()
    try:
        return normalise(response.content, MAX_WAIT_SECONDS)
    except (NotAnImage, TooLarge, UnreadableImage) as error:
        raise ImageNotUsable(error.detail) from error


def _to_conflict(error: HttpClientError) -> Conflict:
    if error.reason == "unresolved":
        return TargetNotAllowed(NOT_PUBLIC)
    if error.reason == "too_large":
        return ImageNotUsable(f"An image may have at most {MAX_FILE_BYTES} bytes.")
    return ImageNotFetched()
