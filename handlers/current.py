"""What every handler may ask about the request it serves: the settings, the way out and the request id."""

from __future__ import annotations

from typing import cast

from flask import current_app

from studio.outbound import Outbound
from studio.settings import Settings
from studio.telemetry.context import current_work


def current_settings() -> Settings:
    """Return the settings the running application was created with."""
    return cast(Settings, current_app.config["SETTINGS"])


def current_outbound() -> Outbound:
    """Return the client for requests to other servers."""
    return cast(Outbound, current_app.config["OUTBOUND"])


def current_request_id() -> str:
    """Return the id of the request being served, "-" outside of one."""
    work = current_work()
    return (work and work.request_id) or "-"
