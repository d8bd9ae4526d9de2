"""Close a development application that another server than ours listens with on a public address.

`python -m handlers` checks `HOST`. Other servers bind an address of their own, which the application learns
from its first request.
"""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.middleware.routing import REJECTED_CONNECTION
from studio.infrastructure.settings import Settings, is_loopback

logger = logging.getLogger(__name__)

CLOSED = "This server is for development and closed at this address; its operator finds the reason in the log"


def close_in_development(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Return the application, outside production one that rejects requests at public addresses."""
    return LoopbackOnly(app) if settings.is_closed_development else app


class LoopbackOnly:
    """Reject requests that reach the server at an address of another interface than loopback.

    Requests through a Unix domain socket, and of servers that do not tell their address, are served.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._has_logged = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or reject one request."""
        host, port = scope.get("server") or ("", None)
        if scope["type"] == "http" and port is not None and not is_loopback(host):
            if not self._has_logged:
                self._has_logged = True
                logger.error(
                    "requests at %s are rejected: outside production the server must listen on a loopback "
                    "address, because passwords of the demo accounts are published. Set "
                    "SARTIQ_ENV=production, or ALLOW_PUBLIC_DEVELOPMENT=1",
                    host,
                )
            rejection = {"limit": Limit.PUBLIC_ADDRESS, "detail": CLOSED, "serves_probes": False}
            extensions = {**(scope.get("extensions") or {}), REJECTED_CONNECTION: rejection}
            scope = {**scope, "extensions": extensions}
        await self.app(scope, receive, send)
