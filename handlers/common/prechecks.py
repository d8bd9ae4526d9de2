"""Run slow work before the transaction of a request: receive, decode and fetch images, resolve host names.

SQLite has one writer, so nothing slow may run inside a write transaction. A short read-only transaction first
checks whether the caller may make the request at all, so that a request that will fail causes no work. The
result may be outdated when the handler runs, so the handler checks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

from flask import current_app

from db.errors import TooManyConcurrentRequests
from handlers.common.context import current_http_client, current_settings
from handlers.contract.errors import ServiceUnavailable
from handlers.contract.request_bodies import UploadedFile
from studio.fair_slots import FairSlots, current_subject
from studio.media.fetching import fetch_images
from studio.media.images import read_image
from studio.media.ingest import is_own_url

Handler = TypeVar("Handler", bound=Callable[..., object])
PrecheckCallback = Callable[..., object]
AuthorizeCallback = Callable[..., UUID | None]
Arguments = dict[str, Any]


class DecodingNeeded(Exception):
    """The request continues when its file is decoded: `decode` returns the new arguments of the handler.

    The `image_conversion` middleware decodes it, because the wait for a slot must not hold a request thread.
    """

    def __init__(self, decode: Callable[[], Arguments]) -> None:
        super().__init__()
        self.decode = decode


@dataclass(frozen=True)
class Precheck:
    """What the endpoint does before it calls a handler.

    Attributes:
        check: Called with the handler's arguments in a read-only transaction; raises to reject the request.
        is_needed: Returns whether the arguments require slow work.
        prepare: Does the slow work outside of a transaction and returns the new arguments of the handler, or
            raises DecodingNeeded.
        authorize: Called before a file is received, with the handler's arguments without `body`, in a
            read-only transaction; raises to reject the request. Returns the account that a signed URL stands
            for: the request counts for it from then on.
    """

    check: PrecheckCallback
    is_needed: Callable[[Arguments], bool]
    prepare: Callable[[Arguments], Arguments]
    authorize: AuthorizeCallback | None = None


def find_precheck(handler: Callable[..., object]) -> Precheck | None:
    """Return the precheck of a handler, None for a handler without one."""
    return getattr(handler, "__precheck__", None)


def prefetches_images(
    check: PrecheckCallback, *names: str, authorize: AuthorizeCallback | None = None
) -> Callable[[Handler], Handler]:
    """Pass decoded images to a handler instead of the file in its body, or instead of the body.

    Args:
        check: Called first with the handler's arguments; raises to reject the request.
        names: The properties with image URLs. Each URL of another server becomes a `FetchedImage`.
        authorize: As in `Precheck`; required if the body can be a file.

    Raises:
        NotAnImage, TooLarge, UnreadableImage: A file cannot be decoded.
        TargetNotAllowed, ImageNotFetched, ImageNotUsable: A URL cannot be fetched.
        TooManyConcurrentRequests: Too many requests of the account are fetching images.
        ServiceUnavailable: Too many requests are fetching or decoding images.
    """

    def is_needed(arguments: Arguments) -> bool:
        return has_file(arguments) or bool(_find_remote_urls(arguments["body"], names))

    def prepare(arguments: Arguments) -> Arguments:
        if has_file(arguments):
            raise DecodingNeeded(partial(decode_upload, arguments))
        return _fetch_images(arguments, names)

    return _attach_precheck(Precheck(check, is_needed, prepare, authorize))


def prechecks_url(check: PrecheckCallback) -> Callable[[Handler], Handler]:
    """Call a handler only if the server may send requests to the `url` of its body, if there is one.

    Args:
        check: As for `prefetches_images`.

    Raises:
        TargetNotAllowed: The host is not a public one (OWASP API7:2023, SSRF).
    """

    def prepare(arguments: Arguments) -> Arguments:
        current_http_client().require_allowed(arguments["body"]["url"])
        return arguments

    return _attach_precheck(Precheck(check, lambda arguments: "url" in arguments["body"], prepare))


def _attach_precheck(precheck: Precheck) -> Callable[[Handler], Handler]:
    def mark(handler: Handler) -> Handler:
        vars(handler)["__precheck__"] = precheck
        return handler

    return mark


def has_file(arguments: Arguments) -> bool:
    """Return whether the body has a file; an image may be given as a URL instead."""
    body = arguments["body"]
    return not isinstance(body, dict) or isinstance(body.get("file"), UploadedFile)


def decode_upload(arguments: Arguments) -> Arguments:
    """Return the arguments with the decoded image instead of the file. The caller holds a slot."""
    body = arguments["body"]
    if isinstance(body, dict):
        return {**arguments, "body": {**body, "file": read_image(body["file"].file)}}
    return {**arguments, "body": read_image(body)}


def _find_remote_urls(body: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Return the properties that hold a URL of another server."""
    public_url = current_settings().public_url
    urls = {name: body[name] for name in names if body.get(name) is not None}
    return {name: url for name, url in urls.items() if not is_own_url(public_url, url)}


def _fetch_images(arguments: Arguments, names: tuple[str, ...]) -> Arguments:
    urls = _find_remote_urls(arguments["body"], names)
    with _fetch_slot():
        try:
            images = fetch_images(current_http_client(), urls.values())
        except TimeoutError as error:
            raise ServiceUnavailable() from error
    fetched = {name: images[url] for name, url in urls.items()}
    return {**arguments, "body": {**arguments["body"], **fetched}}


@contextmanager
def _fetch_slot() -> Iterator[None]:
    """Hold a slot for fetching images within the block.

    Other servers may be slow, so only half of the request threads may wait for them: half of these for one
    account, and one less for one address.

    Raises:
        TooManyConcurrentRequests: The account has all slots that it can have.
        ServiceUnavailable: All slots are in use, or the address has all that it can have.
    """
    slots, subject = cast(FairSlots, current_app.config["FETCHING"]), current_subject()
    if not slots.try_take(subject):
        if slots.count_held(subject.owner) >= slots.per_owner:
            raise TooManyConcurrentRequests(
                "Too many images are being downloaded: wait until one of them is done"
            )
        raise ServiceUnavailable()
    try:
        yield
    finally:
        slots.release(subject)
