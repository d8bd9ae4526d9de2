"""Mark the writes that run on the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Handler = TypeVar("Handler", bound=Callable[..., object])


def plain_write(handler: Handler) -> Handler:
    """Declare that a handler waits for nothing but few statements of the database, and needs no thread.

    It may use what `db.event_loop_session` offers. Where a request needs more, a thread serves it.
    """
    vars(handler)["__plain_write__"] = True
    return handler


def is_plain_write(handler: Callable[..., object]) -> bool:
    """Return whether a handler is marked with `plain_write`."""
    return getattr(handler, "__plain_write__", False)
