"""Products: read, list, create, update, batch; and published images."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from app import database, sql
from app.auth import load_caller
from app.http import PUBLIC_URL, Problem, Reply, Request

MEDIA = Path(os.environ["MEDIA_DIR"])
JSON = (b"content-type", b"application/json")
WRITABLE = ("sku", "name", "description", "category", "gender", "materials", "color")


def file_url(media_id: str | None, extension: str) -> str | None:
    return f"{PUBLIC_URL}/api/v1/files/media/{media_id}/file.{extension}" if media_id else None


def to_image(row) -> dict[str, Any]:
    image = dict(row)
    del image["product_id"]
    image["url"] = file_url(image.pop("media_id"), image.pop("extension"))
    image["mask_url"] = file_url(image.pop("mask_media_id"), image.pop("mask_extension"))
    return image


def to_product(row, images: list[dict[str, Any]]) -> dict[str, Any]:
    product = dict(row)
    product["cover_image"] = file_url(product.pop("cover_media_id"), product.pop("cover_extension"))
    product["images"] = images
    return product


async def load_products(connection, rows) -> list[dict[str, Any]]:
    images = defaultdict(list)
    for image in await connection.fetch(sql.SELECT_IMAGES, [row["id"] for row in rows]):
        images[image["product_id"]].append(to_image(image))
    return [to_product(row, images[row["id"]]) for row in rows]


def etag_of(row) -> bytes:
    return f'"{row["id"]}-{row["updated_at"].timestamp():.6f}"'.encode()


def write_cursor(row) -> str:
    return base64.urlsafe_b64encode(f"{row['created_at'].isoformat()}|{row['id']}".encode()).decode()


def read_cursor(cursor: str) -> tuple[datetime, str]:
    created_at, _, row_id = base64.urlsafe_b64decode(cursor).decode().partition("|")
    return datetime.fromisoformat(created_at), row_id


async def load_row(connection, caller, statement: str, product_id: str, writing: bool = False):
    row = await connection.fetchrow(statement, product_id)
    if row is None:
        raise Problem(404, "Not found")
    caller.require(row["organization_id"], writing)
    return row


async def list_products(request: Request) -> Reply:
    caller = await load_caller(request)
    query = request.query
    organization_id = query["organization_id"]
    skip, limit = int(query.get("skip", 0)), int(query.get("limit", 100))
    caller.require(organization_id)
    async with database.pool.acquire() as connection:
        count = await connection.fetchval(sql.COUNT_PRODUCTS, organization_id)
        if "cursor" in query:
            position = read_cursor(query["cursor"])
            rows = await connection.fetch(sql.SELECT_PAGE_AFTER, organization_id, skip, limit + 1, *position)
        else:
            rows = await connection.fetch(sql.SELECT_PAGE, organization_id, skip, limit + 1)
        data = await load_products(connection, rows[:limit])
    next_cursor = write_cursor(rows[limit - 1]) if len(rows) > limit else None
    return 200, [JSON], {"data": data, "count": count, "count_exact": True, "next_cursor": next_cursor}


async def get_product(request: Request, product_id: str) -> Reply:
    caller = await load_caller(request)
    async with database.pool.acquire() as connection:
        row = await load_row(connection, caller, sql.SELECT_PRODUCT, product_id)
        etag = etag_of(row)
        if request.headers.get(b"if-none-match") == etag:
            return 304, [(b"etag", etag)], b""
        (product,) = await load_products(connection, [row])
    return 200, [JSON, (b"etag", etag)], product


async def create_product(request: Request) -> Reply:
    caller = await load_caller(request)
    organization_id = request.query["organization_id"]
    caller.require(organization_id, writing=True)
    key = request.headers.get(b"idempotency-key")
    values = [request.json().get(name) for name in WRITABLE]
    async with database.pool.acquire() as connection:
        if key is None:
            row = await connection.fetchrow(sql.INSERT_PRODUCT, caller.id, organization_id, *values)
            return created(to_product(row, []))
        fingerprint = hashlib.sha256(organization_id.encode() + request.body).digest()
        async with connection.transaction():
            stored = await connection.fetchrow(sql.SELECT_STORED, caller.id, key.decode())
            if stored is not None:
                if stored["fingerprint"] != fingerprint:
                    raise Problem(422, "The key belongs to another request")
                product = orjson.loads(stored["body"])
                product["updated_at"] = datetime.fromisoformat(product["updated_at"])
                return created(product)
            row = await connection.fetchrow(sql.INSERT_PRODUCT, caller.id, organization_id, *values)
            product = to_product(row, [])
            body = orjson.dumps(product, option=orjson.OPT_UTC_Z)
            await connection.execute(sql.INSERT_STORED, caller.id, key.decode(), fingerprint, body)
    return created(product)


def created(product: dict[str, Any]) -> Reply:
    location = f"/api/v1/products/{product['id']}".encode()
    return 201, [JSON, (b"etag", etag_of(product)), (b"location", location)], product


async def create_products(request: Request) -> Reply:
    """Create the products of a batch with one statement. It knows no other action, and no item fails."""
    caller = await load_caller(request)
    organization_id = request.query["organization_id"]
    caller.require(organization_id, writing=True)
    bodies = [item["body"] for item in request.json()["items"]]
    columns = [[body.get(name) for body in bodies] for name in WRITABLE]
    rows = await database.pool.fetch(sql.INSERT_PRODUCTS, caller.id, organization_id, *columns)
    results = [
        {"index": index, "id": row["id"], "external_id": None, "status": 201, "body": to_product(row, []),
         "problem": None}
        for index, row in enumerate(rows)
    ]  # fmt: skip
    return 200, [JSON], {"accepted_count": len(rows), "refused_count": 0, "results": results}


async def update_product(request: Request, product_id: str) -> Reply:
    caller = await load_caller(request)
    changes = request.json()
    columns = "".join(f", {name} = ${number}" for number, name in enumerate(changes, 2))
    async with database.pool.acquire() as connection, connection.transaction():
        row = await load_row(connection, caller, sql.SELECT_PRODUCT_TO_UPDATE, product_id, writing=True)
        if request.headers.get(b"if-match", b"*") not in (b"*", etag_of(row)):
            raise Problem(412, "The product has changed")
        statement = sql.UPDATE_PRODUCT.format(columns=columns)
        row = await connection.fetchrow(statement, row["id"], *changes.values())
        (product,) = await load_products(connection, [row])
    return 200, [JSON, (b"etag", etag_of(row))], product


async def get_published_image(_request: Request, token: str, file_name: str) -> Reply:
    content_hash = file_name.partition(".")[0]
    token_hash = hashlib.sha256(token.encode()).hexdigest()
    row = await database.pool.fetchrow(sql.SELECT_PUBLISHED, token_hash, content_hash)
    if row is None:
        raise Problem(404, "Not found")
    body = (MEDIA / "media" / row["id"] / f"file.{row['extension']}").read_bytes()
    headers = [(b"content-type", row["content_type"].encode()), (b"etag", f'"{content_hash}"'.encode())]
    return 200, headers, body
