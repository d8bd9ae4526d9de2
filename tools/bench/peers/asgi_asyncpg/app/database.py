"""The connection pool."""

from __future__ import annotations

import os

import asyncpg
import orjson

pool: asyncpg.Pool
# asyncpg takes the URL of libpq, without the name of a driver.
URL = os.environ["DATABASE_URL"].replace("postgresql+psycopg", "postgresql")


async def set_up_connection(connection: asyncpg.Connection) -> None:
    # Ids pass through as text: they are only compared and sent.
    await connection.set_type_codec("uuid", encoder=str, decoder=str, schema="pg_catalog")
    encode = orjson.dumps
    await connection.set_type_codec(
        "json", encoder=lambda value: encode(value).decode(), decoder=orjson.loads, schema="pg_catalog"
    )


async def keep_connection(_connection: asyncpg.Connection) -> None:
    """Leave a returned connection as it is: nothing changes its session, so a reset only costs a trip."""


async def open_pool() -> asyncpg.Pool:
    global pool
    pool = await asyncpg.create_pool(
        URL, min_size=20, max_size=20, init=set_up_connection, reset=keep_connection
    )
    return pool
