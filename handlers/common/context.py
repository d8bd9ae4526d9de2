"""What every handler may ask about the request it serves: the settings, the way out and the request id."""

from __future__ import annotations

from typing import cast

from flask import current_app

from studio.http_client import SafeHttpClient
from studio.settings import Settings
from studio.telemetry.context import current_log_context


def current_settings() -> Settings:
    """Return the settings the running application was created with."""
    return cast(Settings, current_app.config["SETTINGS"])


def current_http_client() -> SafeHttpClient:
    """Return the client for requests to other servers."""
    return cast(SafeHttpClient, current_app.config["OUTBOUND"])


def current_request_id() -> str:
    """Return the id of the request being served, "-" outside of one."""
    work = current_log_context()
    return (work and work.request_id) or "-"
