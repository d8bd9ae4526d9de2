"""Somebody who asks in process and stays: the answer is read as it comes, and the connection can be left."""

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
    """One request that runs."""

    def __init__(self, client: Client, method: str, path: str, as_json: Any, headers: dict[str, str]) -> None:
        self._got: list[dict[str, Any]] = []
        self._came, self._left = asyncio.Event(), asyncio.Event()
        self._body: bytes | None = None if as_json is None else json.dumps(as_json).encode()
        sent = client.headers | headers
        if self._body is not None:
            sent |= {"content-type": "application/json", "content-length": str(len(self._body))}
        scope = build_scope(method, f"/api/v1{path}", sent)
        self.task = asyncio.create_task(client.app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self._got.append(message)
        self._came.set()

    def disconnect(self) -> None:
        """Close the connection."""
        self._left.set()

    @property
    def body(self) -> bytes:
        """What has come of the body."""
        return b"".join(message.get("body", b"") for message in self._got[1:])

    @property
    def events(self) -> list[dict[str, Any]]:
        """What has come of a stream: the data of each event, with its name."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "data" in lines:
                data = json.loads(lines["data"])
                assert int(lines["id"]) == data["revision"]
                found.append({"event": lines["event"], **data})
        return found

    async def wait_until(self, condition: Callable[[], Any]) -> None:
        """Return when what has come fulfils a condition."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not condition():
                self._came.clear()
                await self._came.wait()

    async def read_response(self) -> ClientResponse:
        """Return the whole answer."""
        await asyncio.wait_for(self.task, TIMEOUT_SECONDS)
        headers = {name.decode(): value.decode("latin-1") for name, value in self._got[0]["headers"]}
        return ClientResponse(self._got[0]["status"], headers, self.body)


@asynccontextmanager
async def enable_long_polling(app: Application) -> AsyncIterator[None]:
    """Let callers wait, as a server does that has a lifespan."""
    app.change_hub.open()
    try:
        yield
    finally:
        app.change_hub.close()
        await asyncio.sleep(0)


def run_with_long_polling(app: Application, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Let a story happen while callers may wait; afterwards nobody may be left."""

    async def tell() -> None:
        async with enable_long_polling(app):
            await scenario()
            assert len(app.change_hub) == 0

    asyncio.run(tell())
