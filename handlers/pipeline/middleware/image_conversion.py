"""Make an image variant that an endpoint lacks, then call the endpoint again.

The first call has authorized the request and ended its transaction. The request waits for a slot on the event
loop, without a request thread and without a database connection.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract.errors import ServiceUnavailable
from studio.fair_slots import current_subject
from studio.media.memory_gate import LOAD_SLOTS, MAX_LOADED_IMAGES
from studio.media.storage import Storage
from studio.media.variants import Variant, VariantMissing, make_variant

MAX_WAIT_SECONDS = 10.0
"""How long a conversion waits for a slot."""


class ImageConversion:
    """Serve requests; `storage` holds the images."""

    def __init__(self, app: ASGIApp, *, storage: Storage) -> None:
        self.app = app
        self.storage = storage
        # As many threads as slots, so that a conversion with a slot never waits for a thread.
        self._pool = ThreadPoolExecutor(MAX_LOADED_IMAGES, thread_name_prefix="conversion")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            ServiceUnavailable: no slot was free in time, or the variant disappeared at once.
            NotFound: the file of the original does not exist.
        """
        missing = await self._serve(scope, receive, send)
        if missing is None:
            return
        await self._convert(missing)
        if await self._serve(scope, receive, send) is not None:
            raise ServiceUnavailable()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> Variant | None:
        """Call the endpoint; return the variant that must be made first, if there is one."""
        try:
            await self.app(scope, receive, send)
        except VariantMissing as error:
            return error.variant
        return None

    async def _convert(self, variant: Variant) -> None:
        subject = current_subject()
        if not LOAD_SLOTS.try_take(subject) and not await LOAD_SLOTS.take(subject, MAX_WAIT_SECONDS):
            raise ServiceUnavailable()
        try:
            future = self._pool.submit(make_variant, self.storage, variant)
        except BaseException:
            LOAD_SLOTS.release(subject)
            raise
        # Not when the request ends: a conversion that was started cannot be stopped.
        future.add_done_callback(lambda _: LOAD_SLOTS.release(subject))
        await asyncio.wrap_future(future)
