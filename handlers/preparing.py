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

from handlers.contract.refusals import Unavailable
from handlers.current import current_outbound, current_settings
from handlers.uploaded import UploadedFile
from studio.media.fetching import fetch_pictures
from studio.media.ingest import is_of_this_server
from studio.media.picture import read_picture

Handler = TypeVar("Handler", bound=Callable[..., object])
Look = Callable[..., object]
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Preparation:
    """What comes before a handler: `look` gets its arguments, `prepare` makes those it is called with."""

    look: Look
    is_needed: Callable[[Arguments], bool]
    prepare: Callable[[Arguments], Arguments]


def preparation_of(handler: Callable[..., object]) -> Preparation | None:
    """Return what a decorator of this module said about a handler, None for one without."""
    return getattr(handler, "__preparation__", None)


def decodes_after(look: Look, *names: str) -> Callable[[Handler], Handler]:
    """Give a handler the decoded picture in place of the file in its body, or in place of the body.

    Each of the properties `names` that holds an address of another server becomes a FetchedAddress. `look`
    gets the handler's own arguments and raises what forbids the request; so do the decoding (NotAnImage,
    TooLarge, Unreadable) and the fetching (TargetNotAllowed, ImageNotFetched, ImageNotUsable, Unavailable).
    """

    def is_needed(arguments: Arguments) -> bool:
        return has_file(arguments) or bool(_foreign_addresses(arguments["body"], names))

    def prepare(arguments: Arguments) -> Arguments:
        return decoded(arguments) if has_file(arguments) else _fetched(arguments, names)

    return _marking(Preparation(look, is_needed, prepare))


def checks_target_after(look: Look) -> Callable[[Handler], Handler]:
    """Call a handler only when the server may go to the `url` of its body, if there is one.

    TargetNotAllowed otherwise; `look` as in `decodes_after`.
    """

    def prepare(arguments: Arguments) -> Arguments:
        current_outbound().require_allowed(arguments["body"]["url"])
        return arguments

    return _marking(Preparation(look, lambda arguments: "url" in arguments["body"], prepare))


def _marking(preparation: Preparation) -> Callable[[Handler], Handler]:
    def name_it(handler: Handler) -> Handler:
        vars(handler)["__preparation__"] = preparation
        return handler

    return name_it


def has_file(arguments: Arguments) -> bool:
    """Return whether there is anything to decode: a picture may be named by its address too."""
    body = arguments["body"]
    return not isinstance(body, dict) or isinstance(body.get("file"), UploadedFile)


def decoded(arguments: Arguments) -> Arguments:
    """Return the arguments with the picture in place of the file."""
    body = arguments["body"]
    if isinstance(body, dict):
        return {**arguments, "body": {**body, "file": read_picture(body["file"].file)}}
    return {**arguments, "body": read_picture(body)}


def _foreign_addresses(body: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Return the properties that hold an address of another server."""
    public_url = current_settings().public_url
    named = {name: body[name] for name in names if body.get(name) is not None}
    return {name: url for name, url in named.items() if not is_of_this_server(public_url, url)}


def _fetched(arguments: Arguments, names: tuple[str, ...]) -> Arguments:
    addresses = _foreign_addresses(arguments["body"], names)
    with _one_of_few():
        pictures = fetch_pictures(current_outbound(), addresses.values())
    found = {name: pictures[address] for name, address in addresses.items()}
    return {**arguments, "body": {**arguments["body"], **found}}


@contextmanager
def _one_of_few() -> Iterator[None]:
    """Hold one of the places for fetching; Unavailable when all are taken.

    Other servers may be slow: the other half of the threads stays with those who wait for nobody.
    """
    places = cast(threading.BoundedSemaphore, current_app.config["FETCHING"])
    if not places.acquire(blocking=False):
        raise Unavailable()
    try:
        yield
    finally:
        places.release()
