"""Base classes of the generated groups of operations: they send a call and read its response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Self, TypeVar

import anyio
import httpx2
from pydantic import ValidationError

from sartiq._call import Call
from sartiq._downloads import AsyncDownload, Download
from sartiq._model import OMIT, Model, ResponseInfo
from sartiq._pages import AsyncPage, Page
from sartiq._retries import backoff
from sartiq._transport import AsyncTransport, Transport, wrap_error
from sartiq.errors import InvalidResponseError

M = TypeVar("M", bound=Model)
NO_CONTENT = 204


def read_model(model: type[M], response: httpx2.Response) -> M:
    """Return the model of a response.

    Raises:
        InvalidResponseError: The response is another one.
    """
    try:
        result = model.model_validate_json(response.content)
    except ValidationError as error:
        raise InvalidResponseError(
            f"The response of {response.request.url} does not match {model.__name__}."
        ) from error
    result._http = ResponseInfo(response.status_code, response.headers)
    return result


def read_json(response: httpx2.Response) -> dict[str, Any]:
    """Return the JSON object of a response.

    Raises:
        InvalidResponseError: The response is another one.
    """
    try:
        return dict(response.json())
    except (TypeError, ValueError) as error:
        raise InvalidResponseError(f"The response of {response.request.url} is not a JSON object.") from error


class Resource:
    """A group of operations."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @classmethod
    def of(cls, other: Resource) -> Self:
        """Return the group with the transport of another one."""
        return cls(other._transport)

    def _send(self, call: Call) -> None:
        self._transport.send(call)

    def _get_json(self, call: Call) -> dict[str, Any]:
        return read_json(self._transport.send(call))

    def _get_model(self, call: Call, model: type[M]) -> M:
        return read_model(model, self._transport.send(call))

    def _get_page(self, call: Call, model: type[Model]) -> Page[Any]:
        def load(cursor: str | None) -> Page[Any]:
            following = call if cursor is None else call.with_query(cursor=cursor, skip=OMIT)
            return Page(read_model(model, self._transport.send(following)), load)

        return load(None)

    def _download(self, call: Call) -> Download:
        return Download(self._transport, call, self._transport.send(call, stream=True))

    def _stream_events(self, call: Call, model: type[M], last_event_id: str | None) -> Iterator[M]:
        failures = 0
        while True:
            following = call.with_header("Last-Event-ID", OMIT if last_event_id is None else last_event_id)
            try:
                response = self._transport.send(following, stream=True)
                if response.status_code == NO_CONTENT:
                    response.close()
                    return
                try:
                    for event in httpx2.EventSource(response):
                        failures, last_event_id = 0, event.id
                        yield model.model_validate_json(event.data)
                finally:
                    response.close()
            except httpx2.TransportError as error:
                if failures >= self._transport.options.retries.max_retries:
                    raise wrap_error(error) from error
                self._transport.sleep(backoff(failures))
                failures += 1


class AsyncResource:
    """A group of operations, for asyncio."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    @classmethod
    def of(cls, other: AsyncResource) -> Self:
        """Return the group with the transport of another one."""
        return cls(other._transport)

    async def _send(self, call: Call) -> None:
        await self._transport.send(call)

    async def _get_json(self, call: Call) -> dict[str, Any]:
        return read_json(await self._transport.send(call))

    async def _get_model(self, call: Call, model: type[M]) -> M:
        return read_model(model, await self._transport.send(call))

    async def _get_page(self, call: Call, model: type[Model]) -> AsyncPage[Any]:
        async def load(cursor: str | None) -> AsyncPage[Any]:
            following = call if cursor is None else call.with_query(cursor=cursor, skip=OMIT)
            return AsyncPage(read_model(model, await self._transport.send(following)), load)

        return await load(None)

    async def _download(self, call: Call) -> AsyncDownload:
        return AsyncDownload(self._transport, call, await self._transport.send(call, stream=True))

    async def _stream_events(self, call: Call, model: type[M], last_event_id: str | None) -> AsyncIterator[M]:
        failures = 0
        while True:
            following = call.with_header("Last-Event-ID", OMIT if last_event_id is None else last_event_id)
            try:
                response = await self._transport.send(following, stream=True)
                if response.status_code == NO_CONTENT:
                    await response.aclose()
                    return
                try:
                    async for event in httpx2.EventSource(response):
                        failures, last_event_id = 0, event.id
                        yield model.model_validate_json(event.data)
                finally:
                    await response.aclose()
            except httpx2.TransportError as error:
                if failures >= self._transport.options.retries.max_retries:
                    raise wrap_error(error) from error
                await anyio.sleep(backoff(failures))
                failures += 1
