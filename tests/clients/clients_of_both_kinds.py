"""Run the same steps with the client for threads and with the one for asyncio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import anyio

from sartiq import AsyncSartiq, Sartiq

Kind = Literal["sync", "async"]
KINDS: tuple[Kind, ...] = ("sync", "async")


def run_step(kind: Kind, step: Callable[[Any], Any], **options: Any) -> Any:
    """Return the result of `step(client)`, which is a coroutine with the client for asyncio."""
    if kind == "sync":
        with Sartiq(**options) as client:
            return step(client)

    async def main() -> Any:
        async with AsyncSartiq(**options) as client:
            return await step(client)

    return anyio.run(main)
