"""The web server of the shop, which sends the photos and gets the webhooks."""

from __future__ import annotations

import re

from tests.resilience.shop.checks import WebhookInbox
from tools.bench.catalog import Catalog
from tools.servers.http_recorder import RecordedRequest, StubResponse

_PHOTO_PATH = re.compile(r"/photos/(\d+)\.jpg")


class ShopServer:
    """The web server of the shop."""

    def __init__(self, catalog: Catalog, inbox: WebhookInbox) -> None:
        self._catalog, self._inbox = catalog, inbox

    def respond(self, request: RecordedRequest) -> StubResponse:
        """Send a photo, or take a webhook message."""
        if request.method == "POST":
            return self._inbox.respond(request)
        found = _PHOTO_PATH.fullmatch(request.path)
        if found is None or int(found[1]) >= self._catalog.images:
            return StubResponse(404)
        photo = self._catalog.draw_photo(int(found[1]))
        return StubResponse(body=photo, headers={"Content-Type": "image/jpeg"})
