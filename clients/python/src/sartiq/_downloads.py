"""Files that the server sends: read at once, saved to disk, or read in parts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import httpx2

from sartiq._call import CHUNK, Call
from sartiq._transport import AsyncTransport, Transport, wrap_error


class DownloadInfo:
    """The headers of a file."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    @property
    def headers(self) -> httpx2.Headers:
        """Return the headers of the response."""
        return self._response.headers

    @property
    def content_type(self) -> str:
        """Return the media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def file_name(self) -> str | None:
        """Return the name that the server suggests, without folders."""
        message = Message()
        message["Content-Disposition"] = self.headers.get("content-disposition", "")
        name = message.get_filename()
        return Path(name.replace("\\", "/")).name or None if name else None

    @property
    def size(self) -> int | None:
        """Return the number of bytes that the server announces."""
        length = self.headers.get("content-length")
        return int(length) if length and "content-encoding" not in self.headers else None


class Download(DownloadInfo):
    """A file. `read` and `save` close it; use `with` when you read it in parts."""

    def __init__(self, transport: Transport, call: Call, response: httpx2.Response) -> None:
        super().__init__(response)
        self._transport, self._call = transport, call

    def read(self) -> bytes:
        """Return the whole file."""
        parts: list[bytes] = []
        self._receive(parts.append, parts.clear)
        return b"".join(parts)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the file under a path and return it. A failed download leaves no file."""
        path = Path(path)
        partial = path.with_name(path.name + ".part")
        try:
            with partial.open("wb") as file:
                self._receive(file.write, lambda: rewind(file))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def _receive(self, write: Any, restart: Any) -> None:
        """Read the body, from the start again if the connection ends early."""
        attempt = 0
        while True:
            try:
                with self:
                    for chunk in self._response.iter_bytes(CHUNK):
                        write(chunk)
                return
            except httpx2.TransportError as error:
                delay = self._transport.options.retries.after_error(self._call, attempt, error)
                if delay is None:
                    raise wrap_error(error) from error
                self._transport.sleep(delay)
                attempt += 1
                restart()
                self._response = self._transport.send(self._call, stream=True)

    def iter_bytes(self, chunk_size: int = CHUNK) -> Iterator[bytes]:
        """Read the file in parts, once."""
        try:
            yield from self._response.iter_bytes(chunk_size)
        except httpx2.TransportError as error:
            raise wrap_error(error) from error

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncDownload(DownloadInfo):
    """A file. `read` and `save` close it; use `async with` when you read it in parts."""

    def __init__(self, transport: AsyncTransport, call: Call, response: httpx2.Response) -> None:
        super().__init__(response)
        self._transport, self._call = transport, call

    async def read(self) -> bytes:
        """Return the whole file."""
        parts: list[bytes] = []

        async def write(chunk: bytes) -> None:
            parts.append(chunk)

        async def restart() -> None:
            parts.clear()

        await self._receive(write, restart)
        return b"".join(parts)

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the file under a path and return it. A failed download leaves no file."""
        path = Path(path)
        partial = path.with_name(path.name + ".part")
        try:
            async with await anyio.open_file(partial, "wb") as file:

                async def restart() -> None:
                    await file.seek(0)
                    await file.truncate()

                await self._receive(file.write, restart)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    async def _receive(self, write: Any, restart: Any) -> None:
        """Read the body, from the start again if the connection ends early."""
        attempt = 0
        while True:
            try:
                async with self:
                    async for chunk in self._response.aiter_bytes(CHUNK):
                        await write(chunk)
                return
            except httpx2.TransportError as error:
                delay = self._transport.options.retries.after_error(self._call, attempt, error)
                if delay is None:
                    raise wrap_error(error) from error
                await anyio.sleep(delay)
                attempt += 1
                await restart()
                self._response = await self._transport.send(self._call, stream=True)

    async def iter_bytes(self, chunk_size: int = CHUNK) -> AsyncIterator[bytes]:
        """Read the file in parts, once."""
        try:
            async for chunk in self._response.aiter_bytes(chunk_size):
                yield chunk
        except httpx2.TransportError as error:
            raise wrap_error(error) from error

    async def close(self) -> None:
        """Give the connection back."""
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def rewind(file: Any) -> None:
    """Empty a file that is being written."""
    file.seek(0)
    file.truncate()
