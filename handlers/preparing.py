"""Pictures are decoded before the transaction is opened: it takes up to a second, and SQLite has one writer.

First a short look, in a transaction that only reads, whether the caller may do it at all: nobody makes the
server decode for rows that are not there. What it found may change meanwhile, so the handler asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from handlers.uploaded import UploadedFile
from studio.media.normalisation import read_picture

Handler = TypeVar("Handler", bound=Callable[..., object])
Look = Callable[..., object]


def decodes_after(look: Look) -> Callable[[Handler], Handler]:
    """Give a handler the decoded picture in place of the file in its body, or in place of the body.

    `look` gets the handler's own arguments and raises what forbids the request; so does the decoding:
    NotAnImage, TooLarge or Unreadable.
    """

    def name_it(handler: Handler) -> Handler:
        handler.__look__ = look  # type: ignore[attr-defined]  # the mark itself
        return handler

    return name_it


def look_before(handler: Callable[..., object]) -> Look | None:
    """Return what `decodes_after` named, None for a handler without it."""
    return getattr(handler, "__look__", None)


def has_file(arguments: dict[str, Any]) -> bool:
    """Return whether there is anything to decode: a picture may be named by its address too."""
    body = arguments["body"]
    return not isinstance(body, dict) or isinstance(body.get("file"), UploadedFile)


def decoded(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with the picture in place of the file."""
    body = arguments["body"]
    if isinstance(body, dict):
        return {**arguments, "body": {**body, "file": read_picture(body["file"].file)}}
    return {**arguments, "body": read_picture(body)}
