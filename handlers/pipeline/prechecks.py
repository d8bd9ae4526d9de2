"""Run slow work before the transaction of a request: receive, decode and fetch images, resolve host names.

A transaction holds a connection and locks, so nothing slow may run inside one. A short read-only transaction
first checks whether the caller may make the request at all, so that a request that will fail causes no work.
The result may be outdated when the handler runs, so the handler checks again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeVar
from uuid import UUID

from db.errors import Conflict, names_place
from handlers.common.context import current_http_client, current_settings
from handlers.contract.errors import ServiceUnavailable
from handlers.contract.request_bodies import UploadedFile
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.admission.slots import hold_fetch_slot
from studio.media.data_urls import is_data_url, read_data_url
from studio.media.fetching import FetchedImage, fetch_images, require_pixels
from studio.media.images import read_image
from studio.media.ingest import is_own_url
from studio.media.stored_image import StoredImage

Handler = TypeVar("Handler", bound=Callable[..., object])
PrecheckCallback = Callable[..., object]
AuthorizeCallback = Callable[..., UUID | None]
Arguments = dict[str, Any]
FileReader = Callable[[BinaryIO], Any]
"""Reads the file of a request, and returns what the handler gets in its place."""
LOADED = "loaded"
"""The argument of `Precheck.prepare` with the result of its check, if that is kept."""


class ImageNotUploaded(Conflict):
    """An item of a batch has an image that the server would have to download or decode."""

    code = "image_not_uploaded"
    default_detail = (
        "A batch takes URLs of this API only: upload the image first (`POST /uploads/presigned-url`), use an "
        "import, or send the item as a request of its own"
    )


class DecodingNeeded(Exception):
    """The request continues when its images are decoded.

    The `image_conversion` middleware decodes them, because the wait for a slot must not hold a request
    thread.

    Attributes:
        decodings: Functions that decode one image each. The caller holds a slot.
        finish: Returns the new arguments of the handler, called with the decoded images.
    """

    def __init__(
        self,
        decodings: Sequence[Callable[[], Any]],
        finish: Callable[[Sequence[Any]], Arguments],
    ) -> None:
        super().__init__()
        self.decodings, self.finish = decodings, finish


class StoringNeeded(Exception):
    """The request continues when its file is stored as it is, which needs no slot for decoded images.

    The `image_conversion` middleware stores it, because a slow storage must not hold a request thread.

    Attributes:
        store: Stores the file.
        finish: Returns the new arguments of the handler, called with the result of `store`.
    """

    def __init__(self, store: Callable[[], Any], finish: Callable[[Any], Arguments]) -> None:
        super().__init__()
        self.store, self.finish = store, finish


@dataclass(frozen=True)
class Precheck:
    """What the endpoint does before it calls a handler.

    Attributes:
        check: Called with the handler's arguments in a read-only transaction; raises to reject the request.
        is_needed: Returns whether the arguments require slow work.
        prepare: Does the slow work outside of a transaction and returns the new arguments of the handler, or
            raises DecodingNeeded or StoringNeeded.
        find_urls: Returns the URLs in the arguments that lead to slow work, by their JSON Pointer.
        authorize: Called before a file is received, with the handler's arguments without `body`, in a
            read-only transaction; raises to reject the request. Returns the account that a signed URL stands
            for: the request counts for it from then on.
        keeps_result: Whether `prepare` gets the result of `check` as the argument `LOADED`.
    """

    check: PrecheckCallback
    is_needed: Callable[[Arguments], bool]
    prepare: Callable[[Arguments], Arguments]
    authorize: AuthorizeCallback | None = None
    find_urls: Callable[[Arguments], Mapping[str, str]] = lambda _: {}
    keeps_result: bool = False


def find_precheck(handler: Callable[..., object]) -> Precheck | None:
    """Return the precheck of a handler, None for a handler without one."""
    return getattr(handler, "__precheck__", None)


def authorizes_files(handler: Callable[..., object]) -> bool:
    """Return whether a handler authorizes requests before their file is received."""
    precheck = find_precheck(handler)
    return precheck is not None and precheck.authorize is not None


def require_uploaded_images(handler: Callable[..., object], arguments: Arguments) -> None:
    """Check that a handler can be called without slow work, within the transaction of a batch.

    Raises:
        ImageNotUploaded: An image URL is not of this server.
    """
    precheck = find_precheck(handler)
    urls = {} if precheck is None else precheck.find_urls(arguments)
    if urls:
        raise ImageNotUploaded(pointer=next(iter(urls)))


def prefetches_images(
    check: PrecheckCallback,
    *names: str,
    authorize: AuthorizeCallback | None = None,
    find_store: Callable[[], FileReader | None] = lambda: None,
) -> Callable[[Handler], Handler]:
    """Pass decoded images to a handler instead of the file in its body, or instead of the body.

    Args:
        check: Called first with the handler's arguments; raises to reject the request.
        names: The properties with image URLs; `images/*/url` are those of the items of a list. Each URL of
            another server becomes a `FetchedImage`, and each data URL a `StoredImage`.
        authorize: As in `Precheck`; required if the body can be a file.
        find_store: Returns the function that stores the file of the running request, or None if the file is
            an image to decode.

    Raises:
        NotAnImage, TooLarge, UnreadableImage: A file cannot be decoded.
        TargetNotAllowed, ImageNotFetched, ImageNotUsable: A URL leads to no image.
        TooManyConcurrentRequests: Too many requests of the account are fetching images.
        ServiceUnavailable: Too many requests are fetching or decoding images.
    """

    def find_urls(arguments: Arguments) -> dict[str, str]:
        return _find_foreign_urls(arguments["body"], names)

    def is_needed(arguments: Arguments) -> bool:
        return has_file(arguments) or bool(find_urls(arguments))

    def prepare(arguments: Arguments) -> Arguments:
        if has_file(arguments):
            raise _read_upload(arguments, find_store())
        urls = find_urls(arguments)
        data_urls = {place: url for place, url in urls.items() if is_data_url(url)}
        fetched = _fetch_images({place: url for place, url in urls.items() if place not in data_urls})
        arguments = {**arguments, "body": _replace(arguments["body"], fetched)}
        if data_urls:
            raise _decode_data_urls(arguments, data_urls, [image.image for image in fetched.values()])
        return arguments

    return _attach_precheck(Precheck(check, is_needed, prepare, authorize, find_urls))


def prechecks_url(
    check: PrecheckCallback, find_url: Callable[[dict[str, Any]], str | None] = lambda body: body.get("url")
) -> Callable[[Handler], Handler]:
    """Call a handler only if the server may send requests to a URL of its body, if there is one.

    Args:
        check: As for `prefetches_images`.
        find_url: Returns the URL in a body or None, by default its `url`.

    Raises:
        TargetNotAllowed: The host is not a public one (OWASP API7:2023, SSRF).
    """

    def prepare(arguments: Arguments) -> Arguments:
        current_http_client().require_allowed(find_url(arguments["body"]) or "")
        return arguments

    return _attach_precheck(
        Precheck(check, lambda arguments: find_url(arguments["body"]) is not None, prepare)
    )


def runs_before(
    load: Callable[..., Any], run: Callable[[Arguments, Any], Arguments]
) -> Callable[[Handler], Handler]:
    """Do slow work before each call of a handler.

    Args:
        load: Called first with the handler's arguments, in a read-only transaction; raises to reject the
            request, and returns what the work needs.
        run: Does the work outside of a transaction, with the arguments and the result of `load`, and returns
            the new arguments of the handler.
    """

    def prepare(arguments: Arguments) -> Arguments:
        loaded = arguments[LOADED]
        return run({name: value for name, value in arguments.items() if name != LOADED}, loaded)

    return _attach_precheck(Precheck(load, lambda _: True, prepare, keeps_result=True))


def _attach_precheck(precheck: Precheck) -> Callable[[Handler], Handler]:
    def mark(handler: Handler) -> Handler:
        vars(handler)["__precheck__"] = precheck
        return handler

    return mark


def has_file(arguments: Arguments) -> bool:
    """Return whether the body has a file; an image may be given as a URL instead."""
    body = arguments["body"]
    return not isinstance(body, dict) or isinstance(body.get("file"), UploadedFile)


def _read_upload(arguments: Arguments, store: FileReader | None) -> DecodingNeeded | StoringNeeded:
    body = arguments["body"]
    file = body["file"].file if isinstance(body, dict) else body

    def finish(result: Any) -> Arguments:
        return {**arguments, "body": {**body, "file": result} if isinstance(body, dict) else result}

    if store is not None:
        return StoringNeeded(partial(store, file), finish)
    return DecodingNeeded([partial(read_image, file)], lambda images: finish(images[0]))


def _decode_data_urls(
    arguments: Arguments, urls: Mapping[str, str], fetched: Sequence[StoredImage]
) -> DecodingNeeded:
    """Return the decoding of the data URLs of a body, by place; `fetched` are the other new images."""
    decoded = list(fetched)

    def decode(place: str, url: str) -> StoredImage:
        with names_place(place):
            decoded.append(read_data_url(url))
            # After each image, so that no request holds the pixels of many large ones.
            require_pixels(decoded)
        return decoded[-1]

    def finish(images: Sequence[StoredImage]) -> Arguments:
        body = _replace(arguments["body"], dict(zip(urls, images, strict=True)))
        return {**arguments, "body": body}

    return DecodingNeeded([partial(decode, place, url) for place, url in urls.items()], finish)


def _find_foreign_urls(body: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Return the URLs that are not of this server, by their place in the body, a JSON Pointer."""
    urls: dict[str, str | None] = {}
    for name in names:
        outer, is_list, inner = name.partition("/*/")
        if is_list:
            urls |= {f"{outer}/{i}/{inner}": item[inner] for i, item in enumerate(body.get(outer, ()))}
        else:
            urls[name] = body.get(name)
    public_url = current_settings().public_url
    return {
        f"/{place}": url
        for place, url in urls.items()
        # A data URL first: `urllib` would keep the parts of a long one in its cache.
        if url is not None and (is_data_url(url) or not is_own_url(public_url, url))
    }


def _replace(body: dict[str, Any], values: Mapping[str, object]) -> dict[str, Any]:
    """Return a copy of a body with other values in places of `_find_foreign_urls`."""
    body = deepcopy(body)
    for place, value in values.items():
        outer, *inner = place.removeprefix("/").split("/")
        if inner:
            body[outer][int(inner[0])][inner[1]] = value
        else:
            body[outer] = value
    return body


def _fetch_images(urls: Mapping[str, str]) -> dict[str, FetchedImage]:
    """Return the images of remote URLs, by their place in the body."""
    if not urls:
        return {}
    with hold_fetch_slot("Too many images are being downloaded: wait until one of them is done"):
        try:
            return fetch_images(current_http_client(), urls)
        except TimeoutError as error:
            raise ServiceUnavailable(Limit.DECODE_SLOTS) from error
