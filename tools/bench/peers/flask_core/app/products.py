"""Products: read, list, create, update."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
from flask import Blueprint, Response, abort, current_app, jsonify, make_response, request
from sqlalchemy import Connection, Row, Select, func, insert, select, tuple_, update

from app.auth import Caller, load_caller
from app.checks import CREATE_CHECKS, UPDATE_CHECKS, checked_body, checked_id, checked_number
from app.database import engine, media_resources, product_images, products, stored_responses

blueprint = Blueprint("products", __name__, url_prefix="/api/v1/products")

PRODUCTS = select(products, media_resources.c.extension).outerjoin(
    media_resources, media_resources.c.id == products.c.cover_media_id
)
masks = media_resources.alias()
IMAGES = (
    select(
        product_images,
        media_resources.c.extension,
        media_resources.c.width,
        media_resources.c.height,
        masks.c.extension.label("mask_extension"),
    )
    .join(media_resources, media_resources.c.id == product_images.c.media_id)
    .outerjoin(masks, masks.c.id == product_images.c.mask_media_id)
    .order_by(product_images.c.position)
)
PUBLIC = (
    "id", "created_at", "updated_at", "owner_id", "organization_id", "sku", "name", "description", "category",
    "gender", "materials", "color", "brand_id", "state", "public",
    "external_id", "metadata",
)  # fmt: skip
NEW = dict.fromkeys(CREATE_CHECKS) | {"state": "READY", "public": False, "metadata": {}}


def file_url(media_id: UUID, extension: str) -> str:
    return f"{current_app.config['PUBLIC_URL']}/api/v1/files/media/{media_id}/file.{extension}"


def present(connection: Connection, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    images: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for image in connection.execute(IMAGES.where(product_images.c.product_id.in_([row.id for row in rows]))):
        images[image.product_id].append(
            {
                "id": image.id,
                "created_at": image.created_at,
                "updated_at": image.updated_at,
                "url": file_url(image.media_id, image.extension),
                "type": image.type,
                "width": image.width,
                "height": image.height,
                "position": image.position,
                "alt_text": image.alt_text,
                "region": image.region,
                "mask_url": file_url(image.mask_media_id, image.mask_extension)
                if image.mask_media_id
                else None,
            }
        )
    return [
        {
            **{name: getattr(row, name) for name in PUBLIC},
            "cover_image": file_url(row.cover_media_id, row.extension) if row.cover_media_id else None,
            "images": images[row.id],
        }
        for row in rows
    ]


def etag_of(product: Row[Any]) -> str:
    return f"{product.id.hex}-{product.updated_at.timestamp():.6f}"


def build_response(connection: Connection, product: Row[Any], status: int = 200) -> Response:
    response = make_response(present(connection, [product])[0], status)
    response.set_etag(etag_of(product))
    return response


def load_product(
    connection: Connection, caller: Caller, product_id: str, *, writing: bool = False
) -> Row[Any]:
    statement: Select[Any] = PRODUCTS.where(products.c.id == checked_id(product_id, "path", "product_id"))
    if writing:
        statement = statement.with_for_update(of=products)
    product = connection.execute(statement).one_or_none()
    if product is None:
        abort(404, "Not found")
    caller.require(product.organization_id, writing=writing)
    return product


def write_cursor(product: Row[Any]) -> str:
    return base64.urlsafe_b64encode(f"{product.created_at.isoformat()}|{product.id}".encode()).decode()


def read_cursor(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, _, row_id = base64.urlsafe_b64decode(cursor).decode().partition("|")
        return datetime.fromisoformat(created_at), UUID(row_id)
    except ValueError:
        abort(404, "Not found")


@blueprint.get("/")
def list_products() -> Response:
    organization_id = checked_id(request.args.get("organization_id"), "query", "organization_id")
    skip = checked_number(request.args, "skip", 0, 0, 1_000_000)
    limit = checked_number(request.args, "limit", 100, 1, 100)
    of_organization = products.c.organization_id == organization_id
    with engine.connect() as connection:
        load_caller(connection).require(organization_id)
        count = connection.scalar(select(func.count()).select_from(products).where(of_organization))
        statement = PRODUCTS.where(of_organization).order_by(
            products.c.created_at.desc(), products.c.id.desc()
        )
        if "cursor" in request.args:
            position = read_cursor(request.args["cursor"])
            statement = statement.where(tuple_(products.c.created_at, products.c.id) < position)
        rows = connection.execute(statement.offset(skip).limit(limit + 1)).all()
        data = present(connection, rows[:limit])
    next_cursor = write_cursor(rows[limit - 1]) if len(rows) > limit else None
    return jsonify(data=data, count=count, count_exact=True, next_cursor=next_cursor)


@blueprint.get("/<product_id>")
def get_product(product_id: str) -> Response:
    with engine.connect() as connection:
        product = load_product(connection, load_caller(connection), product_id)
        if request.if_none_match.contains(etag_of(product)):
            response = Response(status=304)
            response.set_etag(etag_of(product))
            return response
        return build_response(connection, product)


@blueprint.post("/")
def create_product() -> Response:
    organization_id = checked_id(request.args.get("organization_id"), "query", "organization_id")
    body = checked_body(request.get_json(), CREATE_CHECKS, ("name",))
    with engine.begin() as connection:
        caller = load_caller(connection)
        caller.require(organization_id, writing=True)
        key = request.headers.get("Idempotency-Key")
        if key is not None:
            fingerprint = hashlib.sha256(organization_id.bytes + request.get_data()).digest()
            stored = find_stored(connection, caller, key, fingerprint)
            if stored is not None:
                return stored
        now = datetime.now(UTC)
        own = {
            "id": uuid4(),
            "owner_id": caller.id,
            "organization_id": organization_id,
            "created_at": now,
            "updated_at": now,
        }
        connection.execute(insert(products), NEW | body | own)
        product = connection.execute(PRODUCTS.where(products.c.id == own["id"])).one()
        response = build_response(connection, product, 201)
        if key is not None:
            response_row = {"fingerprint": fingerprint, "body": response.get_data()}
            connection.execute(insert(stored_responses), {"user_id": caller.id, "key": key, **response_row})
    response.headers["Location"] = f"/api/v1/products/{product.id}"
    return response


def find_stored(connection: Connection, caller: Caller, key: str, fingerprint: bytes) -> Response | None:
    """Return the response that is stored for an Idempotency-Key."""
    of_key = (stored_responses.c.user_id == caller.id, stored_responses.c.key == key)
    stored = connection.execute(select(stored_responses).where(*of_key)).one_or_none()
    if stored is None:
        return None
    if stored.fingerprint != fingerprint:
        abort(422, "The key belongs to another request")
    product = orjson.loads(stored.body)
    updated_at = datetime.fromisoformat(product["updated_at"])
    response = Response(stored.body, 201, mimetype="application/json")
    response.set_etag(f"{UUID(product['id']).hex}-{updated_at.timestamp():.6f}")
    response.headers["Location"] = f"/api/v1/products/{product['id']}"
    return response


@blueprint.patch("/<product_id>")
def update_product(product_id: str) -> Response:
    body = checked_body(request.get_json(), UPDATE_CHECKS)
    with engine.begin() as connection:
        product = load_product(connection, load_caller(connection), product_id, writing=True)
        if request.if_match and not request.if_match.contains(etag_of(product)):
            abort(412, "The product has changed")
        of_product = products.c.id == product.id
        connection.execute(update(products).where(of_product).values(**body, updated_at=datetime.now(UTC)))
        return build_response(connection, connection.execute(PRODUCTS.where(of_product)).one())
