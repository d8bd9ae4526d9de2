"""Stop waiting for something when the client closes its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from handlers.contract.request_bodies import ClientDisconnected

Value = TypeVar("Value")


async def run_until_disconnected(receive: Receive, work: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine and return its result. The body of the request has been read.

    Raises:
        ClientDisconnected: the client closed the connection, and the coroutine was canceled.
    """
    work_task = asyncio.ensure_future(work)
    disconnect_task = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((work_task, disconnect_task), return_when=asyncio.FIRST_COMPLETED)
        if not work_task.done():
            raise ClientDisconnected
        return await work_task
    finally:
        work_task.cancel()
        disconnect_task.cancel()
        await asyncio.gather(work_task, disconnect_task, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
