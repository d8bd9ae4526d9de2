"""The statements, and how their rows become products."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

import asyncpg

from app.schemas import Product, ProductImage
from app.settings import PUBLIC_URL

COLUMNS = """
p.id, p.created_at, p.updated_at, p.owner_id, p.organization_id, p.sku, p.name, p.description, p.category,
p.gender, p.materials, p.color, p.brand_id, p.state, p.public, p.external_id, p.metadata, p.cover_media_id
"""
SELECT_PRODUCTS = f"""
SELECT {COLUMNS}, c.extension AS cover_extension
FROM products p LEFT JOIN media_resources c ON c.id = p.cover_media_id
"""
SELECT_PRODUCT = f"{SELECT_PRODUCTS} WHERE p.id = $1"
SELECT_PRODUCT_TO_UPDATE = f"{SELECT_PRODUCT} FOR UPDATE OF p"
SELECT_IMAGES = """
SELECT i.id, i.created_at, i.updated_at, i.product_id, i.media_id, i.type, i.position, i.alt_text, i.region,
    i.mask_media_id, m.extension, m.width, m.height, k.extension AS mask_extension
FROM product_images i
JOIN media_resources m ON m.id = i.media_id
LEFT JOIN media_resources k ON k.id = i.mask_media_id
WHERE i.product_id = ANY($1) ORDER BY i.position
"""
ORDER = "ORDER BY p.created_at DESC, p.id DESC"
SELECT_PAGE = f"{SELECT_PRODUCTS} WHERE p.organization_id = $1 {ORDER} OFFSET $2 LIMIT $3"
SELECT_PAGE_AFTER = (
    f"{SELECT_PRODUCTS} WHERE p.organization_id = $1 AND (p.created_at, p.id) < ($4, $5)"
    f" {ORDER} OFFSET $2 LIMIT $3"
)
COUNT_PRODUCTS = "SELECT count(*) FROM products WHERE organization_id = $1"
INSERT_PRODUCT = f"""
INSERT INTO products AS p (id, created_at, updated_at, owner_id, organization_id, sku, name, description,
    category, gender, materials, color, state, public, metadata)
VALUES (gen_random_uuid(), now(), now(), $1, $2, $3, $4, $5, $6, $7, $8, $9, 'READY', false, '{{}}')
RETURNING {COLUMNS}, NULL AS cover_extension
"""
UPDATE_PRODUCT = f"""
UPDATE products AS p SET updated_at = clock_timestamp(){{columns}} WHERE id = $1
RETURNING {COLUMNS},
    (SELECT extension FROM media_resources c WHERE c.id = p.cover_media_id) AS cover_extension
"""


def file_url(media_id: UUID, extension: str) -> str:
    return f"{PUBLIC_URL}/api/v1/files/media/{media_id}/file.{extension}"


def build_image(row: asyncpg.Record) -> ProductImage:
    return ProductImage(
        row["id"],
        row["created_at"],
        row["updated_at"],
        file_url(row["media_id"], row["extension"]),
        row["type"],
        row["width"],
        row["height"],
        row["position"],
        row["alt_text"],
        row["region"],
        file_url(row["mask_media_id"], row["mask_extension"]) if row["mask_media_id"] else None,
    )


def build_product(row: asyncpg.Record, images: list[ProductImage]) -> Product:
    return Product(
        row["id"],
        row["created_at"],
        row["updated_at"],
        row["owner_id"],
        row["organization_id"],
        row["sku"],
        row["name"],
        row["description"],
        row["category"],
        row["gender"],
        row["materials"],
        row["color"],
        row["brand_id"],
        file_url(row["cover_media_id"], row["cover_extension"]) if row["cover_media_id"] else None,
        images,
        row["state"],
        row["public"],
        row["external_id"],
        row["metadata"],
    )


async def load_products(connection: asyncpg.Connection, rows: Sequence[asyncpg.Record]) -> list[Product]:
    """Return products with their images, which one statement reads for all of them."""
    images: dict[UUID, list[ProductImage]] = defaultdict(list)
    for image in await connection.fetch(SELECT_IMAGES, [row["id"] for row in rows]):
        images[image["product_id"]].append(build_image(image))
    return [build_product(row, images[row["id"]]) for row in rows]
