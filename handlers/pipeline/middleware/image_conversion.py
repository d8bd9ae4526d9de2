"""Decode or store the files of a request, or make the variant that it lacks; then call the endpoint again.

The first call has authorized the request and ended its transaction. The request waits for a slot on the event
loop, without a request thread and without a database connection.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.common.prechecks import DecodingNeeded, StoringNeeded
from handlers.contract.errors import ServiceUnavailable
from handlers.contract.request_bodies import ClientDisconnected
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.disconnects import run_until_disconnected
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.fair_slots import FairSlots, current_subject
from studio.media.data_files import MAX_STORED_FILES, STORE_SLOTS
from studio.media.memory_gate import LOAD_SLOTS, MAX_LOADED_IMAGES, MAX_WAIT_SECONDS
from studio.media.storage import Storage
from studio.media.variants import VariantMissing, make_variant


class ImageConversion:
    """Serve requests; `storage` holds the images."""

    def __init__(self, app: ASGIApp, *, storage: Storage) -> None:
        self.app = app
        self.storage = storage
        # As many threads as slots, so that work with a slot never waits for a thread.
        self._converting = _Work(
            Limit.DECODE_SLOTS,
            LOAD_SLOTS,
            ThreadPoolExecutor(MAX_LOADED_IMAGES, thread_name_prefix="conversion"),
        )
        self._storing = _Work(
            Limit.STORE_SLOTS,
            STORE_SLOTS,
            ThreadPoolExecutor(MAX_STORED_FILES, thread_name_prefix="data-files"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. It has no response if the client closes the connection during the wait.

        Raises:
            ServiceUnavailable: no slot was free in time, or the variant disappeared at once.
            NotFound: the file of the original does not exist.
            NotAnImage, TooLarge, UnreadableImage: the file of the request cannot be decoded.
            ImageNotUsable: an image in the body of the request cannot be decoded.
        """
        needed = await self._serve(scope, receive, send)
        if needed is None:
            return
        context: RequestContext = scope[REQUEST_CONTEXT]
        with suppress(ClientDisconnected):
            try:
                if isinstance(needed, VariantMissing):
                    make = partial(make_variant, self.storage, needed.variant)
                    await self._converting.run(receive, make)
                elif isinstance(needed, StoringNeeded):
                    stored = await self._storing.run(receive, needed.store)
                    context.prepared_arguments = needed.finish(stored)
                else:
                    # One after the other, each with a slot of its own: others have turns in between.
                    images = [await self._converting.run(receive, decode) for decode in needed.decodings]
                    context.prepared_arguments = needed.finish(images)
            except Exception as error:
                if context.idempotent_request is None:
                    raise
                # The endpoint releases the lock of the key and raises the error.
                context.failure = error
            if await self._serve(scope, receive, send) is not None:
                raise ServiceUnavailable(Limit.VARIANT_LOST)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send
    ) -> VariantMissing | DecodingNeeded | StoringNeeded | None:
        """Call the endpoint; return what it needs first, if there is anything."""
        try:
            await self.app(scope, receive, send)
        except (VariantMissing, DecodingNeeded, StoringNeeded) as needed:
            # Its traceback refers to the frames of the request, which the second call does not need.
            return needed.with_traceback(None)
        return None


@dataclass(frozen=True)
class _Work:
    """A kind of slow work: its slots, with their name for the log, and its threads."""

    limit: Limit
    slots: FairSlots
    pool: ThreadPoolExecutor

    async def run(self, receive: Receive, function: Callable[[], Any]) -> Any:
        """Return the result of a function that needs a slot."""
        future = await run_until_disconnected(receive, self._start(function))
        return await asyncio.wrap_future(future)

    async def _start(self, function: Callable[[], Any]) -> Future[Any]:
        """Call a function in a thread as soon as the subject of the request has a slot."""
        subject, slots = current_subject(), self.slots
        if not slots.try_take(subject) and not await slots.take(subject, MAX_WAIT_SECONDS):
            raise ServiceUnavailable(self.limit)
        try:
            future = self.pool.submit(contextvars.copy_context().run, function)
        except BaseException:
            slots.release(subject)
            raise
        # Not when the request ends: work that was started cannot be stopped.
        future.add_done_callback(lambda _: slots.release(subject))
        return future
