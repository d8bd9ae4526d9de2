"""Fetch images from remote URLs that clients pass, over the SSRF-safe HTTP client.

A fetched image is normalized like an upload. The caller learns that the image is not available, but nothing
about the response of the remote server: otherwise the API could be used to probe other hosts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from db.errors import Conflict, NotAnImage, TargetNotAllowed, TooLarge, UnreadableImage, names_place
from studio.infrastructure.http_client import NOT_PUBLIC, HttpClientError, SafeHttpClient
from studio.media.images import normalize
from studio.media.memory_gate import MAX_WAIT_SECONDS
from studio.media.stored_image import MAX_FILE_BYTES, MAX_PIXELS, StoredImage

TIMEOUT_SECONDS = 15.0
MAX_REDIRECTS = 3
_HEADERS = {"accept": "image/*", "user-agent": "Sartiq-Images/1.0"}


class ImageNotFetched(Conflict):
    """The remote server is unreachable, too slow, or responds with a status other than 200."""

    code = "image_not_fetched"
    default_detail = "The image could not be fetched from its URL"


class ImageNotUsable(Conflict):
    """The content of a URL is not accepted as an image, by the same rules as for uploads."""

    code = "image_not_usable"
    default_detail = "The content of the URL cannot be used as an image"


class UnexpectedStatus(Exception):
    """The cause of an `ImageNotFetched`: a remote server responded with a status other than 200."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"status {status}")


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


def fetch_images(client: SafeHttpClient, urls: Mapping[str, str]) -> dict[str, FetchedImage]:
    """Fetch the images of the URLs in a request, all of them within `TIMEOUT_SECONDS`.

    Together they may be as large as one upload, because all are in memory until the request ends.

    Args:
        client: The HTTP client.
        urls: The URLs by their place in the request body. A URL that occurs twice is fetched once.

    Raises:
        TargetNotAllowed: A URL, or a redirect from it, leads to a host that is not public.
        ImageNotFetched: A remote server did not return the content.
        ImageNotUsable: The content of a URL is not an image, too large or damaged.
        TimeoutError: No slot was free in which a fetched image could be decoded.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    images: dict[str, StoredImage] = {}
    for place, url in urls.items():
        if url not in images:
            with names_place(place):
                remaining_bytes = MAX_FILE_BYTES - sum(len(image.data) for image in images.values())
                response = _send(client, url, deadline, max(0, remaining_bytes))
                images[url] = _normalize(response, MAX_WAIT_SECONDS)
                require_pixels(images.values())
    return {place: FetchedImage(url, images[url]) for place, url in urls.items()}


def require_pixels(images: Iterable[StoredImage]) -> None:
    """Check that the new images of a request have at most the pixels of one upload together.

    Raises:
        ImageNotUsable: They have more.
    """
    if sum(image.width * image.height for image in images) > MAX_PIXELS:
        raise ImageNotUsable(
            f"The images of one request may have at most {MAX_PIXELS // 1_000_000} megapixels together: "
            "add the others with requests of their own"
        )


def fetch_image(client: SafeHttpClient, url: str, timeout_seconds: float) -> StoredImage:
    """Fetch one image for a job. It waits any time for a slot to decode it.

    Args:
        client: The HTTP client.
        url: The URL.
        timeout_seconds: The limit for the whole exchange.

    Raises:
        TargetNotAllowed, ImageNotFetched, ImageNotUsable: As `fetch_images`.
    """
    return _normalize(_send(client, url, time.monotonic() + timeout_seconds, MAX_FILE_BYTES), None)


def may_succeed_later(error: Conflict) -> bool:
    """Return whether another attempt to fetch an image that failed with this error can succeed."""
    cause = error.__cause__
    if isinstance(cause, UnexpectedStatus):
        return cause.status in (408, 425, 429) or cause.status >= 500
    return isinstance(cause, HttpClientError) and cause.reason != "too_large"


def _send(client: SafeHttpClient, url: str, deadline: float, max_bytes: int) -> bytes:
    try:
        response = client.send(
            "GET",
            url,
            headers=_HEADERS,
            timeout_seconds=deadline - time.monotonic(),
            max_bytes=max_bytes,
            redirects=MAX_REDIRECTS,
        )
    except HttpClientError as error:
        raise _to_conflict(error) from error
    if response.status != 200:
        raise ImageNotFetched() from UnexpectedStatus(response.status)
    return response.content


def _normalize(content: bytes, max_wait_seconds: float | None) -> StoredImage:
    with rejects_unusable_images():
        return normalize(content, max_wait_seconds)


@contextmanager
def rejects_unusable_images() -> Iterator[None]:
    """Raise ImageNotUsable for an error of the block that says what is wrong with an image."""
    try:
        yield
    except (NotAnImage, TooLarge, UnreadableImage) as error:
        raise ImageNotUsable(error.detail) from error


def _to_conflict(error: HttpClientError) -> Conflict:
    if error.reason == "unresolved":
        return TargetNotAllowed(NOT_PUBLIC)
    if error.reason == "too_large":
        return ImageNotUsable(f"The images of one request may have at most {MAX_FILE_BYTES} bytes together")
    return ImageNotFetched()
