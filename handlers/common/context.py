"""Return what the application and the request context hold: settings, HTTP client, storage and request id."""

from __future__ import annotations

from typing import cast

from flask import current_app

from studio.http_client import SafeHttpClient
from studio.media.storage import Storage
from studio.settings import Settings
from studio.telemetry.context import current_log_context


def current_settings() -> Settings:
    """Return the settings that the application was created with."""
    return cast(Settings, current_app.config["SETTINGS"])


def current_http_client() -> SafeHttpClient:
    """Return the client for requests to other servers."""
    return cast(SafeHttpClient, current_app.config["OUTBOUND"])


def current_storage() -> Storage:
    """Return the storage of image and export files."""
    return cast(Storage, current_app.config["STORAGE"])


def current_request_id() -> str:
    """Return the id of the current request, "-" outside of a request."""
    context = current_log_context()
    return (context and context.request_id) or "-"
