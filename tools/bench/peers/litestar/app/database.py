"""The connection pool, and a connection for each request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
import msgspec
from litestar import Litestar
from litestar.datastructures import State

from app.settings import DATABASE_URL


async def set_up_connection(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "json",
        encoder=lambda value: msgspec.json.encode(value).decode(),
        decoder=msgspec.json.decode,
        schema="pg_catalog",
    )


async def keep_connection(_connection: asyncpg.Connection) -> None:
    """Leave a returned connection as it is: no handler changes its session, so a reset only costs a trip."""


@asynccontextmanager
async def open_pool(app: Litestar) -> AsyncGenerator[None]:
    async with asyncpg.create_pool(
        DATABASE_URL, min_size=20, max_size=20, init=set_up_connection, reset=keep_connection
    ) as pool:
        app.state.pool = pool
        yield


async def provide_connection(state: State) -> AsyncGenerator[asyncpg.Connection]:
    async with state.pool.acquire() as connection:
        yield connection
