"""What every handler may ask about the request it serves: the settings, the way out and the request id."""

from __future__ import annotations

from contextvars import ContextVar
from typing import cast

from flask import current_app

from studio.outbound import Outbound
from studio.settings import Settings

_request_id: ContextVar[str] = ContextVar("request_id", default="-")


def current_settings() -> Settings:
    """Return the settings the running application was created with."""
    return cast(Settings, current_app.config["SETTINGS"])


def current_outbound() -> Outbound:
    """Return the client for requests to other servers."""
    return cast(Outbound, current_app.config["OUTBOUND"])


def current_request_id() -> str:
    """Return the id of the request being served, "-" outside of one."""
    return _request_id.get()


def use_request_id(request_id: str) -> None:
    """Make `request_id` the id of everything that runs in this context from now on."""
    _request_id.set(request_id)
