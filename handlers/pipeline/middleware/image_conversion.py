"""Decode or store the files of a request, or make the variant that it lacks; then call the endpoint again.

The first call has authorized the request and ended its transaction. The request waits for a slot on the event
loop, without a request thread and without a database connection.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract.errors import ServiceUnavailable
from handlers.contract.request_bodies import ClientDisconnected
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.admission.slots import SlottedWork
from handlers.pipeline.prechecks import DecodingNeeded, StoringNeeded
from handlers.pipeline.request_context import REQUEST_CONTEXT, RequestContext
from studio.infrastructure.storage import Storage
from studio.media.data_files import MAX_STORED_FILES, STORE_SLOTS
from studio.media.memory_gate import LOAD_SLOTS, MAX_LOADED_IMAGES
from studio.media.variants import VariantMissing, make_variant


class ImageConversion:
    """Serve requests; `storage` holds the images."""

    def __init__(self, app: ASGIApp, *, storage: Storage) -> None:
        self.app = app
        self.storage = storage
        self._converting = SlottedWork(
            Limit.DECODE_SLOTS,
            LOAD_SLOTS,
            ThreadPoolExecutor(MAX_LOADED_IMAGES, thread_name_prefix="conversion"),
        )
        self._storing = SlottedWork(
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
