"""What takes its time is done before the transaction is opened, because SQLite has one writer: pictures are
decoded and fetched from other servers, names are resolved.

First a short look, in a transaction that only reads, whether the caller may do it at all: nobody makes the
server work for rows that are not there. What it found may change meanwhile, so the handler asks again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flask import current_app

from handlers.common.context import current_http_client, current_settings
from handlers.contract.errors import ServiceUnavailable
from handlers.contract.request_bodies import UploadedFile
from studio.media.fetching import fetch_images
from studio.media.images import read_image
from studio.media.ingest import is_own_url

Handler = TypeVar("Handler", bound=Callable[..., object])
PrecheckCallback = Callable[..., object]
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Precheck:
    """What comes before a handler: `look` gets its arguments, `prepare` makes those it is called with."""

    check: PrecheckCallback
    is_needed: Callable[[Arguments], bool]
    prepare: Callable[[Arguments], Arguments]


def find_precheck(handler: Callable[..., object]) -> Precheck | None:
    """Return what a decorator of this module said about a handler, None for one without."""
    return getattr(handler, "__preparation__", None)


def prefetches_images(check: PrecheckCallback, *names: str) -> Callable[[Handler], Handler]:
    """Give a handler the decoded picture in place of the file in its body, or in place of the body.

    Each of the properties `names` that holds an address of another server becomes a FetchedAddress. `look`
    gets the handler's own arguments and raises what forbids the request; so do the decoding (NotAnImage,
    TooLarge, Unreadable) and the fetching (TargetNotAllowed, ImageNotFetched, ImageNotUsable, Unavailable).
    """

    def is_needed(arguments: Arguments) -> bool:
        return has_file(arguments) or bool(_find_remote_urls(arguments["body"], names))

    def prepare(arguments: Arguments) -> Arguments:
        return decode_upload(arguments) if has_file(arguments) else _fetch_images(arguments, names)

    return _attach_precheck(Precheck(check, is_needed, prepare))


def prechecks_url(check: PrecheckCallback) -> Callable[[Handler], Handler]:
    """Call a handler only when the server may go to the `url` of its body, if there is one.

    TargetNotAllowed otherwise; `look` as in `decodes_after`.
    """

    def prepare(arguments: Arguments) -> Arguments:
        current_http_client().require_allowed(arguments["body"]["url"])
        return arguments

    return _attach_precheck(Precheck(check, lambda arguments: "url" in arguments["body"], prepare))


def _attach_precheck(precheck: Precheck) -> Callable[[Handler], Handler]:
    def name_it(handler: Handler) -> Handler:
        vars(handler)["__preparation__"] = precheck
        return handler

    return name_it


def has_file(arguments: Arguments) -> bool:
    """Return whether there is anything to decode: a picture may be named by its address too."""
    body = arguments["body"]
    return not isinstance(body, dict) or isinstance(body.get("file"), UploadedFile)


def decode_upload(arguments: Arguments) -> Arguments:
    """Return the arguments with the picture in place of the file."""
    body = arguments["body"]
    if isinstance(body, dict):
        return {**arguments, "body": {**body, "file": read_image(body["file"].file)}}
    return {**arguments, "body": read_image(body)}


def _find_remote_urls(body: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Return the properties that hold an address of another server."""
    public_url = current_settings().public_url
    named = {name: body[name] for name in names if body.get(name) is not None}
    return {name: url for name, url in named.items() if not is_own_url(public_url, url)}


def _fetch_images(arguments: Arguments, names: tuple[str, ...]) -> Arguments:
    addresses = _find_remote_urls(arguments["body"], names)
    with _fetch_slot():
        pictures = fetch_images(current_http_client(), addresses.values())
    found = {name: pictures[address] for name, address in addresses.items()}
    return {**arguments, "body": {**arguments["body"], **found}}


@contextmanager
def _fetch_slot() -> Iterator[None]:
    """Hold one of the places for fetching; Unavailable when all are taken.

    Other servers may be slow: the other half of the threads stays with those who wait for nobody.
    """
    places = cast(threading.BoundedSemaphore, current_app.config["FETCHING"])
    if not places.acquire(blocking=False):
        raise ServiceUnavailable()
    try:
        yield
    finally:
        places.release()
