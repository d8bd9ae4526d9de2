"""Send requests in process whose response is read while it arrives, and which the client can abort."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from handlers.app import Application
from tests.api.conftest import Client
from tests.support.client import ClientResponse, build_scope

TIMEOUT_SECONDS = 20


class StreamingRequest:
    """A running request."""

    def __init__(
        self,
        client: Client,
        method: str,
        path: str,
        as_json: Any,
        headers: dict[str, str],
        body: bytes | None = None,
    ) -> None:
        self._messages: list[dict[str, Any]] = []
        self._received, self._disconnected = asyncio.Event(), asyncio.Event()
        self._body: bytes | None = body if as_json is None else json.dumps(as_json).encode()
        all_headers = client.headers | headers
        if self._body is not None:
            all_headers |= {"content-length": str(len(self._body))}
            all_headers.setdefault("content-type", "application/json")
        scope = build_scope(method, f"/api/v1{path}", all_headers)
        self.task = asyncio.create_task(client.app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self._messages.append(message)
        self._received.set()

    def disconnect(self) -> None:
        """Close the connection."""
        self._disconnected.set()

    @property
    def body(self) -> bytes:
        """The part of the body that has arrived."""
        return b"".join(message.get("body", b"") for message in self._messages[1:])

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a stream that have arrived: the data of each event, with its name."""
        events = []
        for block in self.body.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "data" in lines:
                data = json.loads(lines["data"])
                assert int(lines["id"]) == data["revision"]
                events.append({"event": lines["event"], **data})
        return events

    async def wait_until(self, condition: Callable[[], Any]) -> None:
        """Wait until the condition holds. It is checked after each received message."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not condition():
                self._received.clear()
                await self._received.wait()

    async def read_response(self) -> ClientResponse:
        """Wait for the end of the request and return the whole response."""
        await asyncio.wait_for(self.task, TIMEOUT_SECONDS)
        headers = {name.decode(): value.decode("latin-1") for name, value in self._messages[0]["headers"]}
        return ClientResponse(self._messages[0]["status"], headers, self.body)


@asynccontextmanager
async def enable_long_polling(app: Application) -> AsyncIterator[None]:
    """Enable long polling within the block, as a server does during its ASGI lifespan."""
    app.change_hub.open()
    try:
        yield
    finally:
        app.change_hub.close()
        await asyncio.sleep(0)


def run_with_long_polling(app: Application, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with long polling enabled, and assert that no listener is left."""

    async def run() -> None:
        async with enable_long_polling(app):
            await scenario()
            assert len(app.change_hub) == 0

    asyncio.run(run())
