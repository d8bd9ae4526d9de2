"""The product operations as one ASGI application on asyncpg, without a framework and without validation.

It is a lower bound for the work of a request: routing, the caller, statements and JSON. It trusts that a
request is valid.
"""

from __future__ import annotations

import asyncpg
import orjson

from app import products
from app.database import open_pool
from app.http import Problem, Reply, Request, read_body

PRODUCTS = "/api/v1/products/"
PUBLISHED = "/api/v1/published/"


async def route(request: Request) -> Reply:
    path, method = request.path, request.method
    if path.startswith(PUBLISHED):
        return await products.get_published_image(request, *path[len(PUBLISHED) :].split("/"))
    if path == PRODUCTS:
        return await (
            products.create_product(request) if method == "POST" else products.list_products(request)
        )
    if path == f"{PRODUCTS}batch":
        return await products.create_products(request)
    product_id = path[len(PRODUCTS) :]
    if method == "PATCH":
        return await products.update_product(request, product_id)
    return await products.get_product(request, product_id)


async def respond(request: Request) -> Reply:
    try:
        return await route(request)
    except Problem as problem:
        return problem.reply
    except asyncpg.UniqueViolationError:
        return Problem(409, "A product with this SKU exists already").reply


async def app(scope, receive, send) -> None:
    if scope["type"] == "lifespan":
        return await run_lifespan(receive, send)
    request = Request(scope, await read_body(receive))
    status, headers, body = await respond(request)
    if not isinstance(body, bytes):
        body = orjson.dumps(body, option=orjson.OPT_UTC_Z)
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def run_lifespan(receive, send) -> None:
    await receive()
    pool = await open_pool()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await pool.close()
    await send({"type": "lifespan.shutdown.complete"})
