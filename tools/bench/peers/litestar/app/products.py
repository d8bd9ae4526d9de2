"""Products: read, list, create, update."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import msgspec
from litestar import Controller, Request, Response, get, patch, post
from litestar.exceptions import HTTPException, NotFoundException
from litestar.params import Parameter

from app.auth import Caller
from app.problems import ProductRequest
from app.rows import (
    COUNT_PRODUCTS,
    INSERT_PRODUCT,
    SELECT_PAGE,
    SELECT_PAGE_AFTER,
    SELECT_PRODUCT,
    SELECT_PRODUCT_TO_UPDATE,
    UPDATE_PRODUCT,
    build_product,
    load_products,
)
from app.schemas import Product, ProductCreate, ProductPage, ProductUpdate

IfMatch = Annotated[str | None, Parameter(header="If-Match", required=False)]
IfNoneMatch = Annotated[str | None, Parameter(header="If-None-Match", required=False)]
Key = Annotated[str | None, Parameter(header="Idempotency-Key", required=False)]
ProductsRequest = Request[Caller, Any, Any]

SELECT_STORED = "SELECT fingerprint, body FROM stored_responses WHERE user_id = $1 AND key = $2"
INSERT_STORED = "INSERT INTO stored_responses (user_id, key, fingerprint, body) VALUES ($1, $2, $3, $4)"


def etag_of(row: asyncpg.Record | Product) -> str:
    row_id, updated_at = (
        (row.id, row.updated_at) if isinstance(row, Product) else (row["id"], row["updated_at"])
    )
    return f'"{row_id.hex}-{updated_at.timestamp():.6f}"'


def write_cursor(product: Product) -> str:
    return base64.urlsafe_b64encode(f"{product.created_at.isoformat()}|{product.id}".encode()).decode()


def read_cursor(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, _, row_id = base64.urlsafe_b64decode(cursor).decode().partition("|")
        return datetime.fromisoformat(created_at), UUID(row_id)
    except ValueError:
        raise NotFoundException("Not found") from None


def created(product: Product) -> Response[Product]:
    headers = {"ETag": etag_of(product), "Location": f"/api/v1/products/{product.id}"}
    return Response(product, status_code=201, headers=headers)


async def load_row(
    connection: asyncpg.Connection, caller: Caller, product_id: UUID, *, writing: bool = False
) -> asyncpg.Record:
    row = await connection.fetchrow(SELECT_PRODUCT_TO_UPDATE if writing else SELECT_PRODUCT, product_id)
    if row is None:
        raise NotFoundException("Not found")
    caller.require(row["organization_id"], writing=writing)
    return row


async def insert_product(
    connection: asyncpg.Connection, caller: Caller, organization_id: UUID, data: ProductCreate
) -> Product:
    row = await connection.fetchrow(
        INSERT_PRODUCT,
        caller.id,
        organization_id,
        data.sku,
        data.name,
        data.description,
        data.category,
        data.gender,
        data.materials,
        data.color,
    )
    return build_product(row, [])


async def insert_once(
    connection: asyncpg.Connection, caller: Caller, organization_id: UUID, data: ProductCreate, key: str
) -> Product:
    """Create a product once per key. A repeated request gets the stored product."""
    fingerprint = hashlib.sha256(organization_id.bytes + msgspec.json.encode(data)).digest()
    stored = await connection.fetchrow(SELECT_STORED, caller.id, key)
    if stored is not None:
        if stored["fingerprint"] != fingerprint:
            raise HTTPException("The key belongs to another request", status_code=422)
        return msgspec.json.decode(stored["body"], type=Product)
    product = await insert_product(connection, caller, organization_id, data)
    await connection.execute(INSERT_STORED, caller.id, key, fingerprint, msgspec.json.encode(product))
    return product


class ProductController(Controller):
    path = "/api/v1/products"
    request_class = ProductRequest

    @get("/")
    async def list_products(
        self,
        request: ProductsRequest,
        connection: asyncpg.Connection,
        organization_id: UUID,
        skip: Annotated[int, Parameter(ge=0, le=1_000_000)] = 0,
        limit: Annotated[int, Parameter(ge=1, le=100)] = 100,
        cursor: str | None = None,
    ) -> ProductPage:
        request.user.require(organization_id)
        count = await connection.fetchval(COUNT_PRODUCTS, organization_id)
        if cursor is None:
            rows = await connection.fetch(SELECT_PAGE, organization_id, skip, limit + 1)
        else:
            position = read_cursor(cursor)
            rows = await connection.fetch(SELECT_PAGE_AFTER, organization_id, skip, limit + 1, *position)
        products = await load_products(connection, rows[:limit])
        next_cursor = write_cursor(products[-1]) if len(rows) > limit else None
        return ProductPage(products, count, next_cursor)

    @get("/{product_id:str}")
    async def get_product(
        self,
        request: ProductsRequest,
        connection: asyncpg.Connection,
        product_id: UUID,
        if_none_match: IfNoneMatch = None,
    ) -> Response[Product | None]:
        row = await load_row(connection, request.user, product_id)
        headers = {"ETag": etag_of(row)}
        if if_none_match == headers["ETag"]:
            return Response(None, status_code=304, headers=headers)
        (product,) = await load_products(connection, [row])
        return Response(product, headers=headers)

    @post("/")
    async def create_product(
        self,
        request: ProductsRequest,
        connection: asyncpg.Connection,
        organization_id: UUID,
        data: ProductCreate,
        key: Key = None,
    ) -> Response[Product]:
        request.user.require(organization_id, writing=True)
        if key is None:
            # One statement is a transaction of its own.
            return created(await insert_product(connection, request.user, organization_id, data))
        async with connection.transaction():
            return created(await insert_once(connection, request.user, organization_id, data, key))

    @patch("/{product_id:str}")
    async def update_product(
        self,
        request: ProductsRequest,
        connection: asyncpg.Connection,
        product_id: UUID,
        data: ProductUpdate,
        if_match: IfMatch = None,
    ) -> Response[Product]:
        changes = msgspec.to_builtins(data)
        async with connection.transaction():
            row = await load_row(connection, request.user, product_id, writing=True)
            if if_match not in (None, "*", etag_of(row)):
                raise HTTPException("The product has changed", status_code=412)
            columns = "".join(f", {name} = ${number}" for number, name in enumerate(changes, 2))
            statement = UPDATE_PRODUCT.format(columns=columns)
            row = await connection.fetchrow(statement, product_id, *changes.values())
            (product,) = await load_products(connection, [row])
        return Response(product, headers={"ETag": etag_of(product)})
